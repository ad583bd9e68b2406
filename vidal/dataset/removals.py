"""Removals: clips that are to be in no data set, for whoever asked.

A list names them by any of ``clip_id``, ``url``, ``platform_id``, ``uploader``, ``uploader_id`` and ``source_sha256``;
a text file holds a clip id or a url on each line. Ids are text whatever the file's type: ``007`` names clip 007.
A clip that matches becomes a row ``rejected``, ``removed``, with nothing in it but its id and what recognises it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidal.clip import Clip
from vidal.dataset.tars import KEY_PATTERN
from vidal.errors import SourceError
from vidal.listing import READERS, Listing, text_of

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

    def missing(self, seen: Mapping[str, set[str]]) -> list[str]:
        """What is named and not among the values of a column that were seen."""
        return sorted(value for key, named in self.values.items() for value in named - seen.get(key, set()))

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
        read = READERS.get(path.suffix.lower())
        named = _in_text(path) if read is None else _in_listing(read(path), path)
    except (ValueError, OSError) as error:
        raise SourceError(
            f"{path}: cannot be read as a list of removals: {' '.join(str(error).split())[:200]}"
        ) from None
    return Removals({key: frozenset(values) for key, values in named.items() if values})


def _in_text(path: Path) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {"clip_id": [], "url": []}
    for line in map(str.strip, path.read_text(encoding="utf-8-sig").splitlines()):
        if line and not line.startswith("#"):
            named["clip_id" if KEY_PATTERN.fullmatch(line) else "url"].append(line)
    return named


def _in_listing(listing: Listing, path: Path) -> dict[str, list[str]]:
    """What each column names. A row that names nothing is an error: whoever asked for it would be passed over."""
    for number, why in listing.unreadable.items():
        raise SourceError(f"{path}: {listing.place(number)} names nothing: {why}")
    columns = [key for key in KEYS if key in listing.columns]
    if listing.row_count and not columns:
        raise SourceError(f"{path}: names nothing; it needs a column of {', '.join(KEYS)}")
    named: dict[str, list[str]] = {key: [] for key in columns}
    for number, row in enumerate(listing.rows()):
        cells = {key: (text_of(row[key]) or "").strip() for key in columns}
        if not any(cells.values()):
            raise SourceError(f"{path}: {listing.place(number)} names nothing: no {' and no '.join(columns)}")
        for key, cell in cells.items():
            named[key] += [cell] if cell else []
    return named
