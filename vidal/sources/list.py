"""Candidates listed in a csv, jsonl or parquet file with a column ``url``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pydantic import Field

from vidal.errors import SourceError
from vidal.sources.source import Source, file_hash, normalise, split_hashtags


class ListSource(Source):
    """``{list: FILE}``; relative urls start from the file's folder."""

    list_: str = Field(alias="list")

    def candidates(self) -> pa.Table:
        path = self._path()
        try:
            table = _READERS[path.suffix.lower()](path)
        except (pa.ArrowException, UnicodeError) as error:
            line = " ".join(str(error).split())
            raise SourceError(f"{path}: not a readable {path.suffix[1:]} file: {line[:300]}") from error
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error
        return normalise(table, str(path))

    def identity(self) -> dict[str, Any]:
        return {"list": file_hash(self._path())}

    def base(self) -> str:
        return str(self._path().parent.resolve())

    def _path(self) -> Path:
        path = Path(self.list_).expanduser()
        if not path.is_file():
            raise SourceError(f"{path}: no such file; source.list names a csv, jsonl or parquet file")
        if path.suffix.lower() not in _READERS:
            raise SourceError(f"{path}: a list is one of {', '.join(_READERS)}")
        return path


def _read_csv(path: Path) -> pa.Table:
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the list is empty; it needs a header line with `url`")
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as reader:
        header = reader.schema.names
    # Text it stays: guessing types would turn an id such as 007 into 7.
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in header}, strings_can_be_null=True, null_values=[""],
        quoted_strings_can_be_null=True,
    )  # fmt: skip
    return pa.csv.read_csv(path, parse_options=parse, convert_options=convert)


def _read_jsonl(path: Path) -> pa.Table:
    """Read by Python: Arrow's reader would turn a title that looks like a date into one."""
    columns: dict[str, list[Any]] = {}
    count = 0
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            for name, value in _json_object(line, f"{path}: line {number}").items():
                column = columns.setdefault(name, [])
                column.extend([None] * (count - len(column)))
                column.append(value)
            count += 1
    if not count:
        raise SourceError(f"{path}: the list is empty; it needs an object with `url` on each line")
    padded = {name: column + [None] * (count - len(column)) for name, column in columns.items()}
    return pa.table({name: _array(column, name) for name, column in padded.items()})


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{place}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SourceError(f"{place}: not an object with `url`")
    return value


def _array(values: list[Any], name: str) -> pa.Array:
    if name == "hashtags":
        values = [split_hashtags(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeError) as error:
        raise pa.ArrowInvalid(f"column `{name}`: {error}") from error


def _read_parquet(path: Path) -> pa.Table:
    return pa.parquet.read_table(path)


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
