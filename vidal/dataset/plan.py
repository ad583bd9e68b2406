"""The plan: every candidate, frozen in a seeded order and cut into shards of a fixed size.

A shard is a slice of the plan, so it is the same whoever makes it and whenever.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidal.clip import crawl_columns, schema
from vidal.dataset.manifest import table_to_parquet
from vidal.dataset.storage import Storage
from vidal.dataset.tars import KEY_PATTERN

NAME = "plan.parquet"
SOURCE_PLACE = ("_source_shard", "_source_row")
"""Where a candidate's row is in the data set that it comes from; not in the manifest."""

LINE, UNUSABLE = "_line", "_unusable"
"""Columns of candidates that a source may bring: in which line each is, and why one cannot be used."""

DECIDED = (
    "status", "stage", "reason", "detail", "decided_value", "decided_limit", "is_transient", "duplicate_of",
    "duplicate_kind", "duplicate_distance", "cluster",
)  # fmt: skip
"""What a global decision may set."""
PLAN_COLUMNS = ("clip_id", "url", "shard", "position", *crawl_columns(), *DECIDED)
_PLACES = ("clip_id", "url", "shard", "position")
_ROW_GROUP_ROWS = 10_000
_NOTES = b"vidal.notes"
_CUTS = b"vidal.cuts"


def with_notes(table: pa.Table, notes: Sequence[str]) -> pa.Table:
    """The table with one line for each thing that its source could not take as it stands."""
    said = [*notes_of(table), *notes]
    return table.replace_schema_metadata({_NOTES: json.dumps(said, ensure_ascii=False)} if said else None)


def notes_of(table: pa.Table) -> list[str]:
    """What `with_notes` has put there."""
    notes: list[str] = json.loads((table.schema.metadata or {}).get(_NOTES, b"[]"))
    return notes


