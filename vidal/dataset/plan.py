"""The plan: every candidate in a seeded order, frozen and divided into shards of a fixed size.

A shard is a slice of the plan, so it has the same candidates no matter which worker builds it, and when.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidal.clip import crawl_columns, schema
from vidal.dataset.storage import Storage
from vidal.dataset.tars import KEY_PATTERN

NAME = "plan.parquet"
DISCOVERED = "discovered"
"""The folder of a dataset in which a source keeps what it was answered: a JSON object a question, with its ``term``."""
SOURCE_PLACE = ("_source_dataset", "_source_shard", "_source_row")
"""Of a candidate that comes from a dataset: which one of several, its shard and row there; not in the manifest."""

LINE, UNUSABLE = "_line", "_unusable"
"""Optional columns of a source's candidates: the line number in a list, and why a candidate is unusable."""

DECIDED = (
    "status", "stage", "reason", "detail", "decided_value", "decided_limit", "is_transient", "duplicate_of",
    "duplicate_kind", "duplicate_distance", "cluster",
)  # fmt: skip
"""Columns that every global decision may set."""
PLAN_COLUMNS = ("clip_id", "url", "shard", "position", *crawl_columns(), *DECIDED)
_PLACES = ("clip_id", "url", "shard", "position")
_ROW_GROUP_ROWS = 10_000
_NOTES = b"vidal.notes"
_CUTS = b"vidal.cuts"


def with_notes(table: pa.Table, notes: Sequence[str]) -> pa.Table:
    """Return the table with further notes: lines about what its source skipped or could not read."""
    lines = [*notes_of(table), *notes]
    return table.replace_schema_metadata({_NOTES: json.dumps(lines, ensure_ascii=False)} if lines else None)


def notes_of(table: pa.Table) -> list[str]:
    """Return the notes that `with_notes` stored in the table."""
    notes: list[str] = json.loads((table.schema.metadata or {}).get(_NOTES, b"[]"))
    return notes


