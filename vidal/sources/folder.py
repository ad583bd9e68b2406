"""Every media file under a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from vidal.errors import SourceError
from vidal.sources.source import Source, normalise
from vidal.stage import digest

MEDIA_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv", ".3gp", ".ogv", ".wmv"]
)  # fmt: skip


class FolderSource(Source):
    """``{folder: DIR}``; urls are relative to the folder, the title is the file's name without its suffix."""

    folder: str = Field()

    def candidates(self) -> pa.Table:
        files = self._files()
        if not files:
            raise SourceError(f"{self.folder}: no media file under it; looked for {' '.join(sorted(MEDIA_SUFFIXES))}")
        titles = [Path(file).stem.replace("_", " ") for file in files]
        return normalise(pa.table({"url": files, "title": titles}), self.folder)

    def identity(self) -> dict[str, Any]:
        folder = Path(self.folder).expanduser()
        return {"folder": digest([[file, (folder / file).lstat().st_size] for file in self._files()])}

    def base(self) -> str:
        return str(Path(self.folder).expanduser().resolve())

    def _files(self) -> list[str]:
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder; source.folder names a folder of media files")
        found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
        wanted = (p.relative_to(folder) for p in found if p.suffix.lower() in MEDIA_SUFFIXES)
        # A name that is not UTF-8 cannot stand in a manifest as it is.
        return sorted(p.as_posix() for p in wanted if _is_text(p.as_posix()))


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)
