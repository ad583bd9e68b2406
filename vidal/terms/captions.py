"""Readers of caption files (text, csv, tsv, jsonl, Parquet), which are given as ``[SOURCE=]PATH[:FIELD]``."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.errors import SourceError
from vidal.terms.wording import display

MAX_LINE_BYTES = 1 << 20
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")


class Unreadable:
    """Stands in for the caption of a line or row that has none; ``reason`` says why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


Caption = str | Unreadable

BLANK, NOT_UTF8, NOT_JSON, NO_FIELD, NOT_TEXT, TOO_LONG = map(
    Unreadable, ("blank", "not_utf8", "not_json", "no_field", "not_text", "too_long")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file of captions; ``field`` is the column or key that holds them, None in a text file."""

    source: str
    path: Path
    field: str | None = None

    @classmethod
    def parse(cls, text: str) -> Input:
        """Parse ``coco=captions.jsonl:caption``, ``captions.csv:title`` or ``labels.txt``; raises `SourceError`.

        Without ``SOURCE=``, the file's stem names the source.
        """
        source = None
        # A path that exists is that path, whatever = and : its name has.
        if (named := _NAMED.fullmatch(text)) is not None and not Path(text).exists():
            source, text = named.groups()
        path, field = text, ""
        if ":" in text and not Path(text).is_file():
            path, _, field = text.rpartition(":")
        where = Path(path).expanduser()
        suffix = where.suffix.lower()
        if suffix not in _SUFFIXES:
            raise SourceError(
                f"{path}: captions come from {', '.join(_SUFFIXES)}, not {suffix or 'a file without suffix'}"
            )
        if not where.is_file():
            raise SourceError(f"{path}: no such file")
        if suffix == ".txt" and field:
            raise SourceError(f"{path}: a text file has one caption per line and no field `{field}`")
        if suffix != ".txt" and not field:
            raise SourceError(f"{path}: say which field holds the captions: {path}:FIELD")
        return cls(source=source or display(where.stem) or suffix[1:], path=where, field=field or None)

    def captions(self) -> Iterator[Caption]:
        """Yield the file's captions in order; raises `SourceError` if it cannot be read or has no such field."""
        try:
            yield from _READERS[self.path.suffix.lower()](self)
        except (OSError, pa.ArrowException, csv.Error) as error:
            raise SourceError(f"{self.path}: cannot be read: {' '.join(str(error).split())}") from error


def _jsonl(source: Input) -> Iterator[Caption]:
    assert source.field is not None
    fields: set[str] = set()
    has_field = False
    for line in _lines(source.path):
        if isinstance(line, Unreadable):
            yield line
            continue
        try:
            row = json.loads(line)
        # RecursionError: a line of a thousand brackets.
        except (ValueError, RecursionError):
            yield NOT_JSON
            continue
        if not isinstance(row, dict) or source.field not in row:
            fields |= set(list(row)[:10]) if isinstance(row, dict) and len(fields) < 10 else set()
            yield NO_FIELD
            continue
        has_field = True
        yield from _values(row[source.field])
    if fields and not has_field:
        raise _no_field(source, sorted(fields))


def _csv(source: Input) -> Iterator[Caption]:
    assert source.field is not None
    delimiter = "\t" if source.path.suffix.lower() == ".tsv" else ","
    with source.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        rows = csv.reader(handle, delimiter=delimiter)
        header = next(rows, [])
        if source.field not in header:
            raise _no_field(source, header)
        column = header.index(source.field)
        for row in rows:
            if row:
                yield from _values(row[column]) if column < len(row) else (NO_FIELD,)


def _parquet(source: Input) -> Iterator[Caption]:
    assert source.field is not None
    with pq.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        if source.field not in names:
            raise _no_field(source, names)
        for batch in file.iter_batches(batch_size=4096, columns=[source.field]):
            try:
                values = batch.column(0).to_pylist()
            # One invalid cell fails the whole batch, whose cells are then converted one by one.
            except UnicodeDecodeError:
                for scalar in batch.column(0):
                    try:
                        yield from _values(scalar.as_py())
                    except UnicodeDecodeError:
                        yield NOT_UTF8
            else:
                for value in values:
                    yield from _values(value)


_READERS = {
    ".txt": lambda source: _lines(source.path),
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _values(value: Any) -> Iterator[Caption]:
    """Yield the captions of a field, which holds one or a list of them."""
    for each in value if isinstance(value, list) else [value]:
        if each is None:
            yield BLANK
        elif not isinstance(each, str):
            yield NOT_TEXT
        else:
            # Invalid UTF-8 and JSON's \ud800 have become lone surrogates by now.
            yield each if each.isascii() or not re.search("[\ud800-\udfff]", each) else NOT_UTF8


def _lines(path: Path) -> Iterator[Caption]:
    with path.open("rb") as handle:
        # A byte order mark, which spreadsheets put before UTF-8, is no part of the first caption.
        start = handle.read(3)
        if start != b"\xef\xbb\xbf":
            handle.seek(0)
        while line := handle.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                # A file without line ends must not be read into memory as one line.
                while (rest := handle.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield TOO_LONG
                continue
            try:
                yield line.decode("utf-8") if line.strip() else BLANK
            except UnicodeDecodeError:
                yield NOT_UTF8


def _no_field(source: Input, names: list[str]) -> SourceError:
    available = ", ".join(name for name in names[:12] if name.isprintable())
    return SourceError(f"{source.path}: no field `{source.field}` (it has {available or 'none'})")
