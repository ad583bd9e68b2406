"""Replaces the source of a segment by its part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from vidal.clip import Clip, columns
from vidal.media.cut import cut
from vidal.media.ffmpeg import ffmpeg_identity, find_ffmpeg
from vidal.media.limits import Limits
from vidal.media.probe import probe
from vidal.record import Column
from vidal.stage import Resources, Stage

_OF_THE_WHOLE = ("media", "texts", "scores", "modalities", "fingerprints")
"""Groups of columns whose values are those of the whole clip, and none of a segment's."""


class CutSegment(Stage):
    """Cuts a segment, as ``source: {segments: DIR}`` gives it, out of its clip's file, before ``probe``.

    The video is copied where a key frame begins the segment and exactly its frames can be taken; elsewhere it is coded
    anew at ``crf``. Audio is decoded and stays as it is, sample for sample. Frames keep the distances of their times.
    What was measured of the whole clip is forgotten, and what a platform states of it stays: title, licence, uploader.
    Clips that are whole pass unchanged.
    """

    reads: ClassVar[tuple[str, ...]] = ("source_file", "parent_id", "segment_start_s", "segment_end_s")
    writes: ClassVar[tuple[str, ...]] = ("source_file", "source_sha256", "source_bytes")
    columns: ClassVar[Mapping[str, Column]] = {
        "parent_sha256": Column(str, "SHA-256 of the file that the segment was cut out of", "provenance"),
        "is_copy": Column(bool, "whether the segment's video was copied, and not coded anew", "provenance"),
    }
    imports: ClassVar[tuple[str, ...]] = ("ffmpeg",)
    default_resources: ClassVar[Resources] = Resources(timeout_s=2000)

    crf: int = Field(8, ge=0, le=51)
    """Quality of video that has to be coded anew: x264's constant rate factor, 0 is lossless and large."""
    limits: Limits = Limits(max_duration_s=3600.0)
    """Limits of the whole clip, and of the FFmpeg process that cuts it."""

    def setup(self) -> None:
        find_ffmpeg()

    def model_identities(self) -> dict[str, str]:
        return {"ffmpeg": ffmpeg_identity()}

    def process(self, clip: Clip) -> None:
        work, start_s, end_s = clip.work, clip["segment_start_s"], clip["segment_end_s"]
        if work.source_path is None or work.folder is None:
            raise ValueError("cut_segment needs the source file, which fetch provides")
        # Of the parent: the segment gets members of its own.
        work.members = []
        if start_s is None:
            return
        facts = probe(work.source_path, work.folder, self.limits)
        part, is_copy = cut(facts, start_s, end_s, work.folder, self.limits, crf=self.crf)
        parent_sha256 = clip.source_sha256
        fresh = Clip()
        for column in (column for column in columns() if column.metadata["group"] in _OF_THE_WHOLE):
            clip[column.name] = getattr(fresh, column.name)
        for path in {work.source_path, facts.path}:
            path.unlink()
        work.source_path = part.rename(Path(work.folder) / "source")
        with work.source_path.open("rb") as file:
            clip.source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        clip.source_bytes = work.source_path.stat().st_size
        clip["parent_sha256"], clip["is_copy"] = parent_sha256, is_copy
