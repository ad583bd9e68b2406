"""`verify`: everything that a data set promises, checked against its bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from vidal.clip import SCHEMA_VERSION, manifest_schema, schema
from vidal.dataset import alignment, manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import KEY_PATTERN, TarWriter
from vidal.errors import ClipError, StorageError
from vidal.record import from_row, to_json
from vidal.work import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where."""

    what: str
    shard: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        where = "" if self.shard is None else f"shard {manifest.stem_of(self.shard)}: "
        return where + (f"{self.key}: " if self.key else "") + self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found of a whole dataset."""

    dataset: str
    rows: int
    shards: int
    problems: list[Problem]

    @classmethod
    def of(cls, dataset: Dataset) -> Verification:
        """Verify a dataset to the end."""
        return cls(
            dataset=dataset.storage.address, rows=dataset.info.candidates, shards=len(dataset.committed()),
            problems=list(verify(dataset)),
        )  # fmt: skip

    @property
    def is_well(self) -> bool:
        return not self.problems

    def lines(self) -> Iterator[str]:
        if self.is_well:
            yield f"{self.dataset}: all {self.rows} rows and their members are what they should be"
        yield from map(str, self.problems)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.is_well, "shards": self.shards, "problems": [asdict(problem) for problem in self.problems]}


def verify(dataset: Dataset) -> Iterator[Problem]:
    """Every problem, shard by shard; nothing where all is well."""
    info, there = dataset.info, dataset.committed()
    expected = set(range(info.shards))
    for shard in sorted(expected - set(there)):
        yield Problem(what="not built yet (no manifest)", shard=shard)
    for shard in sorted(set(there) - expected):
        yield Problem(what="is in no plan", shard=shard)
    for layer in info.layers if info.tars is None else ():
        stems = {name.removesuffix(".tar") for name in dataset.own_storage.names(layer)}
        for stem in sorted(stems - {manifest.stem_of(shard) for shard in there}):
            yield Problem(what=f"{layer}/{stem}.tar has no manifest")
    for shard in sorted(expected & set(there)):
        yield from _verify_shard(dataset, shard)


def _verify_shard(dataset: Dataset, shard: int) -> Iterator[Problem]:
    try:
        data = dataset.storage.read(dataset.manifest_name(shard))
        table = manifest.read(data)
        written_for = manifest.read_metadata(data).get("fingerprint")
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Problem(what=f"the manifest cannot be read: {' '.join(str(error).split())[:200]}", shard=shard)
        return
    if not _is_schema_of(dataset, manifest.read_schema(data)):
        yield Problem(what="its columns are not those of the schema", shard=shard)
        return
    rows = table.to_pylist()
    if written_for not in (dataset.info.fingerprint, *dataset.info.carried):
        yield Problem(what=f"written for fingerprint {written_for}, not {dataset.info.fingerprint}", shard=shard)
    if [row["clip_id"] for row in rows] != dataset.plan.clip_ids(shard):
        yield Problem(what="its rows are not the plan's candidates in the plan's order", shard=shard)
    if dataset.info.tars is not None:
        yield from _foreign_problems(dataset, rows, shard)
        return
    tars: dict[str, bytes] = {}
    for layer in dataset.info.layers:
        try:
            tars[layer] = dataset.storage.read(dataset.tar(layer, shard))
        except (FileNotFoundError, StorageError) as error:
            yield Problem(what=f"{layer}: the tar cannot be read: {error}", shard=shard)
    inherited = {layer for layer in tars if dataset.is_inherited(layer, shard)}
    for row in rows:
        for what in _row_problems(row, tars, dataset.extra_schema, inherited):
            yield Problem(what=what, shard=shard, key=row["clip_id"])
    yield from _tar_problems(rows, tars, shard)


def _is_schema_of(dataset: Dataset, written: pa.Schema) -> bool:
    """Whether columns and types are today's; an earlier version may lack columns, and has no others."""
    expected = manifest_schema(dataset.extra_schema)
    if dataset.info.schema_version < SCHEMA_VERSION:
        plain = schema(dataset.extra_schema)
        expected = pa.schema([field for field in plain if field.name in written.names])
    return bool(written.equals(expected))


def _foreign_problems(dataset: Dataset, rows: list[dict[str, Any]], shard: int) -> Iterator[Problem]:
    """Of an index only the members are promised: their tars hold what they like besides."""
    for row in rows:
        for member in row["members"]:
            try:
                what = "" if _is_as_written(dataset, row, member) else "is not what the manifest says"
            except (OSError, StorageError) as error:
                what = f"cannot be read: {error}"
            if what:
                yield Problem(what=f"{member['name']} {what}", shard=shard, key=row["clip_id"])


