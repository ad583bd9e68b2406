"""Candidates from VIDAL-10M's released annotation JSON and a folder of its media."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from vidal.addresses import WEB_SCHEMES
from vidal.errors import SourceError
from vidal.listing import listing_of
from vidal.rows import TableLike
from vidal.sources.normalise import normalise
from vidal.sources.source import Source, file_hash

_TEXTS = ("mplug", "polish_mplug", "sound_mplug")


def _outside(path: str) -> str | None:
    """Say why a file of the annotations is not read: they are published by others, who may name any folder."""
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith(("/", "~")) or ":" in parts[0]:
        return f"its file {path[:200]!r} is not in the folder of the media"
    return None


class VidalJsonSource(Source):
    """``{vidal_json: FILE, media: DIR}``; a clip's file is ``DIR/<folder>/<id>.mp4``, the layout of VIDAL-10M."""

    vidal_json: str = Field()
    media: str = ""
    platform: Literal["files", "youtube"] = "files"
    """``youtube`` fetches each id from there: the released dataset identifies videos by their ids only."""

    def candidates(self) -> TableLike:
        path = self._path()
        try:
            annotations = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"{path}: not readable JSON: {error}") from error
        if not isinstance(annotations, dict):
            raise SourceError(f"{path}: not an object keyed by clip id")
        rows = [self._row(clip_id, value) for clip_id, value in annotations.items()]
        if not rows:
            raise SourceError(f"{self.vidal_json}: no annotation in it")
        listing = listing_of(rows)
        if self.platform == "files":
            listing.unreadable = {n: why for n, row in enumerate(rows) if (why := _outside(row["url"]))}
        return normalise(listing, self.vidal_json)

    def own_columns(self) -> set[str]:
        return set(self.candidates().schema.names)

    def _row(self, clip_id: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SourceError(f"{self.vidal_json}: {clip_id} is not an object with folder, raw, mplug, …")
        url = f"{value['folder']}/{clip_id}.mp4" if value.get("folder") else f"{clip_id}.mp4"
        if self.platform == "youtube":
            url = f"https://www.youtube.com/watch?v={clip_id}"
        # `raw` is the platform's title with its hashtags behind it.
        title, *hashtags = str(value.get("raw") or "").split("#")
        row: dict[str, Any] = {
            "clip_id": clip_id,
            "url": url,
            "title": title.strip() or None,
            "hashtags": [tag.strip() for tag in hashtags if tag.strip()],
            "vidal_ofa": [str(text) for text in value.get("ofa") or []],
        }
        return row | {f"vidal_{name}": value.get(name) or None for name in _TEXTS}

    def identity(self) -> dict[str, Any]:
        return {
            "vidal_json": file_hash(self._path()),
            **({} if self.platform == "files" else {"platform": self.platform}),
        }

    def _path(self) -> Path:
        path = Path(self.vidal_json).expanduser()
        if not path.is_file():
            raise SourceError(f"{path}: no such file; source.vidal_json names VIDAL's annotation JSON")
        return path

    def schemes(self) -> tuple[str, ...]:
        return super().schemes() if self.platform == "files" else WEB_SCHEMES

    def base(self) -> str:
        return str(Path(self.media or Path(self.vidal_json).parent).expanduser().resolve())
