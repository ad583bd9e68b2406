"""Candidates from a csv, jsonl or parquet file with a column ``url``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from vidal.errors import SourceError
from vidal.listing import READERS
from vidal.rows import TableLike
from vidal.sources.normalise import normalise
from vidal.sources.source import Source, file_hash


class ListSource(Source):
    """``{list: FILE}``; relative urls are resolved against the file's folder."""

    list_: str = Field(alias="list")

    def candidates(self) -> TableLike:
        path = self._path()
        try:
            return normalise(READERS[path.suffix.lower()](path), str(path))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error

    def own_columns(self) -> set[str]:
        return set(self.candidates().schema.names)

    def identity(self) -> dict[str, Any]:
        return {"list": file_hash(self._path())}

    def base(self) -> str:
        return str(self._path().parent.resolve())

    def _path(self) -> Path:
        path = Path(self.list_).expanduser()
        if not path.is_file():
            raise SourceError(f"{path}: no such file; source.list names a csv, jsonl or parquet file")
        if path.suffix.lower() not in READERS:
            raise SourceError(f"{path}: a list is one of {', '.join(READERS)}")
        return path
