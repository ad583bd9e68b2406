"""Making a revision: claim its number, write its folder, and make it current once it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import vidal
from vidal.clip import SCHEMA_VERSION, Clip
from vidal.dataset import manifest, removals, revisions
from vidal.dataset import plan as plans
from vidal.dataset.dataset import Dataset, DatasetInfo, read_info, write_info
from vidal.dataset.lock import Lock
from vidal.dataset.storage import Storage
from vidal.errors import OutputError
from vidal.rows import TableLike


def finished(address: str) -> Dataset:
    """Open the current revision of a dataset to revise it; raises `OutputError` for a dataset that is not complete."""
    dataset = Dataset.open(address)
    dataset.own_tars("which vidal does not revise; change them, and index them again")
    if dataset.info.within and not dataset.number:
        raise OutputError(f"{address}: is a phase of a build; name the dataset itself")
    _refuse_incomplete(dataset)
    return dataset


def _refuse_incomplete(dataset: Dataset) -> None:
    if len(dataset.committed()) < dataset.info.shards:
        raise OutputError(f"{dataset.address}: not complete yet; run `vidal build` to the end first")


def refuse_listed(base: Dataset, lists: Sequence[str]) -> None:
    """Raise `OutputError` if lists of removals name clips of the dataset, whose media a revision would share."""
    listed = removals.load_all(lists)
    rows = base.rows([*removals.KEYS, "reason"]) if listed else iter(())
    if count := sum(row["reason"] != removals.REASON and listed.match(row) is not None for row in rows):
        address = base.storage.address
        raise OutputError(
            f"{address}: has {count} clip(s) that {' and '.join(lists)} names; remove them first: "
            + "; ".join(f"vidal remove {address} --allow-missing --ids {path}" for path in lists)
        )


@contextlib.contextmanager
def locked(base: Dataset, note: Callable[[], str] = str) -> Iterator[Dataset]:
    """Hold the lock of the whole dataset, and give ``base`` as it is now; ``note`` tells others how far the run is.

    Raises `OutputError` if another revision has become current since ``base`` was opened as the current one, or if a
    run that wrote meanwhile has left it incomplete.
    """
    with Lock(base.storage, note):
        # The next revision would silently lack what that one has.
        if base.was_current and (now := revisions.current(base.storage)) != base.number:
            raise OutputError(
                f"{base.storage.address}: revision {now} has become current meanwhile; run the same command again"
            )
        # Opened anew, as a removal may have changed the plan, and a retry that died may have left a shard out.
        reopened = Dataset.at(base.own_storage)
        _refuse_incomplete(reopened)
        yield reopened


def begin(
    base: Dataset, *, made_by: str, fingerprint: str, changes: dict[str, Any],
    plan: tuple[TableLike, Sequence[plans.Cut]] | None = None, has_plan: bool = True,
) -> Dataset:  # fmt: skip
    """Begin the next revision of a dataset, or resume one that an earlier run of the same command began.

    ``base`` is the revision that it is based on, whose tars it shares; ``changes`` are the fields of its
    ``dataset.json`` that differ. It has the plan of ``base`` unless another ``plan`` is given with its cuts; without
    ``has_plan`` the caller writes the plan later. The caller holds the dataset's lock. Raises `OutputError` if another
    command's revision was begun and is not finished.
    """
    root = base.storage
    # A revision that is not finished has the number behind the current one, however often it is resumed.
    number = revisions.current(root) + 1
    within = revisions.folder_of(number)
    storage = root.child(within)
    begun = read_info(storage)
    if begun is None and revisions.GROWN in storage.names("") and plan is None:
        raise unfinished(root, number, "vidal grow")
    if begun is not None:
        if begun.fingerprint != fingerprint:
            raise unfinished(root, number, begun.made_by)
        return Dataset.at(storage)
    if not base.own_storage.exists(plans.NAME):
        raise OutputError(f"{base.address}: has no {plans.NAME}, so it cannot be revised")
    if has_plan:
        table, cuts = plan or (plans.to_add_to(base.plan), base.plan.cuts)
        plans.write_cuts(storage, table, cuts)
    info = DatasetInfo(
        **{
            **base.info.model_dump(exclude={"tars"}),
            "schema_version": SCHEMA_VERSION,
            "created_by": f"vidal {vidal.__version__}",
            "fingerprint": fingerprint,
            "within": within,
            "revision_of": base.number,
            "carried": [],
            "made_by": made_by,
            "tar_folders": shared_tars(base),
            **changes,
        }
    )
    # Written last: a folder without it belongs to no command, and is overwritten.
    write_info(storage, info)
    return Dataset.at(storage)


def write_manifest(revision: Dataset, shard: int, clips: Sequence[Clip]) -> None:
    """Commit a shard of a revision that shares the shard's tars."""
    metadata = {"fingerprint": revision.info.fingerprint, "shard": str(shard)}
    data = manifest.to_parquet(clips, revision.extra_schema, metadata)
    revision.own_storage.write(manifest.name_of(shard), data)


