"""Removals: clips that no dataset may contain, such as at the request of their authors.

A list identifies them by ``clip_id``, ``url``, ``platform_id``, ``uploader``, ``uploader_id`` or ``source_sha256``; a
text file has a clip id or a URL per line. Ids are text whatever the file's type: ``007`` is clip 007. A clip that
matches becomes a row ``rejected`` with reason ``removed``, which keeps only its id and the hash of its file.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidal.clip import Clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import id_of
from vidal.dataset.tars import KEY_PATTERN
from vidal.errors import SourceError, one_line
from vidal.listing import READERS, Listing, text_of

KEYS = ("clip_id", "url", "platform_id", "uploader", "uploader_id", "source_sha256")
REASON = "removed"
_HASHED = "removed:"
# Of the author and the content nothing stays, but the hash of the file: by it the clip is known when it comes again.
_STAYS = ("clip_id", "shard", "position", "source_sha256", "attempts", "fingerprint", "cluster")


@dataclass(frozen=True, slots=True)
class Removals:
    """The values that identify removed clips, by column."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def match(self, row: Mapping[str, Any]) -> str | None:
        """Return the column that identifies a row as removed; None for a row that stays."""
        return next((key for key, values in self.values.items() if row.get(key) in values), None)

    def names(self, clip: Clip) -> bool:
        """Return whether a clip is on the list, by what is known of it so far."""
        return self.match({key: getattr(clip, key) for key in KEYS}) is not None

    def apply(self, clip: Clip, stage: str) -> Clip:
        """Return the clip, or its tombstone if it is on the list; a stage that found it there before keeps its name."""
        if not self.names(clip):
            return clip
        return tombstone(clip, clip.stage or stage if clip.reason == REASON else stage)

    def missing(self, seen: Mapping[str, set[str]]) -> list[str]:
        """Return the values on the list that are not among those ``seen`` in a dataset, by column."""
        return sorted(value for key, values in self.values.items() for value in values - seen.get(key, set()))

    def __or__(self, other: Removals) -> Removals:
        nothing: frozenset[str] = frozenset()
        keys = [key for key in KEYS if key in self.values or key in other.values]
        return Removals({key: self.values.get(key, nothing) | other.values.get(key, nothing) for key in keys})

    def __bool__(self) -> bool:
        return any(self.values.values())

    @classmethod
    def of(cls, dataset: Dataset) -> Removals:
        """Return what is left of the clips that were removed from a dataset: their ids, and the hashes of their files.

        By these they are refused when they come again.
        """
        kept: dict[str, set[str]] = {"clip_id": set(), "source_sha256": set()}
        for row in dataset.rows([*kept, "reason"]):
            if row["reason"] == REASON:
                for key, values in kept.items():
                    values |= {row[key]} if row[key] else set()
        return cls({key: frozenset(values) for key, values in kept.items() if values})


def tombstone(clip: Clip, stage: str) -> Clip:
    """Return what remains of a removed clip: its id, its place in the plan, and the hash of its file."""
    # Columns of the source's own are cleared as well, as any of them may name the author.
    remainder = Clip(**{name: getattr(clip, name) for name in _STAYS}, extra=dict.fromkeys(clip.extra))
    remainder.stage = stage
    remainder.reject(REASON, "on the list of removals")
    return remainder


def hashed_address(url: str) -> str:
    """Return what stands for an address after its removal, where a recipe lists its addresses itself."""
    return url if url.startswith(_HASHED) else f"{_HASHED}{id_of(url)}"


def lists_of(definition: Mapping[str, Any]) -> list[str]:
    """Return the files of the setting ``removals`` of a recipe: none, one or several."""
    named = definition.get("removals") or []
    return [named] if isinstance(named, str) else list(named)


def load_all(paths: Iterable[str]) -> Removals:
    """Read several lists of removals as one; raises `SourceError`."""
    return functools.reduce(operator.or_, map(load, paths), Removals())


def load(path: str | Path) -> Removals:
    """Read a list of removals: text, CSV, JSON Lines or Parquet. Raises `SourceError` for a row without any value."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise SourceError(f"{path}: no such file; it must list the clips to remove")
    values: dict[str, list[str]] = {"clip_id": [], "url": []}
    try:
        if read := READERS.get(path.suffix.lower()):
            values = _values_of_listing(read(path), path)
        else:
            # Windows' editors begin UTF-8 with a byte order mark, which would become part of the first id.
            for line in map(str.strip, path.read_text(encoding="utf-8-sig").splitlines()):
                if line and not line.startswith("#"):
                    values["clip_id" if KEY_PATTERN.fullmatch(line) else "url"].append(line)
    except (ValueError, OSError) as error:
        why = one_line(error, 200)
        raise SourceError(f"{path}: cannot be read as a list of removals: {why}") from None
    return Removals({key: frozenset(cells) for key, cells in values.items() if cells})


def _values_of_listing(parts: Iterable[Listing], path: Path) -> dict[str, list[str]]:
    """Return the values by column. A row without any is an error: a request would be dropped silently."""
    values: dict[str, list[str]] = {}
    for listing in parts:
        for number, why in listing.unreadable.items():
            raise SourceError(f"{path}: {listing.place(number)} names nothing: {why}")
        columns = [key for key in KEYS if key in listing.columns]
        if listing.row_count and not columns:
            raise SourceError(f"{path}: names nothing; it needs one of the columns {', '.join(KEYS)}")
        for number, row in enumerate(listing.rows()):
            cells = {key: (text_of(row[key]) or "").strip() for key in columns}
            if not any(cells.values()):
                raise SourceError(f"{path}: {listing.place(number)} names nothing: no {' and no '.join(columns)}")
            for key, cell in cells.items():
                values.setdefault(key, []).extend([cell] if cell else [])
    return values
