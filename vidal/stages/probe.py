"""Reads the properties of a source and decodes a single frame, so that cheap filters run before full decoding."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from vidal.clip import Clip, Statement
from vidal.errors import ClipError
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts, probe
from vidal.stage import Stage

# Intact files that are not clips are rejected; files that cannot be processed fail.
_REJECTED = ("still_image", "broken_clock")

# Tolerances for stated values: platforms round to seconds, headers state the duration of the longest track.
_LENGTH_SLACK_S = {"platform": 1.0, "container": 0.5, "video": 0.5}
_LENGTH_SLACK = 0.05
_SIZE_SLACK = 0.02


class Probe(Stage):
    """Writes the tracks of the clip, their size, duration, frame rate and audio, and the values stated for them.

    ``damage`` lists where a statement differs from what is found, ``container_errors`` (reported by FFmpeg's demuxer),
    ``checksum_mismatch`` (of the CRC-32 in a Matroska file) and ``missing_frames`` (gaps in an otherwise constant frame
    rate). Files that are not clips or exceed ``limits`` fail. Still images are rejected: sources of one frame, or with
    video shorter than ``min_picture_share`` of the audio.
    """

    version: ClassVar[int] = 4
    reads: ClassVar[tuple[str, ...]] = ("source_file",)
    writes: ClassVar[tuple[str, ...]] = (
        "source_facts", "container", "video_codec", "audio_codec", "duration_s", "width", "height", "fps",
        "frame_count", "is_variable_fps", "rotation_deg", "is_hdr", "has_audio", "audio_start_s", "audio_duration_s",
        "video_tracks", "video_track", "audio_tracks", "audio_track", "audio_language", "clock_jumps", "stated",
        "stated_duration_s", "damage",
    )  # fmt: skip
    imports: ClassVar[tuple[str, ...]] = ("ffmpeg",)

    limits: Limits = Limits()
    """Limits of the source and of the FFmpeg processes that read it."""
    min_picture_share: float = Field(0.1, ge=0, le=1)
    """Smallest ratio of the durations of video and audio; below it, the video is a still image for a recording."""

    def setup(self) -> None:
        find_ffmpeg()

    def process(self, clip: Clip) -> None:
        if clip.work.source_path is None or clip.work.folder is None:
            raise ValueError("probe needs the source file, which fetch provides")
        try:
            facts = probe(clip.work.source_path, clip.work.folder, self.limits)
        except ClipError as error:
            if error.reason not in _REJECTED:
                raise
            clip.reject(error.reason, error.detail)
            return
        clip.work.probe = facts
        # In this order: a platform's duration is in the same column until the measured one takes its place.
        _write_statements(clip, facts)
        _write(clip, facts)
        if facts.video_codec is None or not facts.audio_duration_s:
            return
        share = facts.duration_s / facts.audio_duration_s
        if share < self.min_picture_share:
            detail = f"{facts.duration_s:.2f} s of video with {facts.audio_duration_s:.2f} s of audio"
            clip.reject("still_image", detail, value=round(share, 6), limit=self.min_picture_share)


def _write_statements(clip: Clip, facts: SourceFacts) -> None:
    """Store the stated values and note where they differ from the facts; called before `_write` sets the duration."""
    platform = next((s for s in clip.stated if s.by == "platform"), None)
    if platform is None and not clip.stated:
        # The platform's metadata is untrusted: a size may be text, negative or NaN.
        width, height = (
            int(value) if isinstance(value, (int, float)) and math.isfinite(value) and value >= 1 else None
            for value in (clip.extra.get("stated_width"), clip.extra.get("stated_height"))
        )
        if clip.duration_s is not None or (width is not None and height is not None):
            platform = Statement(by="platform", duration_s=clip.duration_s, width=width, height=height)
    clip.stated = [*([platform] if platform is not None else []), *facts.stated]
    lengths = [s.duration_s for s in clip.stated if s.by in ("platform", "container") and s.duration_s is not None]
    clip.stated_duration_s = lengths[0] if lengths else None
    clip.damage = sorted(
        {*clip.damage, *(word for s in clip.stated for word in _differences(s, facts)), *_defects(facts)}
    )


def _defects(facts: SourceFacts) -> set[str]:
    counts = {
        "container_errors": facts.container_errors,
        "checksum_mismatch": facts.failed_checksums,
        "missing_frames": facts.missing_frames,
    }
    return {word for word, count in counts.items() if count}


def _differences(stated: Statement, facts: SourceFacts) -> set[str]:
    differences = set()
    if stated.duration_s is not None:
        # Containers and platforms state the duration of the longest track.
        length_s = facts.duration_s if stated.by == "video" else max(facts.extent_s, facts.duration_s)
        slack_s = max(_LENGTH_SLACK_S[stated.by], _LENGTH_SLACK * stated.duration_s)
        differences |= {"shorter_than_stated"} if length_s < stated.duration_s - slack_s else set()
        differences |= {"longer_than_stated"} if length_s > stated.duration_s + slack_s else set()
    if stated.width is not None and stated.height is not None:
        size = (facts.width, facts.height) if stated.by == "platform" else facts.decoded_size
        differences |= {"size_differs"} if size and not _same_size((stated.width, stated.height), size) else set()
    if stated.has_audio and facts.audio_codec is None:
        differences.add("audio_missing")
    return differences


def _same_size(stated: tuple[int, int], actual: tuple[int, int]) -> bool:
    """Compare sizes with tolerance: platforms crop to whole macroblocks, and some state the size before rotation."""
    return any(
        all(abs(a - b) <= max(2, _SIZE_SLACK * a) for a, b in zip(stated, size, strict=True))
        for size in (actual, actual[::-1])
    )


def _write(clip: Clip, facts: SourceFacts) -> None:
    clip.container, clip.video_codec, clip.audio_codec = facts.container, facts.video_codec, facts.audio_codec
    clip.duration_s = round(facts.duration_s, 6)
    if facts.video_codec is not None:
        clip.width, clip.height = facts.width, facts.height
        clip.fps, clip.frame_count = round(facts.fps, 6), len(facts.frame_ticks)
        clip.is_variable_fps, clip.rotation_deg, clip.is_hdr = facts.is_variable_fps, facts.rotation_deg, facts.is_hdr
    clip.has_audio = facts.audio_codec is not None
    clip.audio_start_s, clip.audio_duration_s = (
        None if seconds is None else round(seconds, 6) for seconds in (facts.audio_start_s, facts.audio_duration_s)
    )
    clip.video_tracks, clip.video_track = facts.video_tracks, facts.video_track
    clip.audio_tracks, clip.audio_track = facts.audio_tracks, facts.audio_track
    clip.audio_language, clip.clock_jumps = facts.audio_language, facts.clock_jumps
