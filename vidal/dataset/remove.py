"""`vidal remove`: takes clips out of a data set that is there, and proves it.

Only the shards that hold them are written anew; every other file keeps its bytes. What stays of a clip is a row with
its id and the hash of its file, so that it is recognised if it is met again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset import manifest, plan, revisions
from vidal.dataset.commit import ShardWriter
from vidal.dataset.dataset import Dataset, read_info
from vidal.dataset.lock import Lock
from vidal.dataset.members import load_members
from vidal.dataset.removals import KEYS, REASON, Removals, tombstone
from vidal.dataset.revise import GROWN, revision_at
from vidal.dataset.storage import Storage
from vidal.record import from_row

Seen = dict[str, set[str]]
"""By column, what of a list has been met."""

_PLAN_KEEPS = ("clip_id", "shard", "position", *plan.SOURCE_PLACE)


@dataclass(slots=True, kw_only=True)
class Removed:
    """What was done, and the proof."""

    dataset: str
    clip_ids: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    untouched_files: int = 0
    changed_files: list[str] = field(default_factory=list)
    """Files of other shards whose bytes are not what they were: none, or something is wrong."""
    remains: list[str] = field(default_factory=list)
    """Places in which a removed clip's members are still found: none, or something is wrong."""
    missing: list[str] = field(default_factory=list)
    """What is named and matches nothing of the dataset, removed clips included."""

    @property
    def is_proven(self) -> bool:
        """Whether all that was named is gone, and nothing else changed."""
        return not self.changed_files and not self.remains and not self.missing

    def lines(self) -> Iterator[str]:
        yield (
            f"removed {len(self.clip_ids)} clips from {len(self.shards)} shards; "
            f"{self.untouched_files} files of other shards are what they were, "
            f"{len(self.remains)} places still hold a removed clip"
        )
        yield from (f"  {place}" for place in [*self.remains, *self.changed_files])
        yield from (f"nowhere in {self.dataset}: {name}" for name in self.missing)

    def as_json(self) -> dict[str, Any]:
        return {"proven": self.is_proven, **asdict(self)}


def remove(address: str, removals: Removals) -> Removed:
    """Remove what is named from a data set and from the phases that it was made in."""
    dataset = Dataset.at(Dataset.open(address).storage)
    dataset.own_tars("which vidal does not change; remove the clips from the tars and index them anew")
    result = Removed(dataset=address)
    seen: Seen = {key: set() for key in KEYS}
    with Lock(dataset.storage):
        for part in _parts(dataset):
            _remove_from(part, removals, result, seen)
        for number in revisions.numbers(dataset.storage):
            _take_over_members(revision_at(dataset.storage, number))
    result.missing = removals.missing(seen)
    result.clip_ids = sorted(set(result.clip_ids))
    return result


def _parts(dataset: Dataset) -> Iterator[Dataset]:
    """Whatever has rows of its own: the dataset, its phases, and each revision with its phases and what it grew by."""
    yield dataset
    storage = dataset.own_storage
    for name in storage.names("phases"):
        yield Dataset.at(storage.child(f"phases/{name}"))
    if GROWN in storage.names("") and read_info(storage.child(GROWN)):
        yield from _parts(Dataset.at(storage.child(GROWN)))
    for number in [] if dataset.folder else revisions.numbers(storage):
        yield from _parts(revision_at(storage, number))


def _take_over_members(revision: Dataset) -> None:
    """Let a revision's rows say where the members are in tars of earlier ones that were written anew."""
    for shard in revision.committed():
        data = revision.storage.read(revision.manifest_name(shard))
        rows = manifest.read(data).to_pylist()
        inherited = [layer for layer in revision.info.layers if revision.is_inherited(layer, shard)]
        there: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for layer in inherited:
            owner, number = revision.owner(layer, shard)
            for row in owner.table(number, ["clip_id", "members"]).to_pylist():
                there[row["clip_id"], layer] = [member for member in row["members"] if member["layer"] == layer]
        changed = False
        for row in rows:
            own = [member for member in row["members"] if member["layer"] not in inherited]
            taken = [member for layer in inherited for member in there[row["clip_id"], layer]]
            members = [] if row["reason"] == REASON else [*taken, *own]
            changed |= members != row["members"]
            row["members"] = members
        if changed:
            clips = [from_row(row) for row in rows]
            metadata = manifest.own_metadata(data)
            anew = manifest.to_parquet(clips, revision.extra_schema, metadata)
            revision.storage.write(revision.manifest_name(shard), anew)


