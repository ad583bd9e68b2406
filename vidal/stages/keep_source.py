from __future__ import annotations

from typing import ClassVar

from vidal.clip import Clip
from vidal.crawl.media_kind import HEAD_BYTES, kind_of
from vidal.stage import Stage
from vidal.work import Member

_SUFFIXES = {"matroska": "mkv", "mpegts": "ts", "mpegps": "mpg", "asf": "wmv", "unknown": "bin"}


class KeepSource(Stage):
    """Keeps the file as it came, in a layer of its own, so that a build can start from it without the network."""

    reads = ("source_file",)
    layers: ClassVar[tuple[str, ...]] = ("source",)

    def process(self, clip: Clip) -> None:
        if clip.work.source_path is None:
            raise ValueError("keep_source needs the source file that fetch leaves")
        data = clip.work.source_path.read_bytes()
        kind = kind_of(data[:HEAD_BYTES])
        clip.work.put(Member(layer="source", suffix=_SUFFIXES.get(kind, kind), data=data))
