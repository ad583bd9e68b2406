"""Planning: from a source's candidates to the shuffled plan of a build, without holding them in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset.digests import Digests, digests_of, first_of_equal
from vidal.dataset.plan import LINE, UNUSABLE, id_of, plan_columns, rows_per_group, with_notes
from vidal.dataset.tars import KEY_PATTERN
from vidal.rows import Spill, Stream, TableLike

_BUCKET_ROWS = 250_000
_OPTIONAL = ("clip_id", LINE, UNUSABLE)
Outcome = tuple[str, str, str]
"""Status, reason and detail."""


def make(candidates: TableLike, *, shard_size: int, seed: int, known: Digests | None = None) -> Stream:
    """Return the plan of a source's candidates: with valid, unique ids, shuffled, and divided into shards.

    Candidates whose ids have one of the ``known`` digests are left out. Of each candidate about a hundred bytes are in
    memory; the rest waits in temporary files.
    """
    identified = Identified(candidates)
    is_new = np.ones(identified.row_count, np.bool_)
    if known is not None:
        digests = [digests_of(table["clip_id"].to_pylist()) for table in identified.tables()]
        is_new = first_of_equal(np.concatenate([known, *digests]))[len(known) :] >= len(known)
    count = int(np.count_nonzero(is_new))
    # Shuffled, as neighbours in a list are often alike: a shard is then a sample of the whole.
    # NumPy does not promise the same stream in every version, but the plan is stored: a build that was begun resumes.
    order = np.random.default_rng(seed).permutation(count)
    positions = np.empty(count, np.int64)
    positions[order] = np.arange(count)
    return _in_order(_placed(identified, is_new, positions, shard_size), count, rows_per_group(shard_size))


def _placed(
    identified: Identified, is_new: npt.NDArray[np.bool_], positions: npt.NDArray[np.int64], shard_size: int
) -> Iterator[pa.Table]:
    """Yield the new candidates in the source's order, with the columns of a plan."""
    first_row, first_new = 0, 0
    for table in identified.tables():
        is_new_here = is_new[first_row : first_row + table.num_rows]
        first_row += table.num_rows
        table = table.filter(pa.array(is_new_here))
        position = positions[first_new : first_new + table.num_rows]
        first_new += table.num_rows
        table = table.append_column("position", pa.array(position))
        table = table.append_column("shard", pa.array(position // shard_size))
        columns = plan_columns(table)
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


class Identified:
    """A source's candidates, each with a safe, unique id.

    Those of invalid or repeated ids get their outcome here, and an id of their own. The candidates are read once to
    find the ids that repeat, and again by each call of `tables`.
    """

    def __init__(self, candidates: TableLike) -> None:
        self._candidates = candidates
        self.metadata = with_notes(candidates.schema, []).metadata
        """The notes of the source, as metadata of a schema."""
        digests, lines = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        for part in self._parts():
            digests.append(digests_of(part.own_id(n) if n in part.outcomes else id_ for n, id_ in enumerate(part.ids)))
            if part.lines is not None:
                lines.append(part.lines)
        self._firsts = first_of_equal(np.concatenate(digests))
        self._lines = np.concatenate(lines)
        self.row_count = len(self._firsts)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the candidates in the source's order, with the columns of an id and an outcome."""
        for part in self._parts():
            firsts = self._firsts[part.first_row : part.first_row + len(part.ids)]
            for number in np.flatnonzero(firsts != part.first_row + np.arange(len(firsts))).tolist():
                first = _place(firsts[number], self._lines if len(self._lines) else None, firsts[number])
                part.outcomes.setdefault(number, ("rejected", "repeated", f"{first} has this id"))
            yield part.table()

    def _parts(self) -> Iterator[_Part]:
        first_row = 0
        for batch in self._candidates.to_batches():
            yield _Part(batch, first_row)
            first_row += batch.num_rows


class _Part:
    """A batch of candidates with the ids that they ask for."""

    def __init__(self, batch: pa.RecordBatch, first_row: int) -> None:
        self.batch, self.first_row = batch, first_row
        names = batch.schema.names
        self.urls: list[str | None] = batch["url"].to_pylist()
        given, unusable = (
            batch[name].to_pylist() if name in names else [None] * len(self.urls) for name in ("clip_id", UNUSABLE)
        )
        self.lines: npt.NDArray[np.int64] | None = batch[LINE].to_numpy() if LINE in names else None
        self.outcomes: dict[int, Outcome] = {}
        self.ids: list[str] = []
        for number, (url, wanted, why) in enumerate(zip(self.urls, given, unusable, strict=True)):
            if why is None and url and (wanted is None or KEY_PATTERN.fullmatch(wanted)):
                self.ids.append(id_of(url) if wanted is None else wanted)
                continue
            place = _place(first_row + number, self.lines, number)
            if why is not None:
                self.outcomes[number] = ("failed", "bad_row", f"{place}: {why}")
            elif not url:
                self.outcomes[number] = ("failed", "no_url", f"{place} names no url")
            else:
                detail = f"{place}: {wanted[:100]!r} is not {KEY_PATTERN.pattern}"
                self.outcomes[number] = ("failed", "bad_clip_id", detail)
            # Of no url, too: `own_id` makes a unique one of it.
            self.ids.append(id_of(f"{url}"))

    def own_id(self, number: int) -> str:
        # A row of its own for every candidate, so that nothing of a list is lost without a word.
        return id_of(f"{self.first_row + number}:{self.ids[number]}:{self.urls[number]}")

    def table(self) -> pa.Table:
        ids = list(self.ids)
        outcomes: list[Outcome | None] = [None] * len(ids)
        for number, outcome in self.outcomes.items():
            ids[number], outcomes[number] = self.own_id(number), outcome
        table = pa.Table.from_batches([self.batch])
        table = table.drop_columns([name for name in _OPTIONAL if name in table.column_names])
        table = table.append_column("clip_id", pa.array(ids, pa.string()))
        for index, name in enumerate(("status", "reason", "detail")):
            values = pa.array([outcome and outcome[index] for outcome in outcomes], pa.string())
            table = table.append_column(name, values)
        is_decided = pa.array([outcome is not None for outcome in outcomes])
        table = table.append_column("stage", pc.if_else(is_decided, "plan", pa.scalar(None, pa.string())))
        return table


def _place(row: int, lines: npt.NDArray[np.int64] | None, index: int) -> str:
    return f"row {row + 1} of the source" if lines is None else f"line {lines[index]}"