def make(candidates: pa.Table, *, shard_size: int, seed: int, known: Collection[str] = ()) -> pa.Table:
    """Return the plan of a source's candidates: with valid, unique ids, shuffled, and divided into shards.

    Candidates with ``known`` ids are left out.
    """
    table = _with_ids(candidates)
    if known:
        is_known = pc.is_in(table.column("clip_id"), value_set=pa.array(sorted(known)))
        table = table.filter(pc.invert(is_known))
    # Shuffled, as neighbours in a list are often alike: a shard is then a sample of the whole.
    # NumPy does not promise the same stream in every version, but the plan is stored: a build that was begun resumes.
    order = np.random.default_rng(seed).permutation(table.num_rows)
    table = table.take(pa.array(order))
    position = np.arange(table.num_rows)
    table = table.append_column("position", pa.array(position))
    table = table.append_column("shard", pa.array(position // shard_size))
    wanted = schema()
    columns = {
        name: table.column(name) if name in table.column_names else pa.nulls(table.num_rows, wanted.field(name).type)
        for name in PLAN_COLUMNS
    }
    extra = {name: table.column(name) for name in table.column_names if name not in columns}
    return with_notes(pa.table({**columns, **extra}), notes_of(candidates))


def id_of(url: str) -> str:
    """Return the id of a candidate that its source gives none: the hash of its address."""
    # A url may hold a lone surrogate, from a list that was read as it is.
    # 64 bits: among a hundred million candidates, two share an id with a probability of 0.03 %.
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _with_ids(candidates: pa.Table) -> pa.Table:
    """Give every candidate a safe, unique id; candidates with an invalid or a repeated one get their outcome here."""
    optional = ("clip_id", LINE, UNUSABLE)
    present = [name for name in optional if name in candidates.column_names]
    urls = candidates.column("url").to_pylist()
    given, lines, unusable = (
        candidates.column(name).to_pylist() if name in present else [None] * len(urls) for name in optional
    )

    def place(row: int) -> str:
        return f"row {row + 1} of the source" if lines[row] is None else f"line {lines[row]}"

    seen: dict[str, int] = {}
    ids: list[str] = []
    outcome: dict[int, tuple[str, str, str]] = {}
    for row, (url, wanted, why) in enumerate(zip(urls, given, unusable, strict=True)):
        if why is not None:
            outcome[row] = ("failed", "bad_row", f"{place(row)}: {why}")
        elif not url:
            outcome[row] = ("failed", "no_url", f"{place(row)} names no url")
        elif wanted is not None and not KEY_PATTERN.fullmatch(wanted):
            outcome[row] = ("failed", "bad_clip_id", f"{place(row)}: {wanted[:100]!r} is not {KEY_PATTERN.pattern}")
        clip_id = wanted if wanted is not None and row not in outcome else id_of(f"{url}")
        if clip_id in seen:
            outcome.setdefault(row, ("rejected", "repeated", f"{place(seen[clip_id])} has this id"))
        # A row of its own for every candidate, so that nothing of a list is lost without a word.
        if row in outcome:
            clip_id = id_of(f"{row}:{clip_id}:{url}")
        seen[clip_id] = row
        ids.append(clip_id)
    table = candidates.drop_columns(present)
    table = table.append_column("clip_id", pa.array(ids, pa.string()))
    for index, name in enumerate(("status", "reason", "detail", "stage")):
        values = [(*outcome[row], "plan")[index] if row in outcome else None for row in range(len(ids))]
        table = table.append_column(name, pa.array(values, pa.string()))
    return table


def as_answers(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the content of a file of the folder `DISCOVERED`, of a record a question."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def decide(plan: pa.Table, decided: pa.Table) -> pa.Table:
    """Return the plan with the columns of a global decision set for the clips in ``decided``."""
    if decided.num_rows == 0:
        return plan
    place = pc.index_in(plan.column("clip_id"), value_set=decided.column("clip_id").combine_chunks())
    for name in (n for n in decided.column_names if n != "clip_id"):
        chosen = decided.column(name).cast(plan.schema.field(name).type).combine_chunks().take(place.combine_chunks())
        column = pc.if_else(pc.is_valid(chosen), chosen, plan.column(name).combine_chunks())
        plan = plan.set_column(plan.column_names.index(name), name, column)
    return plan


def undecided(rows: pa.Table) -> pa.Table:
    """Return the plan columns of manifest rows, with all outcomes null."""
    wanted = schema()
    return pa.table({
        name: pa.nulls(rows.num_rows, wanted.field(name).type) if name in DECIDED else rows.column(name)
        for name in PLAN_COLUMNS
    })  # fmt: skip


def write_uneven(storage: Storage, shards: Sequence[pa.Table]) -> None:
    """Write a plan whose shards differ in size: each shard is a row group."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, shards[0].schema.with_metadata({"vidal.shard_size": "0"}), compression="zstd") as file:
        for shard in shards:
            file.write_table(shard.replace_schema_metadata(None).cast(file.schema), row_group_size=shard.num_rows)
    storage.write(NAME, sink.getvalue())


def to_add_to(plan: Plan) -> pa.Table:
    """Return the plan of a run over a dataset's rows: only ids, shards and positions, as the rows have the rest."""
    table = plan.table()
    for index, field in enumerate(table.schema):
        if field.name not in _PLACES:
            table = table.set_column(index, field, pa.nulls(table.num_rows, field.type))
    return table


def write(storage: Storage, plan: pa.Table, shard_size: int) -> None:
    """Write the plan of a build; no shard spans two row groups, so that it can be read without the rest."""
    write_cuts(storage, plan, [Cut(plan.num_rows, shard_size)])


def write_cuts(storage: Storage, plan: pa.Table, cuts: Sequence[Cut]) -> None:
    """Write a plan in the given cuts: one for a build, and one for each time that the dataset has grown."""
    metadata = {b"vidal.shard_size": str(cuts[0].shard_size)}
    metadata |= with_notes(plan, []).schema.metadata or {}
    if len(cuts) > 1:
        metadata[_CUTS] = json.dumps([[cut.row_count, cut.shard_size] for cut in cuts])
    plan = plan.replace_schema_metadata(metadata)
    sink, first = io.BytesIO(), 0
    with pq.ParquetWriter(sink, plan.schema, compression="zstd", write_page_checksum=True) as file:
        for cut in cuts:
            part = plan.slice(first, cut.row_count)
            file.write_table(part, row_group_size=_rows_per_group(cut.shard_size))
            first += cut.row_count
    storage.write(NAME, sink.getvalue())


def _rows_per_group(shard_size: int) -> int:
    # Whole shards, about ten thousand rows of them: a footer has an entry for each column of each group.
    return shard_size * max(1, _ROW_GROUP_ROWS // shard_size)


@dataclass(frozen=True, slots=True)
class Cut:
    """Candidates that were divided into shards together: those of a build, or those that a dataset grew by."""

    row_count: int
    shard_size: int

    @property
    def shard_count(self) -> int:
        return -(-self.row_count // self.shard_size)

    @property
    def group_count(self) -> int:
        """Number of row groups in the file; none spans two cuts."""
        return -(-self.row_count // _rows_per_group(self.shard_size))


def own_columns(plan: pa.Schema) -> pa.Schema:
    """Return the columns of a plan without a field in `Clip`."""
    return pa.schema([f for f in plan if f.name not in (*PLAN_COLUMNS, *SOURCE_PLACE)])


class Plan:
    """A frozen plan, read one row group at a time. Each read raises `StorageError` where the storage fails."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Opened, not read: a worker needs the row group of its shard, and a plan may have millions of rows.
        with storage.errors(NAME):
            self._file = pq.ParquetFile(storage.fs.open(storage.path(NAME)))
        metadata = self._file.schema_arrow.metadata or {}
        self.shard_size = int(metadata[b"vidal.shard_size"])
        """Candidates per shard; 0 if shards differ in size, each of them a row group."""
        self.notes: list[str] = json.loads(metadata.get(_NOTES, b"[]"))
        """Lines about what the source skipped or could not read."""
        self.columns = list(self._file.schema_arrow.names)
        self.candidate_count = int(self._file.metadata.num_rows)
        groups = int(self._file.metadata.num_row_groups)
        sizes = json.loads(metadata.get(_CUTS, b"null")) or [[self.candidate_count, self.shard_size]]
        self.cuts = [Cut(*size) for size in sizes] if self.shard_size else []
        """The cuts of the plan in order; empty if shards differ in size."""
        self.shard_count = sum(cut.shard_count for cut in self.cuts) if self.shard_size else groups
        self._group: tuple[int, pa.Table] | None = None

    def extra_schema(self) -> pa.Schema:
        """Return the columns without a field in `Clip`: the source's own, and those of the last global decision."""
        return own_columns(self._file.schema_arrow)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """Return the candidates of a shard, in plan order."""
        group, begin, count = shard, 0, None
        if self.shard_size:
            cut, number, group = self._place(shard)
            first, per_group = number * cut.shard_size, _rows_per_group(cut.shard_size)
            group, begin, count = group + first // per_group, first % per_group, cut.shard_size
        # Kept until another is read: adjacent shards are mostly built one after the other.
        # One group alone: a worker's memory must not grow with the plan.
        if self._group is None or self._group[0] != group:
            with self._storage.errors(NAME):
                self._group = (group, self._file.read_row_group(group))
        rows: list[dict[str, Any]] = self._group[1].slice(begin, count).to_pylist()
        return rows

    def size_of(self, shard: int) -> int:
        """Return the number of candidates in a shard."""
        if not self.shard_size:
            return int(self._file.metadata.row_group(shard).num_rows)
        cut, number, _ = self._place(shard)
        return min(cut.shard_size, cut.row_count - number * cut.shard_size)

    def _place(self, shard: int) -> tuple[Cut, int, int]:
        """Return the cut that a shard belongs to, its number within the cut, and the cut's first row group."""
        group = 0
        for cut in self.cuts:
            if shard < cut.shard_count:
                return cut, shard, group
            shard, group = shard - cut.shard_count, group + cut.group_count
        raise IndexError("no such shard")

    def clip_ids(self, shard: int) -> list[str]:
        return [row["clip_id"] for row in self.rows(shard)]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the whole plan, or some of its columns."""
        with self._storage.errors(NAME):
            return self._file.read(columns=columns if columns is None else list(columns))
