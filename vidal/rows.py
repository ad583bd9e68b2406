"""TableLike that need not fit into memory: Arrow tables that are read part by part, as often as needed."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from vidal.errors import storage_errors

PART_ROWS = 50_000
"""Number of rows that are handled at once."""


class TableLike(Protocol):
    """What a `pyarrow.Table` is read by here, so that a table is one, too; each call of `to_batches` reads anew."""

    @property
    def schema(self) -> Any: ...

    @property
    def num_rows(self) -> int: ...

    def to_batches(self) -> Iterable[pa.RecordBatch]: ...


@dataclass(frozen=True, slots=True)
class Stream:
    """TableLike that a function makes again whenever they are read."""

    schema: pa.Schema
    num_rows: int
    read: Callable[[], Iterable[pa.RecordBatch]]

    def to_batches(self) -> Iterable[pa.RecordBatch]:
        return self.read()


class Spill:
    """TableLike in a temporary file, which is gone with the object or the process.

    Raises `StorageError` where the file cannot be written; ``TMPDIR`` sets its folder.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        with storage_errors(tempfile.gettempdir()):
            self._file = tempfile.TemporaryFile(prefix="vidal-", buffering=0)  # noqa: SIM115
        self._ends = [0]
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def add(self, rows: pa.Table) -> None:
        """Append rows; small tables are collected to larger parts."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.num_rows += rows.num_rows
        if self._waiting_rows >= PART_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
            self._write(pa.concat_tables(waiting))

    def add_part(self, rows: pa.Table) -> int:
        """Append rows as a part of their own, and return its number for `part`."""
        self.num_rows += rows.num_rows
        self._write(rows)
        return len(self._ends) - 2

    def _write(self, rows: pa.Table) -> None:
        # Each part is an IPC stream of its own: it is read by its place, with the dictionaries that belong to it.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
            stream.write_table(rows)
        data = memoryview(sink.getvalue())
        with storage_errors(tempfile.gettempdir()):
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        self._ends.append(self._ends[-1] + len(data))

    def part(self, number: int) -> pa.Table:
        begin, end = self._ends[number : number + 2]
        # At an offset, so that several readers can be under way at once.
        return pa.ipc.open_stream(os.pread(self._file.fileno(), end - begin, begin)).read_all()

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        self._flush()
        for number in range(len(self._ends) - 1):
            yield from self.part(number).to_batches()


def whole(rows: TableLike) -> pa.Table:
    """Return the rows as one table in memory."""
    return rows if isinstance(rows, pa.Table) else pa.Table.from_batches(rows.to_batches(), rows.schema)


def in_groups(batches: Iterable[pa.RecordBatch], sizes: Iterable[int]) -> Iterator[pa.Table]:
    """Cut batches into tables of the given numbers of rows; the last one has what is left."""
    source, waiting, count = iter(batches), list[pa.RecordBatch](), 0
    for size in sizes:
        while count < size and (batch := next(source, None)) is not None:
            waiting.append(batch)
            count += batch.num_rows
        if not waiting:
            return
        table = pa.Table.from_batches(waiting)
        group, rest = table.slice(0, size), table.slice(size)
        yield group
        waiting, count = [batch for batch in rest.to_batches() if batch.num_rows], rest.num_rows


def in_parts(batches: Iterable[pa.RecordBatch], size: int = PART_ROWS) -> Iterator[pa.Table]:
    """Collect small batches to tables of ``size`` rows, in one piece each."""
    return (table.combine_chunks() for table in in_groups(batches, itertools.repeat(size)))