def _remove_from(dataset: Dataset, removals: Removals, result: Removed, seen: Seen) -> None:
    concerned = {shard: ids for shard in dataset.committed() if (ids := _named(dataset, shard, removals, seen))}
    rewritten = {name for shard in concerned for name in _files_of(dataset, shard)}
    before = _digests(dataset, rewritten)
    for shard, ids in concerned.items():
        _rewrite(dataset, shard, ids)
        result.clip_ids += sorted(ids)
        result.shards.append(f"{dataset.storage.address}/{dataset.manifest_name(shard)}")
        result.remains += _remains(dataset, shard, ids)
    _blank_plan(dataset, {clip_id for ids in concerned.values() for clip_id in ids} | _planned(dataset, removals, seen))
    after = _digests(dataset, rewritten)
    result.untouched_files += len(after)
    result.changed_files += sorted(f"{dataset.storage.address}/{n}" for n in before if after.get(n) != before[n])


def _named(dataset: Dataset, shard: int, removals: Removals, seen: Seen) -> set[str]:
    rows = _matching(dataset.table(shard, [*KEYS, "reason"]), removals, seen)
    return {row["clip_id"] for row in rows if row["reason"] != REASON}


def _planned(dataset: Dataset, removals: Removals, seen: Seen) -> set[str]:
    """Clips of shards that are not committed yet: the plan is all that names them."""
    if not dataset.own_storage.exists(plan.NAME):
        return set()
    known = [key for key in KEYS if key in dataset.plan.columns]
    return {row["clip_id"] for row in _matching(dataset.plan.table(known), removals, seen)}


def _matching(table: pa.Table, removals: Removals, seen: Seen) -> list[dict[str, Any]]:
    """The rows that are named; what of the list they are named by is added to ``seen``."""
    rows = [row for row in table.to_pylist() if removals.match(row)]
    for row in rows:
        for key, values in removals.values.items():
            if row.get(key) in values:
                seen[key].add(row[key])
    return rows


def _files_of(dataset: Dataset, shard: int) -> list[str]:
    return [dataset.manifest_name(shard), *(dataset.tar(layer, shard) for layer in _own_layers(dataset, shard))]


def _own_layers(dataset: Dataset, shard: int) -> list[str]:
    return [layer for layer in dataset.info.layers if not dataset.is_inherited(layer, shard)]


def _digests(dataset: Dataset, without: set[str]) -> dict[str, str]:
    storage = dataset.storage
    names = [name for shard in dataset.committed() for name in _files_of(dataset, shard) if name not in without]
    return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in names}


def _rewrite(dataset: Dataset, shard: int, ids: set[str]) -> None:
    data = dataset.storage.read(dataset.manifest_name(shard))
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


def _blank_plan(dataset: Dataset, ids: set[str]) -> None:
    """Empty what the plan says of the removed clips, and turn away those that no shard holds yet."""
    if not ids:
        return
    table = dataset.plan.table()
    named = pc.is_in(table.column("clip_id"), value_set=pa.array(sorted(ids)))
    for name in table.column_names:
        if name not in _PLAN_KEEPS:
            column = table.column(name)
            said = {"status": "rejected", "stage": "remove", "reason": REASON, "detail": "on the list of removals"}
            value = pa.scalar(said.get(name), column.type)
            table = table.set_column(table.column_names.index(name), name, pc.if_else(named, value, column))
    plan.write_like(dataset.own_storage, table, dataset.plan)


def _remains(dataset: Dataset, shard: int, ids: set[str]) -> list[str]:
    """Where a removed clip is still named in the shard's tars."""
    storage: Storage = dataset.storage
    found = []
    for layer in _own_layers(dataset, shard):
        name = dataset.tar(layer, shard)
        data = storage.read(name)
        found += [f"{storage.address}/{name}" for clip_id in sorted(ids) if f"{clip_id}.".encode() in data]
    return found
