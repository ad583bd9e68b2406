"""`follow`: removes clips from a dataset and from what was made of it, and proves it.

The datasets lose the clips first, under their locks; then exports and embeddings are rewritten, file by file. A journal
in the dataset's folder lets the same command finish it after a kill.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidal import extras
from vidal.dataset import plan
from vidal.dataset.dataset import Dataset
from vidal.dataset.lock import Lock
from vidal.dataset.removals import KEYS, REASON, Removals
from vidal.errors import OutputError, SourceError
from vidal.reader.where import matching_by_shard
from vidal.removal import certificate as certificates
from vidal.removal.journal import NAME, Journal, RemovedClip, now
from vidal.removal.places import NamedPlace, Reach
from vidal.removal.remove import Removed, parts, remove_under_lock
from vidal.removal.reposts import Repost, reposts_of
from vidal.removal.runs import RunRecord, Trained
from vidal.removal.scan import Scan, Wanted

RepostMode = Literal["list", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedPlace:
    """A place before and after the removal."""

    place: NamedPlace
    before: Scan
    after: Scan

    def lines(self) -> Iterator[str]:
        what = f"{self.place.kind} as {self.place.format}" if self.place.format else self.place.kind
        yield f"  {self.place.address} ({what}): {self.before.members} members and rows taken out"
        yield from (f"  {self.place.address}: still there: {found}" for found in self.after.found)
        yield from (f"  {self.place.address}: the same bytes in another clip: {same}" for same in self.after.same)

    def as_json(self) -> dict[str, Any]:
        return {
            "place": self.place.address, "kind": self.place.kind, "format": self.place.format or None,
            "fingerprint": self.place.fingerprint, "sha256_before": self.before.sha256,
            "sha256_after": self.after.sha256, "files": self.after.files, "members": self.before.members,
            "bytes": self.before.size_bytes, "remains": self.after.found, "same_bytes": self.after.same,
        }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Following:
    """The result of a removal in all places, with its proof."""

    removed: list[Removed]
    """By dataset; the one of the removal first."""
    clips: dict[str, RemovedClip]
    places: list[ReachedPlace]
    checkpoints: list[Trained]
    reposts: list[Repost]
    missing: list[str]
    are_likes_unknown: bool
    """Whether fingerprints were not compared, for lack of SciPy."""
    certificate: tuple[str, str] | None = None
    """Path and SHA-256."""

    @property
    def remains(self) -> list[str]:
        """What is still there, or has changed although it should not have."""
        own = [place for removed in self.removed for place in (*removed.remains, *removed.changed_files)]
        return own + [f"{one.place.address}/{found}" for one in self.places for found in one.after.found]

    def lines(self) -> Iterator[str]:
        main, *others = self.removed
        yield from main.lines()
        yield from (f"{line} in {other.dataset}" for other in others for line in [next(other.lines())])
        yield from (line for one in self.places for line in one.lines())
        yield from (line for run in self.checkpoints for line in run.lines())
        for repost in (repost for repost in self.reposts if repost.clip_id not in self.clips):
            by = "" if repost.distance is None else f", distance {repost.distance:.3g}"
            state = "kept" if repost.is_kept else "not kept, but its row has a thumbnail"
            hint = "; --reposts remove takes it out" if repost.is_sure else ""
            yield f"  like {repost.of}: {repost.clip_id} ({repost.kind}{by}; {state}){hint}"
        if self.are_likes_unknown:
            yield "clips like these were not looked for, which needs SciPy: pip install 'vidal[build]'"
        if self.certificate:
            yield f"certificate: {self.certificate[0]}, SHA-256 {self.certificate[1]}"

    def as_json(self) -> dict[str, Any]:
        main = self.removed[0]
        clips = [
            {"clip_id": clip_id, "repost_of": clip.repost_of, "source_sha256": clip.source_sha256,
             "address_sha256": [hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
                                for address in clip.addresses]}
            for clip_id, clip in sorted(self.clips.items())
        ]  # fmt: skip
        return {
            **main.as_json(), "proven": not self.remains and not self.missing, "missing": self.missing,
            "clips": clips, "places": [one.as_json() for one in self.places],
            "checkpoints": [run.as_json() for run in self.checkpoints],
            "are_likes_unknown": self.are_likes_unknown,
            "reposts": [{**repost.as_json(), "is_removed": repost.clip_id in self.clips} for repost in self.reposts],
        }  # fmt: skip


def selected(address: str, where: str) -> Removals:
    """Return the clips of a dataset, kept or not, that meet a condition, for a removal.

    Raises `SourceError` for an invalid condition, and if no clip meets it, unless an earlier removal is to be finished:
    of the clips that it began with there may be nothing left to meet it.
    """
    dataset = Dataset.open(address)
    clip_ids: set[str] = set()
    for table, meets in matching_by_shard(dataset, where):
        rows = table.select(["clip_id", "reason"]).filter(meets).to_pylist()
        clip_ids |= {row["clip_id"] for row in rows if row["reason"] != REASON}
    if not clip_ids and not dataset.storage.exists(NAME):
        raise SourceError(f"{address}: --where {' '.join(where.split())}: no clip meets it")
    return Removals({"clip_id": frozenset(clip_ids)})


def follow(
    address: str, removals: Removals, *, also: Sequence[str] = (), reposts: RepostMode = "list",
    certificate: Path | None = None, requested_by: str | None = None,
) -> Following:  # fmt: skip
    """Remove the clips on a list from a dataset and from the places ``also``; write a certificate if it has a path.

    With either of them, every byte of every place is read before and after. Raises `UserError`, before anything is
    changed, for a place that is not of the dataset, and `OutputError` if another run writes one of the datasets.
    """
    reach = Reach.of(address, also)
    if certificate is not None:
        certificates.check_path(certificate, [p.address for p in reach.places if not p.files and p.storage.is_local])
    runs = [RunRecord(place.address, reach.revisions) for place in reach.places if place.kind == "run"]
    begun = Journal.read(reach.datasets[0].storage)
    is_proven = bool(also or certificate or (begun and begun.before))
    places = [place for place in reach.places if place.kind != "run"] if is_proven else []
    with contextlib.ExitStack() as stack:
        # One lock for all parts of each: nobody may write between a removal and its proof.
        for dataset in sorted(reach.datasets, key=lambda dataset: dataset.storage.address):
            stack.enter_context(Lock(dataset.storage))
        # A plain install can remove a clip; a proof, and the removal of what is like it, need the whole.
        are_likes_unknown = reposts == "list" and certificate is None and bool(extras.missing(["scipy"]))
        journal = _begin(reach, removals, reposts, places, by_fingerprint=not are_likes_unknown)
        clip_ids = frozenset(journal.clips)
        addresses = frozenset(address for clip in journal.clips.values() for address in clip.addresses)
        everything = removals | Removals({"clip_id": clip_ids, "url": addresses})
        removed = [remove_under_lock(dataset, everything) for dataset in reach.datasets]
        for place in places:
            place.rewrite(clip_ids)
        wanted = Wanted(clip_ids, addresses, frozenset(journal.members))
        result = Following(
            removed=removed, clips=journal.clips, reposts=journal.reposts,
            places=[
                ReachedPlace(
                    place=place, before=journal.before[place.real],
                    after=Scan.of(place.storage, wanted, place.files),
                )
                for place in places
            ],
            checkpoints=[run.trained_on(clip_ids) for run in runs],
            missing=[name for name in _missing(removals, removed) if name not in addresses],
            are_likes_unknown=are_likes_unknown,
        )  # fmt: skip
        removed[0].missing = result.missing
        if certificate is not None:
            body = certificates.body_of(
                result.as_json(), requested_by=requested_by, began_at=journal.began_at, finished_at=now()
            )
            is_repeated = not any(one.before.members for one in result.places)
            there = certificates.earlier(certificate, body) if is_repeated else None
            result.certificate = (str(certificate), there or certificates.write(certificate, body))
        reach.datasets[0].storage.remove(NAME)
    return result


def _begin(
    reach: Reach, removals: Removals, mode: RepostMode, places: Sequence[NamedPlace], *, by_fingerprint: bool
) -> Journal:
    """Return what is to be done: what an earlier try of the command began, or what the list names now."""
    storage = reach.datasets[0].storage
    begun = Journal.read(storage)
    if begun is not None and (left := sorted(begun.before.keys() - {place.real for place in places})):
        raise OutputError(
            f"{storage.address}: a removal was begun and not finished that reaches further places; run that command "
            f"again, or name them, too: {' '.join(f'--also {place}' for place in left)}"
        )
    journal = begun or Journal()
    _gather(reach.datasets, removals, journal)
    if not journal.reposts:
        journal.reposts = reposts_of(reach.datasets, journal.clips, by_fingerprint=by_fingerprint)
    if mode == "remove":
        sure = {repost.clip_id: repost.of for repost in journal.reposts if repost.is_sure}
        _gather(reach.datasets, Removals({"clip_id": frozenset(sure)}), journal)
        for clip_id in sure.keys() & journal.clips.keys():
            journal.clips[clip_id].repost_of = sure[clip_id]
    addresses = frozenset(address for clip in journal.clips.values() for address in clip.addresses)
    wanted = Wanted(frozenset(journal.clips), addresses)
    for place in places:
        if place.real not in journal.before:
            journal.before[place.real] = Scan.of(place.storage, wanted, place.files)
    # A clip that has lost its row no longer meets the condition that chose it.
    journal.write(storage)
    return journal


def _gather(datasets: Sequence[Dataset], removals: Removals, journal: Journal) -> None:
    """Note the clips that a list names in any of the datasets, and whatever has the address of one of them."""
    members: set[str] = set()
    for _ in range(2):
        addresses = {address for clip in journal.clips.values() for address in clip.addresses}
        named = removals | Removals({"clip_id": frozenset(journal.clips), "url": frozenset(addresses)})
        for part in (part for dataset in datasets for part in parts(dataset)):
            members |= _gather_from(part, named, journal)
    journal.members = sorted({*journal.members, *members})


def _gather_from(part: Dataset, removals: Removals, journal: Journal) -> set[str]:
    """Note the clips of one part, and return the digests of their members."""
    digests: set[str] = set()
    tables = [(shard, part.table(shard, [*KEYS, "reason"])) for shard in part.committed()]
    if part.own_storage.exists(plan.NAME):
        # Clips of shards that are not committed yet are in the plan only.
        tables.append((-1, part.plan.table([name for name in KEYS if name in part.plan.schema.names])))
    for shard, table in tables:
        matched = [row for row in table.to_pylist() if removals.match(row)]
        for row in matched:
            clip = journal.clips.setdefault(row["clip_id"], RemovedClip())
            if row.get("url") and row["url"] not in clip.addresses:
                clip.addresses.append(row["url"])
            clip.source_sha256 = row.get("source_sha256") or clip.source_sha256
        mine = {row["clip_id"] for row in matched if row.get("reason") != REASON}
        if mine and shard >= 0:
            for row in part.table(shard, ["clip_id", "members"]).to_pylist():
                named = row["members"] if row["clip_id"] in mine else ()
                digests |= {member["sha256"] for member in named if not member["name"].endswith(".json")}
    return digests


def _missing(removals: Removals, removed: Sequence[Removed]) -> list[str]:
    """Return what is on the list and in none of the datasets."""
    nowhere = set.intersection(*(set(one.missing) for one in removed))
    return sorted({value for values in removals.values.values() for value in values} & nowhere)
