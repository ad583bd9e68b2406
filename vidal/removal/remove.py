"""`vidal remove`: removes clips from an existing dataset, and proves it.

Only the shards that contain the clips are rewritten; all other tars and manifests are untouched. A row with the id of
each clip and the hash of its file remains, so that the clip is recognised when it is encountered again. Its address is
in no file of the dataset any more, nor is a host that no other clip has.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset import manifest, plan, revisions
from vidal.dataset.commit import ShardWriter, revoke
from vidal.dataset.dataset import Dataset, read_info
from vidal.dataset.lock import Lock
from vidal.dataset.members import load_members
from vidal.dataset.removals import KEYS, REASON, Removals, tombstone
from vidal.record import from_row
from vidal.removal.traces import Traces
from vidal.revisions.revise import revision_at

Seen = dict[str, set[str]]
"""The values of a removals list that matched a row, by column."""

_PLAN_KEEPS = ("clip_id", "shard", "position", *plan.SOURCE_PLACE)


@dataclass(slots=True, kw_only=True)
class Removed:
    """The result of a removal, with its proof."""

    dataset: str
    clip_ids: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    untouched_files: int = 0
    changed_files: list[str] = field(default_factory=list)
    """Files of other shards whose bytes changed; must be empty."""
    remains: list[str] = field(default_factory=list)
    """Tars that still contain a member of a removed clip; must be empty."""
    missing: list[str] = field(default_factory=list)
    """Values on the list that match no clip of the dataset, removed clips included."""

    @property
    def is_proven(self) -> bool:
        """Whether everything on the list is gone and nothing else changed."""
        return not self.changed_files and not self.remains and not self.missing

    def lines(self) -> Iterator[str]:
        yield (
            f"removed {len(self.clip_ids)} clips from {len(self.shards)} shards; "
            f"{self.untouched_files} files of other shards are untouched, "
            f"{len(self.remains)} tars still contain a removed clip"
        )
        yield from (f"  {place}" for place in [*self.remains, *self.changed_files])
        yield from (f"not found in {self.dataset}: {name}" for name in self.missing)

    def as_json(self) -> dict[str, Any]:
        return {"proven": self.is_proven, **asdict(self)}


def remove(address: str, removals: Removals) -> Removed:
    """Remove the clips on a list from all revisions of a dataset, and from the phases of its build.

    Raises `OutputError` for an indexed dataset, or if another run is writing this one.
    """
    dataset = changeable(address)
    # One lock for all parts: nobody may write between a removal and its proof.
    with Lock(dataset.storage):
        return remove_under_lock(dataset, removals)


def changeable(address: str) -> Dataset:
    """Return the dataset as it was built, whichever revision is current; raises `OutputError` for an indexed one."""
    # Every revision shares tars with revision 0, and all of them lose the clips.
    dataset = Dataset.at(Dataset.open(address).storage)
    dataset.own_tars("which vidal does not change; remove the clips from the tars and index them again")
    return dataset


def remove_under_lock(dataset: Dataset, removals: Removals) -> Removed:
    """Remove the clips on a list from a dataset that `changeable` gave; the caller holds its lock."""
    result = Removed(dataset=dataset.storage.address)
    seen: Seen = {key: set() for key in KEYS}
    each = list(parts(dataset))
    traces = Traces.of(each, removals)
    traces.erase(each)
    # A list may name a clip's address twice, under another id.
    everything = removals | Removals({"url": frozenset(traces.urls)})
    for part in each:
        _remove_from(part, everything, traces.ids, result, seen)
    # After all tars are rewritten, as a revision may share those of any earlier one.
    for number in revisions.numbers(dataset.storage):
        _update_members(revision_at(dataset.storage, number))
    result.missing = removals.missing(seen)
    result.clip_ids = sorted(set(result.clip_ids))
    return result


def parts(dataset: Dataset) -> Iterator[Dataset]:
    """Yield everything with rows of its own: the dataset, its phases, and each revision with its phases and growth."""
    yield dataset
    storage = dataset.own_storage
    for name in storage.names("phases"):
        yield Dataset.at(storage.child(f"phases/{name}"))
    if revisions.GROWN in storage.names("") and read_info(storage.child(revisions.GROWN)):
        yield from parts(Dataset.at(storage.child(revisions.GROWN)))
    if dataset.folder:
        return
    numbers = revisions.numbers(storage)
    for number in numbers:
        yield from parts(revision_at(storage, number))
    # Of a growth that was begun and died, the dataset within is all that there is yet.
    begun = storage.child(f"{revisions.folder_of(revisions.current(storage) + 1)}/{revisions.GROWN}")
    if revisions.current(storage) + 1 not in numbers and read_info(begun):
        yield from parts(Dataset.at(begun))


def _update_members(revision: Dataset) -> None:
    """Correct the places of a revision's members in the tars of earlier revisions, after these were rewritten."""
    for shard in revision.committed():
        data = revision.manifest_bytes(shard)
        rows = manifest.read(data).to_pylist()
        inherited = [layer for layer in revision.info.layers if revision.is_inherited(layer, shard)]
        by_clip: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for layer in inherited:
            owner, number = revision.owner(layer, shard)
            for row in owner.table(number, ["clip_id", "members"]).to_pylist():
                by_clip[row["clip_id"], layer] = [member for member in row["members"] if member["layer"] == layer]
        changed = False
        for row in rows:
            own = [member for member in row["members"] if member["layer"] not in inherited]
            shared = [member for layer in inherited for member in by_clip[row["clip_id"], layer]]
            members = [] if row["reason"] == REASON else [*shared, *own]
            changed |= members != row["members"]
            row["members"] = members
        if changed:
            clips = [from_row(row) for row in rows]
            data = manifest.to_parquet(clips, revision.extra_schema, manifest.own_metadata(data))
            revision.storage.write(revision.manifest_name(shard), data)