def _is_as_written(dataset: Dataset, row: dict[str, Any], member: dict[str, Any]) -> bool:
    return bool(hashlib.sha256(dataset.read_member(row, member["name"])).hexdigest() == member["sha256"])


def _row_problems(
    row: dict[str, Any], tars: dict[str, bytes], extra: pa.Schema, inherited: Collection[str]
) -> Iterator[str]:
    """What is wrong with one row; members in ``inherited`` layers are an earlier revision's, whatever the outcome."""
    if row["status"] not in ("kept", "rejected", "failed"):
        yield f"status is {row['status']!r}"
    if row["status"] != "kept":
        if {m["layer"] for m in row["members"]} - set(inherited):
            yield f"is {row['status']} but has members"
        if not row["reason"] or not row["stage"]:
            yield f"is {row['status']} without stage and reason"
        for member in row["members"]:
            data = tars.get(member["layer"], b"")[member["offset"] : member["offset"] + member["size"]]
            if hashlib.sha256(data).hexdigest() != member["sha256"]:
                yield f"{member['name']} in {member['layer']} is not what the manifest says"
        return
    if not KEY_PATTERN.fullmatch(row["clip_id"]):
        yield "is not a safe key"
    if sorted({m["layer"] for m in row["members"]}) != sorted(row["layers"]):
        yield "its layers are not those of its members"
    clip = from_row(row)
    told = json.loads(json.dumps(to_json(clip, extra), default=str))
    for record in (record for record in clip.members if record.layer in tars):
        data = tars[record.layer][record.offset : record.offset + record.size]
        if hashlib.sha256(data).hexdigest() != record.sha256:
            yield f"{record.name} in {record.layer} is not what the manifest says"
            continue
        suffix = record.name.removeprefix(f"{clip.clip_id}.")
        if suffix == "json":
            # That of an earlier revision tells what was known then.
            if record.layer not in inherited and (odd := _differs(data, told)):
                yield f"{record.name} in {record.layer} is not the clip's json ({odd})"
            continue
        index = alignment.picture_index(suffix)
        known = index is not None and index < len(clip.frame_times)
        time_s = clip.frame_times[index] if known and index is not None else None
        clip.work.members.append(Member(layer=record.layer, suffix=suffix, data=data, time_s=time_s))
    try:
        alignment.check(clip)
    except ClipError as error:
        yield error.detail


def _differs(data: bytes, told: dict[str, Any]) -> str:
    """What of a json member is not what its row says; of columns that an earlier version lacked the row has nothing."""
    try:
        said = {**{name: value for name, value in told.items() if value in (None, [])}, **json.loads(data)}
    except (ValueError, TypeError):
        return "no JSON object"
    if said == told:
        return ""
    odd = sorted(name for name in said.keys() | told.keys() if said.get(name) != told.get(name))
    return ", ".join(odd[:3]) or "its keys"


def _tar_problems(rows: list[dict[str, Any]], tars: dict[str, bytes], shard: int) -> Iterator[Problem]:
    """A member is in a tar exactly when a row says so, in the rows' order, and nothing else is in it."""
    for layer, data in tars.items():
        promised = [(m["name"], m["offset"], m["size"]) for row in rows for m in row["members"] if m["layer"] == layer]
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                found = [(m.name, m.offset_data, m.size) for m in tar]
        except tarfile.TarError as error:
            yield Problem(what=f"{layer}: not a tar: {error}", shard=shard)
            continue
        if found != promised:
            odd = sorted({name for name, _, _ in set(found) ^ set(promised)})[:3]
            yield Problem(
                what=f"{layer}: the tar's members are not those of the manifest ({', '.join(odd)})", shard=shard
            )
        elif data != _written_anew(data, promised):
            yield Problem(
                what=f"{layer}: bytes of the tar outside its members are not as they were written", shard=shard
            )


def _written_anew(data: bytes, promised: list[tuple[str, int, int]]) -> bytes:
    """The tar of these members as `TarWriter` writes it: headers, padding and end are functions of the members."""
    handle = io.BytesIO()
    tar = TarWriter(handle, "")
    for name, offset, size in promised:
        key, _, suffix = name.partition(".")
        tar.add(key, suffix, data[offset : offset + size])
    tar.close()
    return handle.getvalue()
