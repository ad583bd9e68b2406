from __future__ import annotations

from typing import ClassVar

from vidal.clip import Clip
from vidal.crawl.media_kind import HEAD_BYTES, kind_of
from vidal.stage import Stage
from vidal.work import Member

_SUFFIXES = {"matroska": "mkv", "mpegts": "ts", "mpegps": "mpg", "asf": "wmv", "unknown": "bin"}


class KeepSource(Stage):
    """Stores the source file in the ``source`` layer, so that later builds need no network.

    Subtitles and the thumbnail, if fetch has them, become further members of the clip: ``subtitle.en.vtt``,
    ``thumbnail.jpeg``.
    """

    version: ClassVar[int] = 2
    reads = ("source_file",)
    layers: ClassVar[tuple[str, ...]] = ("source",)

    def process(self, clip: Clip) -> None:
        if clip.work.source_path is None:
            raise ValueError("keep_source needs the source file, which fetch provides")
        data = clip.work.source_path.read_bytes()
        kind = kind_of(data[:HEAD_BYTES])
        clip.work.put(Member(layer="source", suffix=_SUFFIXES.get(kind, kind), data=data))
        for what, path in clip.work.beside.items():
            data = path.read_bytes()
            # A subtitle's format is in its file's name; an image's is in its first bytes.
            suffix = path.suffix[1:] or kind_of(data[:HEAD_BYTES])
            clip.work.put(Member(layer="source", suffix=f"{what}.{suffix}", data=data))
