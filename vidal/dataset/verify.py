"""`verify`: checks the bytes of a dataset against everything that its manifests promise."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.clip import SCHEMA_VERSION, manifest_schema, schema
from vidal.dataset import alignment, embeddings, manifest
from vidal.dataset.dataset import Dataset, UncommittedError
from vidal.dataset.storage import Storage
from vidal.dataset.tars import KEY_PATTERN, TarWriter
from vidal.errors import ClipError, SourceError, StorageError, one_line
from vidal.record import from_row, to_json
from vidal.work import Member

_DAMAGED = "does not match the hash in the manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One defect of a dataset, with its place."""

    what: str
    shard: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        where = "" if self.shard is None else f"shard {manifest.stem_of(self.shard)}: "
        return where + (f"{self.key}: " if self.key else "") + self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of verifying a whole dataset."""

    dataset: str
    rows: int
    shards: int
    problems: list[Problem]

    @classmethod
    def of(cls, dataset: Dataset) -> Verification:
        """Verify a whole dataset and collect its problems."""
        return cls(
            dataset=dataset.storage.address, rows=dataset.info.candidates, shards=len(dataset.committed()),
            problems=list(verify(dataset)),
        )  # fmt: skip

    @property
    def is_well(self) -> bool:
        return not self.problems

    def lines(self) -> Iterator[str]:
        if self.is_well:
            yield f"{self.dataset}: all {self.rows} rows and their members are intact"
        yield from map(str, self.problems)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.is_well, "shards": self.shards, "problems": [asdict(problem) for problem in self.problems]}


def verify(dataset: Dataset) -> Iterator[Problem]:
    """Yield every problem of a dataset, shard by shard, and of the embeddings of its teachers."""
    info, committed = dataset.info, set(dataset.committed())
    expected = set(range(info.shards))
    for shard in sorted(expected - committed):
        yield Problem(what="not built yet (no manifest)", shard=shard)
    for shard in sorted(committed - expected):
        yield Problem(what="is not in the plan", shard=shard)
    for layer in info.layers if info.tars is None else ():
        stems = {name.removesuffix(".tar") for name in dataset.own_storage.names(layer)}
        for stem in sorted(stems - {manifest.stem_of(shard) for shard in committed}):
            yield Problem(what=f"{layer}/{stem}.tar has no manifest")
    if not expected & committed:
        # The plan, which has columns of the schema, may not be there yet.
        return
    newest = manifest_schema(dataset.extra_schema)
    for shard in sorted(expected & committed):
        yield from _verify_shard(dataset, shard, newest)
    for teacher in embeddings.teachers_of(dataset.own_storage).values():
        yield from _teacher_problems(dataset, teacher)


def _teacher_problems(dataset: Dataset, teacher: Storage) -> Iterator[Problem]:
    """Check the embeddings of one teacher: by the checksums of their pages, and against the kept clips."""
    try:
        info = embeddings.read_info(teacher)
    except SourceError as error:
        yield Problem(what=str(error))
        return
    if info.fingerprint != dataset.info.fingerprint:
        yield Problem(what=f"{teacher.address}: of fingerprint {info.fingerprint}, not {dataset.info.fingerprint}")
    if lacking := embeddings.missing(teacher, info):
        yield Problem(what=f"{teacher.address}: {lacking}; repeat `vidal reinforce`")
    for name in embeddings.files(teacher):
        try:
            table = embeddings.read(teacher, name)
            rows = dataset.table(int(name.removesuffix(".parquet")), ["clip_id", "status"])
        except (SourceError, UncommittedError) as error:
            yield Problem(what=str(error))
            continue
        except ValueError:
            yield Problem(what=f"{teacher.address}/{name}: is not named like a shard")
            continue
        kept = rows.filter(pc.equal(rows["status"], "kept"))["clip_id"]
        strangers = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=kept.combine_chunks())))
        if strangers.num_rows:
            key = strangers["clip_id"][0].as_py()
            yield Problem(what=f"{teacher.address}/{name}: has an embedding of a clip that is not kept", key=key)
        if not embeddings.is_finite(table):
            yield Problem(what=f"{teacher.address}/{name}: some embeddings are not finite")


def _verify_shard(dataset: Dataset, shard: int, newest: pa.Schema) -> Iterator[Problem]:
    try:
        data = dataset.manifest_bytes(shard)
        table, written = manifest.read(data), manifest.read_schema(data)
        fingerprint = manifest.metadata_of(written).get("fingerprint")
    except (pa.ArrowException, OSError, ValueError, UncommittedError) as error:
        yield Problem(what=f"the manifest cannot be read: {one_line(error, 200)}", shard=shard)
        return
    expected = newest
    if dataset.info.schema_version < SCHEMA_VERSION:
        # An earlier version may lack columns, but has no others.
        plain = schema(dataset.extra_schema)
        expected = pa.schema([field for field in plain if field.name in written.names])
    if not written.equals(expected):
        yield Problem(what="its columns do not match the schema", shard=shard)
        return
    if fingerprint not in (dataset.info.fingerprint, *dataset.info.carried):
        yield Problem(what=f"written for fingerprint {fingerprint}, not {dataset.info.fingerprint}", shard=shard)
    if table["clip_id"].to_pylist() != dataset.plan.clip_ids(shard):
        yield Problem(what="its rows are not the candidates of the plan, in plan order", shard=shard)
    rows = table.filter(_needs_a_look(table)).to_pylist()
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


def _needs_a_look(table: pa.Table) -> pa.ChunkedArray:
    """Return whether a row has members to read, or one of the problems that `_row_problems` names without any.

    Most rows of a large crawl have neither, and a row as a Python object costs a hundred times as much as this.
    """
    is_kept = pc.equal(table["status"], "kept")
    is_ended = pc.is_in(table["status"], value_set=pa.array(["rejected", "failed"]))
    is_told = pc.and_(*(pc.fill_null(pc.not_equal(table[name], ""), False) for name in ("stage", "reason")))
    is_plain = pc.and_(
        pc.match_substring_regex(table["clip_id"], f"^(?:{KEY_PATTERN.pattern})$"), _is_empty(table["layers"])
    )
    is_well = pc.or_(pc.and_(is_kept, is_plain), pc.and_(is_ended, is_told))
    return pc.invert(pc.fill_null(pc.and_(is_well, _is_empty(table["members"])), False))


def _is_empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.list_value_length(column), 0)


def _foreign_problems(dataset: Dataset, rows: list[dict[str, Any]], shard: int) -> Iterator[Problem]:
    """Check the members of an indexed dataset, whose tars may contain anything else besides."""
    for row in rows:
        for member in row["members"]:
            try:
                data = dataset.read_member(row, member["name"])
                what = "" if hashlib.sha256(data).hexdigest() == member["sha256"] else _DAMAGED
            except (OSError, StorageError) as error:
                what = f"cannot be read: {error}"
            if what:
                yield Problem(what=f"{member['name']} {what}", shard=shard, key=row["clip_id"])


def _row_problems(
    row: dict[str, Any], tars: dict[str, bytes], extra: pa.Schema, inherited: Collection[str]
) -> Iterator[str]:
    """Yield the problems of one row; those in ``inherited`` layers are an earlier revision's, whatever the outcome."""
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
                yield f"{member['name']} in {member['layer']} {_DAMAGED}"
        return
    if not KEY_PATTERN.fullmatch(row["clip_id"]):
        yield "is not a safe key"
    if sorted({m["layer"] for m in row["members"]}) != sorted(row["layers"]):
        yield "its layers do not match its members"
    clip = from_row(row)
    # Through JSON, as the member went: times become text, and tuples lists.
    expected = json.loads(json.dumps(to_json(clip, extra), default=str))
    for record in (record for record in clip.members if record.layer in tars):
        data = tars[record.layer][record.offset : record.offset + record.size]
        if hashlib.sha256(data).hexdigest() != record.sha256:
            yield f"{record.name} in {record.layer} {_DAMAGED}"
            continue
        suffix = record.name.removeprefix(f"{clip.clip_id}.")
        if suffix == "json":
            # The one of an earlier revision may be out of date.
            if record.layer not in inherited and (difference := _difference(data, expected)):
                yield f"{record.name} in {record.layer} does not match its row ({difference})"
            continue
        index = alignment.image_index(suffix)
        time_s = clip.frame_times[index] if index is not None and index < len(clip.frame_times) else None
        clip.work.members.append(Member(layer=record.layer, suffix=suffix, data=data, time_s=time_s))
    try:
        alignment.check(clip)
    except ClipError as error:
        yield error.detail