def _remove_from(dataset: Dataset, removals: Removals, known: Collection[str], result: Removed, seen: Seen) -> None:
    """Remove the clips on the list from one part; ``known`` are their ids, and those of clips removed before."""
    storage, removed = dataset.storage, {}

    def on_the_list(table: pa.Table) -> list[dict[str, Any]]:
        rows = [row for row in table.to_pylist() if removals.match(row)]
        for row in rows:
            for key, values in removals.values.items():
                if row.get(key) in values:
                    seen[key].add(row[key])
        return rows

    def digests() -> dict[str, str]:
        names = (name for shard in dataset.committed() for name in _files_of(dataset, shard) if name not in rewritten)
        return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in names}

    for shard in dataset.committed():
        rows = on_the_list(dataset.table(shard, [*KEYS, "reason"]))
        if ids := {row["clip_id"] for row in rows if row["reason"] != REASON}:
            removed[shard] = ids
    rewritten = {name for shard in removed for name in _files_of(dataset, shard)}
    # Of the bytes, which reads the dataset twice: sizes and times would not show that nothing else has changed.
    before = digests()
    for shard, ids in removed.items():
        _rewrite(dataset, shard, ids)
        result.clip_ids += sorted(ids)
        result.shards.append(f"{storage.address}/{dataset.manifest_name(shard)}")
        for name in (dataset.tar(layer, shard) for layer in _own_layers(dataset, shard)):
            # By the headers: the bytes of `7.` are in those of clip 007 as well, and in many a number.
            with tarfile.open(fileobj=io.BytesIO(storage.read(name)), mode="r:") as tar:
                keys = {member.partition(".")[0] for member in tar.getnames()}
            result.remains += [f"{storage.address}/{name}"] if keys & ids else []
    if dataset.own_storage.exists(plan.NAME):
        # Clips of shards that are not committed yet are in the plan only.
        columns = [key for key in KEYS if key in dataset.plan.schema.names]
        planned = {row["clip_id"] for row in on_the_list(dataset.plan.table(columns))}
        _clear_plan(dataset, planned.union(known))
    after = digests()
    result.untouched_files += len(after)
    result.changed_files += sorted(f"{storage.address}/{name}" for name in before if after.get(name) != before[name])


def _files_of(dataset: Dataset, shard: int) -> list[str]:
    return [dataset.manifest_name(shard), *(dataset.tar(layer, shard) for layer in _own_layers(dataset, shard))]


def _own_layers(dataset: Dataset, shard: int) -> list[str]:
    return [layer for layer in dataset.info.layers if not dataset.is_inherited(layer, shard)]


def _rewrite(dataset: Dataset, shard: int, ids: set[str]) -> None:
    data = dataset.manifest_bytes(shard)
    # The writer sets the shard's number itself.
    metadata = {name: value for name, value in manifest.own_metadata(data).items() if name != "shard"}
    own = _own_layers(dataset, shard)
    inherited = [layer for layer in dataset.info.layers if layer not in own]
    with (
        tempfile.TemporaryDirectory(prefix="vidal-remove-") as scratch,
        ShardWriter(dataset.own_storage, shard, own, Path(scratch), dataset.extra_schema, inherited) as writer,
    ):
        for row in manifest.read(data).to_pylist():
            clip = from_row(row)
            if clip.clip_id in ids:
                clip = tombstone(clip, "remove")
            if clip.status == "kept":
                load_members(clip, dataset, shard, own)
            writer.add(clip)
        writer.commit(metadata)


def _clear_plan(dataset: Dataset, ids: set[str]) -> None:
    """Clear the plan's columns of the removed clips, and reject those whose shard is not committed yet."""
    if not ids:
        return
    before = table = dataset.plan.table()
    is_removed = pc.is_in(table.column("clip_id"), value_set=pa.array(sorted(ids)))
    for name in table.column_names:
        if name not in _PLAN_KEEPS:
            column = table.column(name)
            outcome = {"status": "rejected", "stage": "remove", "reason": REASON, "detail": "on the list of removals"}
            value = pa.scalar(outcome.get(name), column.type)
            table = table.set_column(table.column_names.index(name), name, pc.if_else(is_removed, value, column))
    if not table.equals(before):
        plan.write_cuts(dataset.own_storage, table, dataset.plan.cuts)
    # A shard that a killed run has packed but not committed is packed again, and its manifest must not come late.
    shards = pc.unique(table.filter(is_removed)["shard"]).to_pylist()
    for shard in sorted(set(shards) - set(dataset.committed())):
        revoke(dataset.own_storage, shard)
        for layer in _own_layers(dataset, shard):
            dataset.storage.remove(dataset.tar(layer, shard))
