"""Describes a media file by its tracks, from a demux-only pass of FFmpeg, and its first decoded frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from vidal.clip import Statement
from vidal.errors import ClipError
from vidal.media.checksums import failed_checksums
from vidal.media.first_frame import FirstFrame, first_frame
from vidal.media.headers import container_states
from vidal.media.limits import Limits
from vidal.media.splice import splice
from vidal.media.timing import seconds
from vidal.media.tracks import CLOCK_MAY_JUMP, Survey, Track, choose_audio, choose_video, survey

# A tag is any text of the author's; only what has the form of a language tag (BCP 47) is kept.
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}")
# PQ and HLG, in FFmpeg's naming.
_HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
_MAX_GAP_SHARE = 0.1
_SINGLE_FRAME_S = Fraction(1, 25)  # duration of a single frame whose duration is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Properties of a source; times are in seconds and in timestamps of the file, unless stated otherwise.

    An audio-only source has no video codec and no frames, and its size is 0x0.
    """

    path: Path
    """The file to decode: the source or, if its timestamps jump, a copy with continuous ones in the clip's folder."""
    container: str
    video_codec: str | None
    video_track: int | None
    """Index of the clip's track among the video tracks, as in FFmpeg's ``v:0``."""
    video_tracks: int
    width: int
    """Displayed width in pixels: after sample aspect ratio and rotation."""
    height: int
    """Displayed height in pixels."""
    time_base: Fraction
    frame_ticks: list[int]
    """Presentation time of every frame, in units of `time_base`, sorted."""
    start_s: float
    """Start of the video; of the audio if there is no video."""
    duration_s: float
    """Duration of the video, including that of the last frame; of the audio if there is no video."""
    rotation_deg: int
    is_hdr: bool
    is_interlaced: bool
    colour_space: str
    """Matrix in FFmpeg's naming, as the primaries and transfer curve below; ``unknown`` if the source has no tag."""
    colour_primaries: str
    colour_transfer: str
    is_rgb: bool
    audio_codec: str | None
    audio_track: int | None
    """Index of the clip's track among the audio tracks, as in FFmpeg's ``a:0``."""
    audio_tracks: int
    audio_language: str | None
    audio_start_s: float | None
    """Seconds after the start of the video; negative if the audio starts first."""
    audio_duration_s: float | None
    clock_jumps: int
    """Timestamp discontinuities of the source; `path` has none."""
    extent_s: float
    """Time from the first packet of any track to the end of the last."""
    stated: tuple[Statement, ...]
    """Statements of the headers of the container and of the video track, which may be wrong."""
    decoded_size: tuple[int, int] | None
    """Width and height of the first decoded frame, for comparison with the header."""
    container_errors: int
    """Number of errors that FFmpeg's demuxer reported."""
    failed_checksums: int
    """Number of the container's own checksums that do not match; only Matroska files have any."""

    @property
    def times_s(self) -> list[float]:
        """Presentation times in seconds after the first frame."""
        return [seconds(tick - self.frame_ticks[0], self.time_base) for tick in self.frame_ticks]

    @property
    def fps(self) -> float:
        """Average number of frames per second."""
        return len(self.frame_ticks) / self.duration_s

    @property
    def is_variable_fps(self) -> bool:
        """Whether frame intervals differ by more than the rounding of a coarse time base."""
        steps = sorted(b - a for a, b in pairwise(self.frame_ticks))
        return bool(steps) and steps[-1] - steps[0] > max(2, 0.05 * steps[len(steps) // 2])

    @property
    def missing_frames(self) -> int:
        """Number of frames by which an otherwise constant frame rate falls short.

        0 if more than a tenth of the intervals are longer than the others: such a rate is variable by intent.
        """
        steps = [b - a for a, b in pairwise(self.frame_ticks)]
        usual = sorted(steps)[len(steps) // 2] if steps else 0
        slack = max(2, 0.05 * usual)
        gaps = [step for step in steps if abs(step - usual) > slack]
        if len(gaps) > _MAX_GAP_SHARE * len(steps):
            return 0
        # A gap of lost frames is a multiple of the interval, but for the rounding of each time.
        lost = [round(gap / usual) - 1 if usual else 0 for gap in gaps]
        is_whole = all(k > 0 and abs(gap - (k + 1) * usual) <= slack * k for gap, k in zip(gaps, lost, strict=True))
        return sum(lost) if is_whole else 0


def probe(path: Path, folder: Path, limits: Limits) -> SourceFacts:
    """Probe the file ``path``, with ``folder`` as scratch space.

    Raises `ClipError` if the file is not a video or audio clip, is damaged or exceeds ``limits``.
    """
    source = survey(path, folder, limits)
    readable, jumps = source, _clock_jumps(source)
    if jumps:
        if source.container not in CLOCK_MAY_JUMP:
            raise ClipError("broken_clock", f"timestamps go backwards, which is invalid in {source.container}")
        path = splice(path, folder, limits)
        readable = survey(path, folder, limits)
        if _clock_jumps(readable):
            raise ClipError("broken_clock", f"{jumps} timestamp discontinuities that cannot be removed")
    video, audio = _choose(source)
    # The copy has the same tracks, but not their flags.
    video, audio = video and readable.of("video")[video.number], audio and readable.of("audio")[audio.number]
    if video is not None:
        if not video.is_decodable:
            raise ClipError("unsupported_codec", video.codec)
        if not video.packets and readable.video_packets:
            raise ClipError("undecodable", "no key frame")
        if not video.packets:
            raise ClipError("no_video", "the video has no frames")
        if 0 in video.dimensions:
            raise ClipError("undecodable", "the frame size is unknown")
        # Before a frame is decoded, as its size decides what that costs.
        limits.check_size(*video.dimensions)
    first = first_frame(path, folder, limits, video, audio)
    return _summary(path, source, readable, first, video, audio, jumps, limits)


def _choose(survey: Survey) -> tuple[Track | None, Track | None]:
    """Select the video and audio track of the clip; cover art of an audio file does not count as video."""
    audio, video = choose_audio(survey.of("audio")), choose_video(survey.of("video"))
    audio = audio if audio is not None and audio.packets else None
    video = video if video is not None and not video.is_cover else None
    if video is None and audio is None:
        raise ClipError("no_video", "neither audio nor video other than cover art")
    return video, audio


def _clock_jumps(survey: Survey) -> int:
    leaps_count = survey.container in CLOCK_MAY_JUMP

    return max(track.restarts + (track.leaps if leaps_count else 0) for track in _choose(survey) if track is not None)


def _summary(
    path: Path, source: Survey, readable: Survey, first: FirstFrame, video: Track | None, audio: Track | None,
    jumps: int, limits: Limits,
) -> SourceFacts:  # fmt: skip
    ticks = sorted({tick for tick, _ in video.packets}) if video is not None else []
    begin_s, length_s = _audio_span(first, audio) if audio is not None else (None, None)
    start_s, duration_s, width, height = begin_s or 0.0, length_s or 0.0, 0, 0
    if video is not None:
        start_s = seconds(ticks[0], video.time_base)
        duration_s = float((ticks[-1] - ticks[0]) * video.time_base + _last_duration(video, ticks))
        limits.check_frames(len(ticks), duration_s)
        width, height = _displayed(video, first.rotation_deg)
    limits.check_duration(duration_s)
    if len(ticks) == 1:
        raise ClipError("still_image", "a single frame" + (" with audio" if audio is not None else ""))
    language = first.audio_tags.get("language", "")
    return SourceFacts(
        path=path,
        container=source.container,
        video_codec=video.codec if video is not None else None,
        video_track=video.number if video is not None else None,
        video_tracks=len(source.of("video")),
        width=width,
        height=height,
        time_base=video.time_base if video is not None else Fraction(1),
        frame_ticks=ticks,
        start_s=start_s,
        duration_s=duration_s,
        rotation_deg=first.rotation_deg,
        is_hdr=colour_tag("trc", first.showinfo) in _HDR_TRANSFERS,
        is_interlaced=_first(r" n: *0 .* i:([PTB]) ", first.showinfo) in ("T", "B"),
        colour_space=colour_tag("space", first.showinfo),
        colour_primaries=colour_tag("primaries", first.showinfo),
        colour_transfer=colour_tag("trc", first.showinfo),
        is_rgb=_first(r" n: *0 .* fmt:(\S+) ", first.showinfo).startswith(("gbr", "rgb", "bgr", "pal8")),
        audio_codec=audio.codec if audio is not None else None,
        audio_track=audio.number if audio is not None else None,
        audio_tracks=len(source.of("audio")),
        # `und` is how MP4 writes that no language is stated.
        audio_language=language if language != "und" and _LANGUAGE.fullmatch(language) else None,
        audio_start_s=begin_s - start_s if begin_s is not None else None,
        audio_duration_s=length_s,
        clock_jumps=jumps,
        extent_s=readable.length_s,
        stated=(
            container_states(path, source.stated_s, bool(source.of("audio"))),
            *([_video_states(video, first.video_tags)] if video is not None else ()),
        ),
        decoded_size=first.size,
        container_errors=source.errors,
        failed_checksums=failed_checksums(path) if source.container.startswith("matroska") else 0,
    )


def _audio_span(first: FirstFrame, audio: Track) -> tuple[float, float]:
    """Return start and duration in seconds; the first decoded frame excludes priming samples, the packets do not."""
    begin = audio.packets[0][0] * audio.time_base
    if first.audio_start_s is not None:
        begin = max(begin, first.audio_start_s)
    last, duration = max(audio.packets)
    return float(begin), float((last + duration) * audio.time_base - begin)


def _video_states(video: Track, tags: dict[str, str]) -> Statement:
    """Return what the track header states; FFmpeg passes on duration and frame count for Matroska only."""
    length = re.match(r"(\d{2,3}):(\d\d):(\d\d\.\d{1,9})$", tags.get("duration", ""))
    count = re.match(r"\d{1,9}$", tags.get("number_of_frames", ""))
    return Statement(
        by="video",
        duration_s=int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]) if length else None,
        width=video.dimensions[0],
        height=video.dimensions[1],
        frame_count=int(count[0]) if count else None,
    )


def _last_duration(video: Track, ticks: list[int]) -> Fraction:
    own = max(video.packets)[1]
    if own > 0:
        return own * video.time_base
    # The median of the others: one long pause does not change it.
    steps = sorted(b - a for a, b in pairwise(ticks))
    return steps[len(steps) // 2] * video.time_base if steps else _SINGLE_FRAME_S


def _displayed(video: Track, rotation: int) -> tuple[int, int]:
    width, height = video.dimensions
    # Enlarged along one side, never reduced along the other, so that no stored pixel is lost.
    if video.aspect > 1:
        width = round(width * video.aspect)
    else:
        height = round(height / video.aspect)
    return (height, width) if rotation % 180 == 90 else (width, height)


# In the order of their numbers in H.273.
COLOUR_NAMES = {
    "space": (
        "gbr", "bt709", "unknown", "reserved", "fcc", "bt470bg", "smpte170m", "smpte240m", "ycgco", "bt2020nc",
        "bt2020c", "smpte2085", "chroma-derived-nc", "chroma-derived-c", "ictcp", "ipt-c2", "ycgco-re", "ycgco-ro",
    ),
    "primaries": (
        "reserved", "bt709", "unknown", "bt470m", "bt470bg", "smpte170m", "smpte240m", "film", "bt2020", "smpte428",
        "smpte431", "smpte432", "jedec-p22", "ebu3213", "vgamut",
    ),
    "trc": (
        "reserved", "bt709", "unknown", "bt470m", "bt470bg", "smpte170m", "smpte240m", "linear", "log100", "log316",
        "iec61966-2-4", "bt1361e", "iec61966-2-1", "bt2020-10", "bt2020-12", "smpte2084", "smpte428", "arib-std-b67",
        "vlog",
    ),
}  # fmt: skip
"""FFmpeg's names of colour properties."""


def colour_tag(kind: str, showinfo: str) -> str:
    """Return FFmpeg's name of a colour property (``space``, ``primaries`` or ``trc``) from a line of ``showinfo``.

    FFmpeg logs the line in pieces, so the words of another thread may follow a name without a space: "bt709n:0".
    """
    text = _first(rf"color_{kind}:([a-z0-9-]+)", showinfo)
    return max((name for name in COLOUR_NAMES[kind] if text.startswith(name)), key=len, default=text)


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.M)
    return match[1] if match else ""
