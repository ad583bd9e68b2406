"""What a media file holds: its tracks by a demux-only pass of FFmpeg, then its first picture and sound, decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from vidal.clip import Statement
from vidal.errors import ClipError
from vidal.media.first_frame import FirstFrame, first_frame
from vidal.media.headers import container_states
from vidal.media.limits import Limits
from vidal.media.splice import splice
from vidal.media.timing import seconds
from vidal.media.tracks import (
    CLOCK_MAY_JUMP,
    Survey,
    Track,
    choose_audio,
    choose_video,
    survey,
)

_HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
_SINGLE_FRAME_S = Fraction(1, 25)  # length of a picture that says nothing about its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Facts about a source; times are in seconds on the file's own clock, unless they say otherwise.

    A source of sound alone has no video track: its codec is None, its size 0x0, and it has no frames.
    """

    path: Path
    """The file to decode: the source, or where its clock jumps, a copy in the clip's folder whose clock runs on."""
    container: str
    video_codec: str | None
    video_track: int | None
    """Number of the track that is the clip, among the video tracks: FFmpeg's ``v:0``."""
    video_tracks: int
    width: int
    """As displayed: after sample aspect ratio and rotation."""
    height: int
    time_base: Fraction
    frame_ticks: list[int]
    """Presentation time of every frame, in units of `time_base`, sorted."""
    start_s: float
    """When the picture starts; without one, the sound."""
    duration_s: float
    """Length of the picture, the last frame's own included; without one, of the sound."""
    rotation_deg: int
    is_hdr: bool
    is_interlaced: bool
    colour_space: str
    """Matrix, and below primaries and transfer curve, in FFmpeg's words; ``unknown`` where the source states none."""
    colour_primaries: str
    colour_transfer: str
    is_rgb: bool
    audio_codec: str | None
    audio_track: int | None
    """Number of the audio track that is the clip's, among the audio tracks: FFmpeg's ``a:0``."""
    audio_tracks: int
    audio_language: str | None
    audio_start_s: float | None
    """Seconds after the picture's start; negative if the sound comes first."""
    audio_duration_s: float | None
    clock_jumps: int
    """Jumps and restarts of the source's clock; `path` has none."""
    extent_s: float
    """From the first packet of any track to the end of the last."""
    stated: tuple[Statement, ...]
    """What the headers of the container and of the video track say, whatever was found."""
    decoded_size: tuple[int, int] | None
    """Size of the first picture as decoded, to hold against the header's."""

    @property
    def times_s(self) -> list[float]:
        """Presentation times in seconds after the picture's start."""
        return [seconds(tick - self.frame_ticks[0], self.time_base) for tick in self.frame_ticks]

    @property
    def fps(self) -> float:
        return len(self.frame_ticks) / self.duration_s

    @property
    def is_variable_fps(self) -> bool:
        """Whether frame intervals differ by more than the rounding of a coarse time base."""
        steps = sorted(b - a for a, b in pairwise(self.frame_ticks))
        return bool(steps) and steps[-1] - steps[0] > max(2, 0.05 * steps[len(steps) // 2])


def probe(path: Path, folder: Path, limits: Limits) -> Probe:
    """Probe ``path``, with ``folder`` as scratch; raises `ClipError` for what is no clip or beyond a limit."""
    source = survey(path, folder, limits)
    found, jumps = source, _clock_jumps(source)
    if jumps:
        path = _mend_clock(path, source, folder, limits)
        found = survey(path, folder, limits)
        if _clock_jumps(found):
            raise ClipError("broken_clock", f"{jumps} jumps of the clock, which cannot be closed")
    video, audio = _chosen(source)
    # The copy has the same tracks, but not their flags.
    video, audio = video and found.of("video")[video.number], audio and found.of("audio")[audio.number]
    _check(video, found, limits)
    first = first_frame(path, folder, limits, video, audio)
    return _summary(path, source, found, first, video, audio, jumps, limits)


def _chosen(found: Survey) -> tuple[Track | None, Track | None]:
    """The tracks that are the clip; cover art beside sound is none of it."""
    audio = choose_audio(found.of("audio"))
    if audio is not None and not audio.packets:
        audio = None
    video = choose_video(found.of("video"))
    if video is not None and video.is_cover:
        video = None
    if video is None and audio is None:
        raise ClipError("no_video", "neither sound nor a picture other than cover art")
    return video, audio


def _clock_jumps(found: Survey) -> int:
    tracks = [track for track in _chosen(found) if track is not None]
    leaps_count = found.container in CLOCK_MAY_JUMP
    return max(track.restarts + (track.leaps if leaps_count else 0) for track in tracks)


def _mend_clock(path: Path, found: Survey, folder: Path, limits: Limits) -> Path:
    if found.container not in CLOCK_MAY_JUMP:
        raise ClipError("broken_clock", f"the clock goes back, which it never may in {found.container}")
    return splice(path, folder, limits)


def _check(video: Track | None, found: Survey, limits: Limits) -> None:
    if video is None:
        return
    if not video.is_decodable:
        raise ClipError("unsupported_codec", video.codec)
    if not video.packets and found.video_packets:
        raise ClipError("undecodable", "no key frame")
    if not video.packets:
        raise ClipError("no_video", "the picture has no frames")
    if 0 in video.dimensions:
        raise ClipError("undecodable", "nothing says how large the picture is")
    limits.check_size(*video.dimensions)


def _summary(
    path: Path, source: Survey, found: Survey, first: FirstFrame, video: Track | None, audio: Track | None,
    jumps: int, limits: Limits,
) -> Probe:  # fmt: skip
    ticks = sorted({tick for tick, _ in video.packets}) if video is not None else []
    begin_s, length_s = _sound(first, audio)
    start_s, duration_s = begin_s or 0.0, length_s or 0.0
    if video is not None:
        start_s = seconds(ticks[0], video.time_base)
        duration_s = float((ticks[-1] - ticks[0]) * video.time_base + _last_duration(video, ticks))
        limits.check_frames(len(ticks), duration_s)
    limits.check_duration(duration_s)
    if len(ticks) == 1:
        raise ClipError("still_image", "a single picture" + (" with sound" if audio is not None else ""))
    width, height = _displayed(video, first.rotation_deg) if video is not None else (0, 0)
    return Probe(
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
        is_hdr=_first(r"color_trc:(\S+)", first.picture) in _HDR_TRANSFERS,
        is_interlaced=_first(r" n: *0 .* i:([PTB]) ", first.picture) in ("T", "B"),
        colour_space=_first(r"color_space:(\S+)", first.picture),
        colour_primaries=_first(r"color_primaries:(\S+)", first.picture),
        colour_transfer=_first(r"color_trc:(\S+)", first.picture),
        is_rgb=_first(r" n: *0 .* fmt:(\S+) ", first.picture).startswith(("gbr", "rgb", "bgr", "pal8")),
        audio_codec=audio.codec if audio is not None else None,
        audio_track=audio.number if audio is not None else None,
        audio_tracks=len(source.of("audio")),
        audio_language=_language(first.audio_tags),
        audio_start_s=begin_s - start_s if begin_s is not None else None,
        audio_duration_s=length_s,
        clock_jumps=jumps,
        extent_s=found.length_s,
        stated=(
            container_states(path, source.stated_s, bool(source.of("audio"))),
            *([_video_states(video, first.video_tags)] if video is not None else ()),
        ),
        decoded_size=first.size,
    )


def _sound(first: FirstFrame, audio: Track | None) -> tuple[float | None, float | None]:
    """Start and length; the decoded first frame knows of priming samples, the packets do not."""
    if audio is None:
        return None, None
    begin = audio.packets[0][0] * audio.time_base
    if first.sound_start_s is not None:
        begin = max(begin, first.sound_start_s)
    last, duration = max(audio.packets)
    return float(begin), float((last + duration) * audio.time_base - begin)


def _language(tags: dict[str, str]) -> str | None:
    tag = tags.get("language", "")
    return tag if tag != "und" and re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}", tag) else None


def _video_states(video: Track, tags: dict[str, str]) -> Statement:
    """Matroska's statistics tags are the only ones that FFmpeg hands on."""
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
    steps = sorted(b - a for a, b in pairwise(ticks))
    return steps[len(steps) // 2] * video.time_base if steps else _SINGLE_FRAME_S


def _displayed(video: Track, rotation: int) -> tuple[int, int]:
    width, height = video.dimensions
    if video.aspect > 1:
        width = round(width * video.aspect)
    else:
        height = round(height / video.aspect)
    return (height, width) if rotation % 180 == 90 else (width, height)


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.M)
    return match[1] if match else ""
