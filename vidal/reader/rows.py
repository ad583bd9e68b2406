"""`Rows`: the manifest rows of the kept clips in memory, with random access.

A row is looked up by its shard's batch and its index there, without Arrow compute functions, so that it works in forked
workers. A column that is empty in a shard takes no memory.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vidal.reader.offsets import numbers


class Rows:
    """The rows of several shards under one schema, numbered consecutively."""

    def __init__(self, schemas: Iterable[pa.Schema], tables: Sequence[pa.Table]) -> None:
        """Take the schema of each shard, and a table of its non-empty columns, in one chunk each."""
        self.schema = pa.unify_schemas(
            [each.remove_metadata() for each in schemas] or [pa.schema([])], promote_options="permissive"
        )
        most = max((table.num_rows for table in tables), default=0)
        # One array for all empty columns of a type.
        nulls = functools.cache(lambda kind: pa.nulls(most, kind))
        self._batches: list[pa.RecordBatch] = []
        # A shard without a kept clip has no row, and no batch.
        for table in tables:
            if table.num_rows:
                names = set(table.column_names)
                arrays = [
                    table.column(field.name).cast(field.type).chunk(0) if field.name in names
                    else nulls(field.type).slice(0, table.num_rows)
                    for field in self.schema
                ]  # fmt: skip
                self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._starts: list[int] = list(itertools.accumulate((batch.num_rows for batch in self._batches), initial=0))
        self._columns = {name: k for k, name in enumerate(self.schema.names)}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def table(self) -> pa.Table:
        """The rows as a table, without copying."""
        return pa.Table.from_batches(self._batches, self.schema)

    def row(self, number: int, columns: Iterable[str] | None = None) -> dict[str, Any]:
        """Return a row, or those of the given columns that exist."""
        shard = bisect.bisect_right(self._starts, number) - 1
        batch, place = self._batches[shard], number - self._starts[shard]
        names = self._columns if columns is None else [name for name in columns if name in self._columns]
        return {name: batch.column(self._columns[name])[place].as_py() for name in names}

    def numbers(self, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return an integer column without nulls."""
        return np.concatenate([np.zeros(0, np.int64), *(numbers(batch.column(column)) for batch in self._batches)])

    def dicts(self, chosen: np.ndarray[Any, np.dtype[np.bool_]], columns: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield those of the given columns that exist, for the chosen rows; decodes one shard at a time."""
        names = [name for name in columns if name in self._columns]
        for batch, start in zip(self._batches, self._starts, strict=False):
            part = pa.Table.from_batches([batch]).select(names)
            yield from part.filter(pa.array(chosen[start : start + batch.num_rows])).to_pylist()
