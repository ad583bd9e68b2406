"""Reads what a source holds, without decoding it, so that cheap filters come before any decoding."""

from __future__ import annotations

from typing import ClassVar

from vidal.clip import Clip
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.limits import Limits
from vidal.media.probe import Probe as Facts
from vidal.media.probe import probe
from vidal.stage import Stage


class Probe(Stage):
    """Writes the source's size, length, frame rate and sound; fails what is no clip or is beyond ``limits``."""

    reads: ClassVar[tuple[str, ...]] = ("source_file",)
    writes: ClassVar[tuple[str, ...]] = (
        "source_facts", "container", "video_codec", "audio_codec", "duration_s", "width", "height", "fps",
        "frame_count", "is_variable_fps", "rotation_deg", "is_hdr", "has_audio", "audio_start_s", "audio_duration_s",
    )  # fmt: skip

    limits: Limits = Limits()

    def setup(self) -> None:
        find_ffmpeg()

    def process(self, clip: Clip) -> None:
        if clip.work.source_path is None or clip.work.folder is None:
            raise ValueError("probe needs the source file that fetch leaves")
        facts = probe(clip.work.source_path, clip.work.folder, self.limits)
        clip.work.probe = facts
        _write(clip, facts)


def _write(clip: Clip, facts: Facts) -> None:
    clip.container, clip.video_codec, clip.audio_codec = facts.container, facts.video_codec, facts.audio_codec
    clip.duration_s, clip.width, clip.height = round(facts.duration_s, 6), facts.width, facts.height
    clip.fps, clip.frame_count = round(facts.fps, 6), len(facts.frame_ticks)
    clip.is_variable_fps, clip.rotation_deg, clip.is_hdr = facts.is_variable_fps, facts.rotation_deg, facts.is_hdr
    clip.has_audio = facts.audio_codec is not None
    clip.audio_start_s, clip.audio_duration_s = _rounded(facts.audio_start_s), _rounded(facts.audio_duration_s)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
