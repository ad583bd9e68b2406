"""Removals: clips that are to be in no data set, for whoever asked.

A list names them by any of ``clip_id``, ``url``, ``platform_id``, ``uploader``, ``uploader_id`` and ``source_sha256``;
a text file holds one clip id a line. A clip that matches becomes a row ``rejected``, ``removed``, with nothing in it
but its id and what recognises it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from vidal.clip import Clip
from vidal.errors import SourceError

KEYS = ("clip_id", "url", "platform_id", "uploader", "uploader_id", "source_sha256")
REASON = "removed"
_STAYS = ("clip_id", "shard", "position", "source_sha256", "attempts", "fingerprint", "cluster")


@dataclass(frozen=True, slots=True)
class Removals:
    """What is removed, by column."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def match(self, row: Mapping[str, Any]) -> str | None:
        """The column by which a row is named; None for one that stays."""
        return next((key for key, named in self.values.items() if row.get(key) in named), None)

    def apply(self, clip: Clip, stage: str) -> Clip:
        """The clip, or what stays of it where it is named."""
        named = {key: getattr(clip, key) for key in KEYS}
        return tombstone(clip, stage) if self.match(named) and clip.reason != REASON else clip

    def __bool__(self) -> bool:
        return any(self.values.values())


def tombstone(clip: Clip, stage: str) -> Clip:
    """What stays of a removed clip: its place, its id, and the hash that recognises its file."""
    left = Clip(**{name: getattr(clip, name) for name in _STAYS}, extra=dict.fromkeys(clip.extra))
    left.work.folder = clip.work.folder
    left.stage = stage
    left.reject(REASON, "on the list of removals")
    return left


def load(path: str | Path) -> Removals:
    """Read a list of removals: text, csv, jsonl or parquet. Raises `SourceError`."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise SourceError(f"{path}: no such file; it lists what is removed")
    try:
        rows = list(_rows(path))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise SourceError(
            f"{path}: cannot be read as a list of removals: {' '.join(str(error).split())[:200]}"
        ) from None
    named = {key: frozenset(str(row[key]) for row in rows if row.get(key)) for key in KEYS}
    removals = Removals({key: values for key, values in named.items() if values})
    if rows and not removals:
        raise SourceError(f"{path}: names nothing; it needs a column of {', '.join(KEYS)}")
    return removals


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        return list(pa.parquet.read_table(path).to_pylist())
    if kind == ".csv":
        return list(pa.csv.read_csv(path).cast(_as_text(path)).to_pylist())
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if kind == ".jsonl":
        return [json.loads(line) for line in lines if line]
    return [{"clip_id": line} for line in lines if line and not line.startswith("#")]


def _as_text(path: Path) -> pa.Schema:
    with pa.csv.open_csv(path) as reader:
        return pa.schema([(name, pa.string()) for name in reader.schema.names])