def make(
    candidates: pa.Table, *, shard_size: int, seed: int, known: Collection[str] = ()
) -> pa.Table:  # fmt: skip
    """The plan of a source's candidates: ids checked and made, order shuffled, shards cut.

    Candidates whose ids are among the ``known`` ones are left out.
    """
    table = _with_ids(candidates)
    if known:
        is_known = pc.is_in(table.column("clip_id"), value_set=pa.array(sorted(known)))
        table = table.filter(pc.invert(is_known))
    order = np.random.default_rng(seed).permutation(table.num_rows)
    table = table.take(pa.array(order))
    position = np.arange(table.num_rows)
    table = table.append_column("position", pa.array(position))
    table = table.append_column("shard", pa.array(position // shard_size))
    return with_notes(_in_order(table), notes_of(candidates))


def _in_order(table: pa.Table) -> pa.Table:
    """Clip's own columns first, all of them there, then the source's."""
    wanted = schema()
    columns = {
        name: table.column(name) if name in table.column_names else pa.nulls(table.num_rows, wanted.field(name).type)
        for name in PLAN_COLUMNS
    }
    extra = {name: table.column(name) for name in table.column_names if name not in columns}
    return pa.table({**columns, **extra})


def _with_ids(candidates: pa.Table) -> pa.Table:
    """Give every candidate a safe, unique id; one that brings a bad or a used one is a row that says so."""
    urls = candidates.column("url").to_pylist()
    given = candidates.column("clip_id").to_pylist() if "clip_id" in candidates.column_names else [None] * len(urls)
    columns = candidates.column_names
    lines = candidates.column(LINE).to_pylist() if LINE in columns else None
    unusable = candidates.column(UNUSABLE).to_pylist() if UNUSABLE in columns else [None] * len(urls)

    def place(row: int) -> str:
        return f"row {row + 1} of the source" if lines is None else f"line {lines[row]}"

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
        clip_id = wanted if wanted is not None and row not in outcome else _hash(f"{url}")
        if clip_id in seen:
            outcome.setdefault(row, ("rejected", "repeated", f"{place(seen[clip_id])} has this id"))
            clip_id = _hash(f"{row}:{clip_id}:{url}")
        elif row in outcome:
            clip_id = _hash(f"{row}:{clip_id}:{url}")
        seen[clip_id] = row
        ids.append(clip_id)
    rest = candidates.drop_columns([name for name in (LINE, UNUSABLE) if name in columns])
    return _set_outcomes(rest, ids, outcome)


def _set_outcomes(table: pa.Table, ids: list[str], outcome: dict[int, tuple[str, str, str]]) -> pa.Table:
    if "clip_id" in table.column_names:
        table = table.drop_columns(["clip_id"])
    table = table.append_column("clip_id", pa.array(ids, pa.string()))
    for index, name in enumerate(("status", "reason", "detail")):
        values: list[str | None] = [None] * len(ids)
        for row, parts in outcome.items():
            values[row] = parts[index]
        table = table.append_column(name, pa.array(values, pa.string()))
    stages = ["plan" if row in outcome else None for row in range(len(ids))] if outcome else [None] * len(ids)
    return table.append_column("stage", pa.array(stages, pa.string()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def decide(plan: pa.Table, decided: pa.Table) -> pa.Table:
    """The plan with the columns of a global decision set for the clips that it names."""
    if decided.num_rows == 0:
        return plan
    place = pc.index_in(plan.column("clip_id"), value_set=decided.column("clip_id").combine_chunks())
    for name in (n for n in decided.column_names if n != "clip_id"):
        chosen = decided.column(name).cast(plan.schema.field(name).type).combine_chunks().take(place.combine_chunks())
        column = pc.if_else(pc.is_valid(chosen), chosen, plan.column(name).combine_chunks())
        plan = plan.set_column(plan.column_names.index(name), name, column)
    return plan


def undecided(rows: pa.Table) -> pa.Table:
    """The plan's part of manifest rows: what was a candidate, not what became of it."""
    wanted = schema()
    return pa.table({
        name: pa.nulls(rows.num_rows, wanted.field(name).type) if name in DECIDED else rows.column(name)
        for name in PLAN_COLUMNS
    })  # fmt: skip


def write_uneven(storage: Storage, shards: Sequence[pa.Table]) -> None:
    """Freeze a plan whose shards differ in size: a row group is a shard."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, shards[0].schema.with_metadata({"vidal.shard_size": "0"}), compression="zstd") as file:
        for shard in shards:
            file.write_table(shard.replace_schema_metadata(None).cast(file.schema), row_group_size=shard.num_rows)
    storage.write(NAME, sink.getvalue())


def to_add_to(plan: Plan) -> pa.Table:
    """The plan of a run that goes on from a dataset's rows: its places alone, as everything else is in the rows."""
    table = plan.table()
    for index, field in enumerate(table.schema):
        if field.name not in _PLACES:
            table = table.set_column(index, field, pa.nulls(table.num_rows, field.type))
    return table


def write(storage: Storage, plan: pa.Table, shard_size: int) -> None:
    """Freeze the plan; row groups end where shards end, so that a shard is read without the rest."""
    rows = _rows_per_group(shard_size)
    metadata = {b"vidal.shard_size": str(shard_size), **(with_notes(plan, []).schema.metadata or {})}
    plan = plan.replace_schema_metadata(metadata)
    storage.write(NAME, table_to_parquet(plan, row_group_size=rows))


def write_like(storage: Storage, table: pa.Table, other: Plan) -> None:
    """Freeze a plan of the same candidates in the same shards as another plan's."""
    write_cuts(storage, table, other.cuts)


def write_cuts(storage: Storage, plan: pa.Table, cuts: Sequence[Cut]) -> None:
    """Freeze a plan that may have been cut more than once: of a dataset that has grown."""
    if len(cuts) == 1:
        write(storage, plan, cuts[0].shard_size)
        return
    told = [[cut.row_count, cut.shard_size] for cut in cuts]
    plan = plan.replace_schema_metadata({b"vidal.shard_size": str(cuts[0].shard_size), _CUTS: json.dumps(told)})
    sink, first = io.BytesIO(), 0
    with pq.ParquetWriter(sink, plan.schema, compression="zstd", write_page_checksum=True) as file:
        for cut in cuts:
            part = plan.slice(first, cut.row_count)
            file.write_table(part, row_group_size=_rows_per_group(cut.shard_size))
            first += cut.row_count
    storage.write(NAME, sink.getvalue())


def _rows_per_group(shard_size: int) -> int:
    return shard_size * max(1, _ROW_GROUP_ROWS // shard_size)


@dataclass(frozen=True, slots=True)
class Cut:
    """Candidates that were cut into shards together: all of a build's, or those that a dataset grew by."""

    row_count: int
    shard_size: int

    @property
    def shard_count(self) -> int:
        return -(-self.row_count // self.shard_size)

    @property
    def group_count(self) -> int:
        """Row groups of the file; none holds candidates of two cuts."""
        return -(-self.row_count // _rows_per_group(self.shard_size))


def own_columns(plan: pa.Schema) -> pa.Schema:
    """The columns of a plan that `Clip` has no field for."""
    return pa.schema([f for f in plan if f.name not in (*PLAN_COLUMNS, *SOURCE_PLACE)])


class Plan:
    """A frozen plan, read a row group at a time."""

    def __init__(self, storage: Storage) -> None:
        self._file = pq.ParquetFile(storage.fs.open(storage.path(NAME)))
        metadata = self._file.schema_arrow.metadata or {}
        self.shard_size = int(metadata[b"vidal.shard_size"])
        """0 where shards differ in size, and each is a row group."""
        self.notes: list[str] = json.loads(metadata.get(_NOTES, b"[]"))
        """What the source could not take as it stands, one line each."""
        self.columns = list(self._file.schema_arrow.names)
        self.candidate_count = int(self._file.metadata.num_rows)
        groups = int(self._file.metadata.num_row_groups)
        told = json.loads(metadata.get(_CUTS, b"null")) or [[self.candidate_count, self.shard_size]]
        self.cuts = [Cut(*cut) for cut in told] if self.shard_size else []
        """What was cut together, in order; none where shards differ in size."""
        self.shard_count = sum(cut.shard_count for cut in self.cuts) if self.shard_size else groups
        self._group: tuple[int, pa.Table] | None = None

    def extra_schema(self) -> pa.Schema:
        """The columns that `Clip` has no field for: the source's own, and what the last global decision declares."""
        return own_columns(self._file.schema_arrow)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The candidates of a shard, in plan order."""
        if not self.shard_size:
            whole: list[dict[str, Any]] = self._read_group(shard).to_pylist()
            return whole
        cut, number, group = self._place(shard)
        first, per_group = number * cut.shard_size, _rows_per_group(cut.shard_size)
        rows: list[dict[str, Any]] = (
            self._read_group(group + first // per_group).slice(first % per_group, cut.shard_size).to_pylist()
        )
        return rows

    def size_of(self, shard: int) -> int:
        """How many candidates a shard has."""
        if not self.shard_size:
            return int(self._file.metadata.row_group(shard).num_rows)
        cut, number, _ = self._place(shard)
        return min(cut.shard_size, cut.row_count - number * cut.shard_size)

    def _place(self, shard: int) -> tuple[Cut, int, int]:
        """The cut that a shard is of, its number within it, and the cut's first row group."""
        group = 0
        for cut in self.cuts:
            if shard < cut.shard_count:
                return cut, shard, group
            shard, group = shard - cut.shard_count, group + cut.group_count
        raise IndexError("no such shard")

    def clip_ids(self, shard: int) -> list[str]:
        return [row["clip_id"] for row in self.rows(shard)]

    def _read_group(self, group: int) -> pa.Table:
        """The row group, kept until another is wanted: shards that stand together are mostly made together."""
        if self._group is None or self._group[0] != group:
            self._group = (group, self._file.read_row_group(group))
        return self._group[1]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole plan, or some columns of it."""
        return self._file.read(columns=columns if columns is None else list(columns))
