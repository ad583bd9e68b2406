"""The plan: every candidate in a seeded order, frozen and divided into shards of a fixed size.

A shard is a slice of the plan, so it has the same candidates no matter which worker builds it, and when.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidal.clip import crawl_columns, schema
from vidal.dataset.storage import Storage
from vidal.errors import RecipeError
from vidal.rows import Stream, TableLike, in_groups

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


def with_notes(schema: pa.Schema, notes: Sequence[str]) -> pa.Schema:
    """Return a schema with further notes: lines about what the source skipped or could not read; no other metadata."""
    lines = [*notes_of(schema), *notes]
    return schema.with_metadata({_NOTES: json.dumps(lines, ensure_ascii=False)} if lines else None)


def notes_of(schema: pa.Schema) -> list[str]:
    """Return the notes that `with_notes` stored."""
    notes: list[str] = json.loads((schema.metadata or {}).get(_NOTES, b"[]"))
    return notes


def id_of(url: str) -> str:
    """Return the id of a candidate that its source gives none: the hash of its address."""
    # A url may hold a lone surrogate, from a list that was read as it is.
    # 64 bits: among a hundred million candidates, two share an id with a probability of 0.03 %.
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def as_answers(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the content of a file of the folder `DISCOVERED`, of a record a question."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def decide(plan: TableLike, decided: TableLike) -> TableLike:
    """Return the plan with the columns of a global decision set for the clips in ``decided``.

    Clips that are in memory may come in any order; what is read part by part is in plan order.
    """
    if decided.num_rows == 0:
        return plan
    if isinstance(decided, pa.Table):
        ids = pa.chunked_array([batch["clip_id"] for batch in plan.to_batches()], pa.string())
        decided = decided.take(pc.index_in(ids, value_set=decided.column("clip_id").combine_chunks()).drop_null())
    return Stream(plan.schema, plan.num_rows, functools.partial(_merged, plan, decided))


def _merged(plan: TableLike, decided: TableLike) -> Iterator[pa.RecordBatch]:
    """Yield the plan with the columns of the decided clips, both in plan order."""
    source, waiting = iter(decided.to_batches()), decided.schema.empty_table()
    for batch in plan.to_batches():
        # The next decided clips: at most as many as there are rows, if there are decided ones for all of them.
        while waiting.num_rows < batch.num_rows and (more := next(source, None)) is not None:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([more])])
        here = waiting.slice(0, batch.num_rows)
        place = pc.index_in(batch["clip_id"], value_set=here["clip_id"].combine_chunks())
        waiting = waiting.slice(len(place) - place.null_count)
        for name in (n for n in decided.schema.names if n != "clip_id"):
            chosen = here[name].cast(batch.schema.field(name).type).combine_chunks().take(place)
            column = pc.if_else(pc.is_valid(chosen), chosen, batch[name])
            batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), column)
        yield batch
    if waiting.num_rows or next(source, None) is not None:
        raise RecipeError("a decision's clips are not in plan order")


def plan_columns(rows: pa.Table) -> dict[str, Any]:
    """Return the columns of a plan by name; those that the rows lack are null."""
    wanted, known = schema(), rows.column_names
    return {
        name: rows.column(name) if name in known else pa.nulls(rows.num_rows, wanted.field(name).type)
        for name in PLAN_COLUMNS
    }


def undecided(rows: pa.Table) -> pa.Table:
    """Return the plan columns of manifest rows, with all outcomes null."""
    return pa.table(plan_columns(rows.drop_columns(DECIDED)))


def write_uneven(storage: Storage, shards: Sequence[pa.Table]) -> None:
    """Write a plan whose shards differ in size: each shard is a row group."""
    sink = io.BytesIO()
    # A size of 0 says that the row groups are the shards.
    with pq.ParquetWriter(sink, shards[0].schema.with_metadata({"vidal.shard_size": "0"}), compression="zstd") as file:
        for shard in shards:
            file.write_table(shard.replace_schema_metadata(None).cast(file.schema), row_group_size=shard.num_rows)
    storage.write(NAME, sink.getvalue())


def to_add_to(plan: Plan) -> Stream:
    """Return the plan of a run over a dataset's rows: only ids, shards and positions, as the rows have the rest."""

    def read() -> Iterator[pa.RecordBatch]:
        for batch in plan.parts(_PLACES).to_batches():
            columns = [
                batch[field.name] if field.name in _PLACES else pa.nulls(batch.num_rows, field.type)
                for field in plan.schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=plan.schema)

    return Stream(plan.schema, plan.candidate_count, read)


