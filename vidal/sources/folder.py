"""Candidates from the media files under a folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pyarrow as pa
from pydantic import Field

from vidal.dataset.plan import with_notes
from vidal.errors import SourceError
from vidal.rows import Stream, TableLike
from vidal.sources.normalise import normalise
from vidal.sources.source import Source
from vidal.stage import digest

_VIDEO = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".3gp", ".ogv",
    ".wmv",
)  # fmt: skip
_ANIMATION = (".gif", ".webp", ".apng")
_AUDIO = (".mp3", ".wav", ".flac", ".ogg", ".m4a", ".opus")
MEDIA_SUFFIXES = frozenset([*_VIDEO, *_ANIMATION, *_AUDIO])
"""Suffixes of candidates, in lower case; whether audio-only files are kept is the recipe's decision."""
_SUFFIXES_NAMED = 5


class FolderSource(Source):
    """``{folder: DIR}``; urls are relative to the folder, the title is the file's name without its suffix.

    A symlink to a file is a candidate. A symlink to a folder is not followed, as it may lead out of the folder or back
    into it: it is counted as skipped, as are files of other suffixes and folders that cannot be read.
    """

    folder: str = Field()

    def candidates(self) -> TableLike:
        files, skipped = self._walk()
        if not files:
            note = f" ({skipped.sentence()})" if skipped.count else ""
            known = " ".join(sorted(MEDIA_SUFFIXES))
            raise SourceError(f"{self.folder}: no media file under it{note}; looked for {known}")
        # A file's name is bytes to Linux; what is no UTF-8 still needs a title that Arrow can store.
        titles = [Path(os.fsencode(file).decode("utf-8", "replace")).stem.replace("_", " ") for file in files]
        table = pa.table({"url": [_address(file) for file in files], "title": titles})
        candidates = normalise(table, self.folder)
        if not skipped.count:
            return candidates
        note = f"{Path(self.base()).name}/: {len(files)} file{'s' * (len(files) > 1)}; {skipped.sentence()}"
        return Stream(with_notes(candidates.schema, [note]), candidates.num_rows, candidates.to_batches)

    def identity(self) -> dict[str, Any]:
        folder = Path(self.folder).expanduser()
        # Names and sizes alone, as hashing would read all media once more than the build does.
        # lstat, as a link may lead to nothing, which is a clip's failure and not the recipe's.
        return {"folder": digest([[_address(file), (folder / file).lstat().st_size] for file in self._walk()[0]])}

    def base(self) -> str:
        return str(Path(self.folder).expanduser().resolve())

    def _walk(self) -> tuple[list[str], _Skipped]:
        """Return the media files, as paths relative to the folder and sorted, and what was skipped."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder; source.folder names a folder of media files")
        files, skipped = [], _Skipped()
        for root, folders, names in os.walk(folder, onerror=skipped.unreadable.append):
            skipped.links += sum(os.path.islink(os.path.join(root, name)) for name in folders)
            for name in names:
                path = Path(root, name)
                if path.suffix.lower() in MEDIA_SUFFIXES:
                    files.append(path.relative_to(folder).as_posix())
                else:
                    skipped.suffixes[path.suffix.lower() or "no suffix"] += 1
        # os.walk lists a folder in the file system's order, which differs from machine to machine.
        return sorted(files), skipped


@dataclass(slots=True)
class _Skipped:
    """What a walk of the folder skips, by kind."""

    suffixes: Counter[str] = field(default_factory=Counter)
    links: int = 0
    unreadable: list[OSError] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.suffixes.total() + self.links + len(self.unreadable)

    def sentence(self) -> str:
        """Return the note: ``skipped 3: 2 of another kind (.srt, .txt), 1 symlinked folder``."""
        kinds = []
        if self.suffixes:
            names = sorted(self.suffixes, key=lambda suffix: (-self.suffixes[suffix], suffix))
            more = ", …" if len(names) > _SUFFIXES_NAMED else ""
            # Escaped, as a file's name may have the control characters of a terminal.
            named = ", ".join(ascii(name)[1:-1] for name in names[:_SUFFIXES_NAMED])
            kinds.append(f"{self.suffixes.total()} of another kind ({named}{more})")
        if self.links:
            kinds.append(f"{self.links} symlinked folder{'s' * (self.links > 1)}")
        if self.unreadable:
            count = len(self.unreadable)
            kinds.append(f"{count} folder{'s' * (count > 1)} that cannot be read")
        return f"skipped {self.count}: {', '.join(kinds)}"


def _address(file: str) -> str:
    """Return the path, or its ``file:`` URL where it is not valid text or looks like a URL itself."""
    is_text = not any("\ud800" <= character <= "\udfff" for character in file)
    if is_text and not file.lower().startswith("file:"):
        return file
    return f"file:{quote_from_bytes(os.fsencode(file))}"