def finish(revision: Dataset) -> None:
    """Make the revision current; raises `OutputError` if a shard is missing."""
    if missing := set(range(revision.info.shards)) - set(revision.committed()):
        raise OutputError(f"{revision.address}: shard {min(missing)} is missing; run the same command again")
    revisions.make_current(revision.storage, revision.number)


def unfinished(root: Storage, number: int, command: str) -> OutputError:
    """Return the error of a command that meets a revision of another command which is not finished."""
    return OutputError(
        f"{root.address}: revision {number} was begun by {command} and is not finished; run that again, or drop it: "
        f"vidal revisions {root.address} --drop {number}"
    )


def shared_tars(base: Dataset) -> dict[str, list[revisions.TarFolder]]:
    """Return where a revision based on this one finds the existing tars, by layer."""
    own = revisions.TarFolder(first_shard=0, folder=base.folder)
    return {layer: base.info.tar_folders.get(layer) or [own] for layer in base.info.layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of the list of revisions."""

    number: int
    is_current: bool
    is_complete: bool
    made_by: str
    revision_of: int | None
    manifest: str

    def __str__(self) -> str:
        state = "current" if self.is_current else "" if self.is_complete else "not finished"
        origin = "" if self.revision_of is None else f", from {self.revision_of}"
        return f"{self.number}  {self.made_by}{origin}" + (f"  ({state})" if state else "") + f"  {self.manifest}"


class Revisions(list[Listed]):
    """The revisions of a dataset in order, from 0: the dataset as it was built."""

    def lines(self) -> Iterator[str]:
        return map(str, self)

    def as_json(self) -> dict[str, Any]:
        return {"revisions": [asdict(line) for line in self]}


def listed(address: str) -> Revisions:
    """Return all revisions of a dataset, complete or not."""
    root = Dataset.open(address).storage
    current = revisions.current(root)
    lines = Revisions()
    for number in [0, *revisions.numbers(root)]:
        dataset = revision_at(root, number)
        lines.append(
            Listed(
                number=number, is_current=number == current, is_complete=number <= current,
                made_by=dataset.info.made_by or "vidal build", revision_of=dataset.info.revision_of,
                manifest=dataset.manifest_address,
            )
        )  # fmt: skip
    return lines


def drop(address: str, number: int) -> None:
    """Delete a revision and its files; if it was the current one, the newest earlier one becomes current.

    Raises `OutputError` for a revision that another one is based on or shares tars with.
    """
    root = Dataset.open(address).storage
    with Lock(root):
        existing = revisions.numbers(root)
        is_begun = number == revisions.current(root) + 1 and root.names(revisions.folder_of(number))
        if number not in existing and not is_begun:
            known = ", ".join(map(str, existing)) or "none"
            raise OutputError(f"{root.address}: has no revision {number} to drop; revisions: {known}")
        folder = revisions.folder_of(number)
        for other in (other for other in existing if other != number):
            info = revision_at(root, other).info
            shared = {place.folder for places in info.tar_folders.values() for place in places}
            if info.revision_of == number or folder in shared:
                raise OutputError(f"{root.address}: revision {other} is based on revision {number}; drop it first")
        # Before any file goes, so that no reader opens a revision that is half deleted.
        if number == revisions.current(root):
            revisions.make_current(root, max((other for other in existing if other < number), default=0))
        # dataset.json goes first, so that a kill leaves nothing that looks like a revision.
        root.remove(f"{folder}/{revisions.INFO_NAME}")
        root.remove(folder)


def revision_at(root: Storage, number: int) -> Dataset:
    """Open a revision of the dataset in ``root`` by its number, complete or not."""
    return Dataset.at(root.child(revisions.folder_of(number)) if number else root)