def write(storage: Storage, plan: TableLike, shard_size: int) -> None:
    """Write the plan of a build; no shard spans two row groups, so that it can be read without the rest."""
    write_cuts(storage, plan, [Cut(plan.num_rows, shard_size)])


def write_cuts(storage: Storage, plan: TableLike, cuts: Sequence[Cut]) -> None:
    """Write a plan in the given cuts: one for a build, and one for each time that the dataset has grown."""
    metadata = {b"vidal.shard_size": str(cuts[0].shard_size)}
    metadata |= with_notes(plan.schema, []).metadata or {}
    if len(cuts) > 1:
        metadata[_CUTS] = json.dumps([[cut.row_count, cut.shard_size] for cut in cuts])
    schema = plan.schema.with_metadata(metadata)
    sizes = (size for cut in cuts for size in cut.group_sizes())
    with (
        storage.writer(NAME) as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as file,
    ):
        for group in in_groups(plan.to_batches(), sizes):
            file.write_table(group.replace_schema_metadata(metadata), row_group_size=group.num_rows)


def rows_per_group(shard_size: int) -> int:
    """Return the number of rows of a Parquet row group of a plan."""
    # Whole shards, about ten thousand rows of them: a footer has an entry for each column of each group.
    return shard_size * max(1, _ROW_GROUP_ROWS // shard_size)


@dataclass(frozen=True, slots=True)
class Cut:
    """Candidates that were divided into shards together: those of a build, or those that a dataset grew by."""

    row_count: int
    shard_size: int

    @property
    def shard_count(self) -> int:
        """The number of shards, of which the last may be smaller."""
        return -(-self.row_count // self.shard_size)

    def group_sizes(self) -> Iterator[int]:
        """Yield the number of rows of each row group."""
        size = rows_per_group(self.shard_size)
        return (min(size, self.row_count - first) for first in range(0, self.row_count, size))


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
        self.notes = notes_of(self._file.schema_arrow)
        """Lines about what the source skipped or could not read."""
        self.schema: pa.Schema = self._file.schema_arrow
        self.candidate_count = int(self._file.metadata.num_rows)
        groups = int(self._file.metadata.num_row_groups)
        sizes = json.loads(metadata.get(_CUTS, b"null")) or [[self.candidate_count, self.shard_size]]
        self.cuts = [Cut(*size) for size in sizes] if self.shard_size else []
        """The cuts of the plan in order; empty if shards differ in size."""
        self.shard_count = sum(cut.shard_count for cut in self.cuts) if self.shard_size else groups
        self._group: tuple[int, pa.Table] | None = None

    def extra_schema(self) -> pa.Schema:
        """Return the columns without a field in `Clip`: the source's own, and those of the last global decision."""
        return own_columns(self.schema)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """Return the candidates of a shard, in plan order."""
        return list(self._of_shard(shard).to_pylist())

    def clip_ids(self, shard: int) -> list[str]:
        """Return the ids of the candidates of a shard, in plan order."""
        return list(self._of_shard(shard)["clip_id"].to_pylist())

    def _of_shard(self, shard: int) -> pa.Table:
        group, begin, count = shard, 0, None
        if self.shard_size:
            cut, number, group = self._place(shard)
            first, per_group = number * cut.shard_size, rows_per_group(cut.shard_size)
            group, begin, count = group + first // per_group, first % per_group, cut.shard_size
        # Kept until another is read: adjacent shards are mostly built one after the other.
        # One group alone: a worker's memory must not grow with the plan.
        if self._group is None or self._group[0] != group:
            with self._storage.errors(NAME):
                self._group = (group, self._file.read_row_group(group))
        return self._group[1].slice(begin, count)

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
            # No row group spans two cuts.
            group += -(-cut.row_count // rows_per_group(cut.shard_size))
            shard -= cut.shard_count
        raise IndexError("no such shard")

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the whole plan, or some of its columns."""
        with self._storage.errors(NAME):
            return self._file.read(columns=columns if columns is None else list(columns))

    def parts(self, columns: Sequence[str]) -> TableLike:
        """Return the same, to be read one row group at a time."""

        def read() -> Iterator[pa.RecordBatch]:
            for group in range(self._file.metadata.num_row_groups):
                with self._storage.errors(NAME):
                    table = self._file.read_row_group(group, list(columns))
                # In the given order, which Parquet's reader does not keep.
                yield from table.select(list(columns)).combine_chunks().to_batches()

        schema = pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)
        return Stream(schema, self.candidate_count, read)
