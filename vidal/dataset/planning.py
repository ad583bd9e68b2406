"""Planning: from a source's candidates to the shuffled plan of a build, without holding them in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidal.clip import schema
from vidal.dataset.digests import Digests, digests_of, first_of_equal
from vidal.dataset.identified import Identified
from vidal.dataset.plan import PLAN_COLUMNS, rows_per_group
from vidal.rows import Spill, Stream, TableLike

_BUCKET_ROWS = 250_000


def make(candidates: TableLike, *, shard_size: int, seed: int, known: Digests | None = None) -> Stream:
    """Return the plan of a source's candidates: with valid, unique ids, shuffled, and divided into shards.

    Candidates whose ids have one of the ``known`` digests are left out. Of each candidate about a hundred bytes are in
    memory; the rest waits in temporary files.
    """
    identified = Identified(candidates)
    is_new = _not_in(identified, known)
    count = int(np.count_nonzero(is_new))
    # Shuffled, as neighbours in a list are often alike: a shard is then a sample of the whole.
    # NumPy does not promise the same stream in every version, but the plan is stored: a build that was begun resumes.
    order = np.random.default_rng(seed).permutation(count)
    positions = np.empty(count, np.int64)
    positions[order] = np.arange(count)
    return _in_order(_placed(identified, is_new, positions, shard_size), count, rows_per_group(shard_size))


def _not_in(identified: Identified, known: Digests | None) -> npt.NDArray[np.bool_]:
    """Return for each candidate whether the digest of its id is not among ``known``."""
    if known is None:
        return np.ones(identified.row_count, np.bool_)
    digests = [digests_of(table["clip_id"].to_pylist()) for table in identified.tables()]
    return first_of_equal(np.concatenate([known, *digests]))[len(known) :] >= len(known)


def _placed(
    identified: Identified, is_new: npt.NDArray[np.bool_], positions: npt.NDArray[np.int64], shard_size: int
) -> Iterator[pa.Table]:
    """Yield the new candidates in the source's order, with the columns of a plan."""
    wanted, first_row, first_new = schema(), 0, 0
    for table in identified.tables():
        is_new_here = is_new[first_row : first_row + table.num_rows]
        first_row += table.num_rows
        table = table.filter(pa.array(is_new_here))
        position = positions[first_new : first_new + table.num_rows]
        first_new += table.num_rows
        table = table.append_column("position", pa.array(position))
        table = table.append_column("shard", pa.array(position // shard_size))
        columns = {
            name: table.column(name)
            if name in table.column_names
            else pa.nulls(table.num_rows, wanted.field(name).type)
            for name in PLAN_COLUMNS
        }
        extra = {name: table.column(name) for name in table.column_names if name not in columns}
        yield pa.table({**columns, **extra}).replace_schema_metadata(identified.metadata)


def _in_order(tables: Iterator[pa.Table], count: int, group_rows: int) -> Stream:
    """Return rows in the order of their ``position``, by a bucket sort in a temporary file."""
    # A row group is in one bucket, as Parquet's pages, and so the bytes of a plan, depend on how Arrow cuts a column.
    bucket_rows = group_rows * max(1, _BUCKET_ROWS // group_rows)
    parts: list[list[int]] = [[] for _ in range(-(-count // bucket_rows))]
    first = next(tables)
    spill = Spill(first.schema)
    for table in itertools.chain([first], tables):
        table = table.sort_by("position")
        bucket_of = table["position"].to_numpy() // bucket_rows
        for bucket in np.unique(bucket_of).tolist():
            begin, end = np.searchsorted(bucket_of, [bucket, bucket + 1])
            parts[bucket].append(spill.add_part(table.slice(begin, end - begin)))

    def read() -> Iterator[pa.RecordBatch]:
        for numbers in parts:
            bucket = pa.concat_tables([spill.part(number) for number in numbers]).combine_chunks()
            yield from bucket.sort_by("position").combine_chunks().to_batches()

    return Stream(spill.schema, count, read)
