"""Readers of csv, jsonl and parquet lists: every row with its line, every csv cell as text, no types guessed.

A row that cannot be read is kept, with the reason; only a file that cannot be read at all is an error. Lists are read
part by part, as they may not fit into memory; the rows of a jsonl list may lack columns, and so may a part of it.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vidal.errors import SourceError, one_line

Values: TypeAlias = pa.ChunkedArray | list[Any]
"""A column: an Arrow array, or Python values of mixed types."""

_Row = TypeVar("_Row")
PART_ROWS = 50_000
"""Number of rows that are read at once."""
# What `surrogateescape` makes of bytes that are not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(slots=True, kw_only=True)
class Listing:
    """A list or a part of one: columns of equal length, and the line of each row in the file."""

    columns: dict[str, Values]
    row_count: int
    lines: list[int] | None = None
    """Line on which each row starts, from 1; None where the file has no lines."""
    first_row: int = 0
    """Number of rows in the parts before this one."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Why a row cannot be read, by row number from 0 within the part."""
    is_text: bool = False
    """Whether every cell is text because the format has no types."""

    def place(self, row: int) -> str:
        """Return where a row is: ``line 3``, or ``row 3`` in a file without lines."""
        return f"row {self.first_row + row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows as dictionaries."""
        names = list(self.columns)
        columns = [c.to_pylist() if isinstance(c, pa.ChunkedArray) else c for c in self.columns.values()]
        return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def listing_of(rows: Iterable[dict[str, Any]]) -> Listing:
    """Return the columns of rows whose keys may differ; missing values are null."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for row in rows:
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
    for column in columns.values():
        column.extend([None] * (count - len(column)))
    return Listing(columns=dict(columns), row_count=count)


def read_csv(path: Path) -> Iterator[Listing]:
    """Read a csv file with a header line, in parts; an empty cell is null. Raises `SourceError`."""
    lines = _lines(path)
    # Without `strict`, a quote that is never closed would swallow the rest of the list in silence.
    reader, before = csv.reader(lines, strict=True), 0
    try:
        header = next((row for row in reader if row), [])
        if not header:
            raise SourceError(f"{path}: the list is empty; it needs a header line with `url`")
        # A header such as `url, title` means that the rows, too, have a space after each comma.
        is_spaced = any(name.startswith(" ") for name in header[1:])
        reader, before = csv.reader(lines, strict=True, skipinitialspace=is_spaced), reader.line_num
        names = [name.strip() or f"column_{number}" for number, name in enumerate(header, 1)]
        check_names(names, str(path))
        rows = _csv_rows(reader, len(names), before)
        yield from _in_parts(rows, functools.partial(_texts, names), is_text=True)
    except csv.Error as error:
        raise SourceError(f"{path}: line {before + reader.line_num}: not readable as csv: {error}") from None


def _csv_rows(reader: Any, width: int, line: int) -> Iterator[tuple[int, list[str], str]]:
    before = line
    for cells in reader:
        # A quoted cell may hold line ends, so a row begins where the one before it ended, not one line on.
        begin, before = before + 1, line + reader.line_num
        # Spreadsheets write a row as wide as the widest of the sheet, with empty cells.
        if len(cells) > width and not any(cells[width:]):
            del cells[width:]
        if len(cells) == width:
            yield begin, cells, ""
        elif cells:
            yield begin, [*cells, *[""] * width][:width], f"{len(cells)} cells, where the header has {width}"


def _texts(names: list[str], rows: list[list[str]]) -> dict[str, Values]:
    nothing = pa.scalar(None, pa.string())
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    arrays = (pa.array(column, pa.string()) for column in columns)
    texts = [pa.chunked_array([pc.if_else(pc.equal(array, ""), nothing, array)]) for array in arrays]
    return dict(zip(names, texts, strict=True))


def _in_parts(
    rows: Iterator[tuple[int, _Row, str]], columns_of: Callable[[list[_Row]], dict[str, Values]], *, is_text: bool
) -> Iterator[Listing]:
    """Collect rows to parts; each comes with its line, and with why it cannot be read."""
    first_row = 0
    # An empty list, too, has a part, with its columns.
    while (part := list(itertools.islice(rows, PART_ROWS))) or not first_row:
        yield Listing(
            columns=columns_of([row for _, row, _ in part]), row_count=len(part), lines=[line for line, _, _ in part],
            first_row=first_row, unreadable={n: why for n, (_, _, why) in enumerate(part) if why}, is_text=is_text,
        )  # fmt: skip
        first_row += len(part)
        if not part:
            return


def check_names(names: list[str], place: str) -> None:
    """Raise `SourceError` if two columns have the same name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{place}: columns with the same name: {', '.join(repeated)}")


def read_jsonl(path: Path) -> Iterator[Listing]:
    """Read a file with one JSON object per line, in parts; blank lines are skipped. Raises `SourceError`.

    Python reads it, as Arrow's reader would turn a title that looks like a date into a date.
    """
    yield from _in_parts(_json_rows(path), lambda rows: listing_of(rows).columns, is_text=False)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            # An empty object becomes null: Parquet has no type for a struct without fields.
            value = json.loads(line, object_hook=lambda pairs: pairs or None)
        # Brackets nested by the thousand raise RecursionError, which is no ValueError.
        except (ValueError, RecursionError) as error:
            yield number, {}, f"not JSON: {error}"
        else:
            is_object = isinstance(value, dict)
            yield number, value if is_object else {}, "" if is_object or value is None else "not an object"


def read_parquet(path: Path) -> Iterator[Listing]:
    """Read a Parquet file in parts; its columns keep their types. Raises `SourceError`."""
    import pyarrow.parquet as pq

    first_row = 0
    try:
        with pq.ParquetFile(path) as file:
            names = [name.strip() for name in file.schema_arrow.names]
            check_names(names, str(path))
            # The first one is without rows, so that an empty file has its columns, too.
            empty = file.schema_arrow.empty_table()
            batches = (pa.Table.from_batches([batch]) for batch in file.iter_batches(PART_ROWS))
            for table in itertools.chain([empty], batches):
                # Reading checks neither offsets nor UTF-8, and a damaged column could crash the process at its first
                # use.
                table.validate(full=True)
                columns = dict(zip(names, table.columns, strict=True))
                yield Listing(columns=columns, row_count=table.num_rows, first_row=first_row)
                first_row += table.num_rows
    except pa.ArrowException as error:
        raise SourceError(f"{path}: not a readable parquet file: {one_line(error, 300)}") from None


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends; raises `SourceError` for any other encoding."""
    # Spreadsheets write a byte order mark, csv needs line ends as they are, and a wrong byte is named with its line.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        for number, line in enumerate(text, 1):
            if not line.isascii() and _NOT_UTF8.search(line):
                raise SourceError(f"{path}: line {number}: not UTF-8; save the list as UTF-8")
            yield line


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
"""The reader of a list, by its suffix in lower case; gives the parts of the list in order, at least one."""


def text_of(value: Any) -> str | None:
    """Return a cell as text: 7 and 7.0 give ``7``, NaN gives None. Raises `ValueError` for lists, dicts and bytes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        if value != value:
            return None
        # From 2**53 on a float does not hold every integer: its digits would be made up.
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    if isinstance(value, list | dict | bytes):
        raise ValueError("no text")
    return str(value).lower() if isinstance(value, bool) else str(value)