def _difference(data: bytes, expected: dict[str, Any]) -> str:
    """Return which keys of a json member differ from its row; ``""`` if none does."""
    try:
        # An earlier version lacks columns, which are empty in the row.
        stored = {**{name: value for name, value in expected.items() if value in (None, [])}, **json.loads(data)}
    except (ValueError, TypeError):
        return "no JSON object"
    if stored == expected:
        return ""
    names = sorted(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name))
    return ", ".join(names[:3]) or "its keys"


def _tar_problems(rows: list[dict[str, Any]], tars: dict[str, bytes], shard: int) -> Iterator[Problem]:
    """Check that each tar contains exactly the members of the rows, in the order of the rows, and nothing else."""
    for layer, data in tars.items():
        expected = [(m["name"], m["offset"], m["size"]) for row in rows for m in row["members"] if m["layer"] == layer]
        try:
            # `r:` refuses a compressed tar, which tarfile would unpack without a word: its offsets lead nowhere.
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                members = [(m.name, m.offset_data, m.size) for m in tar]
        except tarfile.TarError as error:
            yield Problem(what=f"{layer}: not a tar: {error}", shard=shard)
            continue
        if members != expected:
            names = ", ".join(sorted({name for name, _, _ in set(members) ^ set(expected)})[:3])
            yield Problem(what=f"{layer}: the tar's members do not match the manifest ({names})", shard=shard)
            continue
        # Headers, padding and end depend on nothing else, so that what is written again must be the same bytes.
        handle = io.BytesIO()
        again = TarWriter(handle, "")
        for name, offset, size in members:
            key, _, suffix = name.partition(".")
            again.add(key, suffix, data[offset : offset + size])
        again.close()
        if data != handle.getvalue():
            yield Problem(what=f"{layer}: the tar is damaged outside its members", shard=shard)
