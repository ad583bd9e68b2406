"""What a media file holds: its tracks by one demux-only pass of FFmpeg, then the first picture and sound, decoded.

The first frame's facts come from filters whose lines in the log are known by a random name, and from the header of a
file that FFmpeg wrote itself.
"""

from __future__ import annotations

import math
import re
import secrets
import struct
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import ffmpeg

from vidal.clip import Statement
from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.splice import splice
from vidal.media.timing import seconds
from vidal.media.tracks import (
    CLOCK_MAY_JUMP,
    PROBE_CPU_S,
    Survey,
    Track,
    choose_audio,
    choose_video,
    raise_for_failure,
    survey,
)

_FIRST, _TAGS = "probe.first", "probe.tags"
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
    _check(video, audio, limits)
    first = _first_frame(path, folder, limits, video, audio)
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


def _check(video: Track | None, audio: Track | None, limits: Limits) -> None:
    if video is None:
        return
    if not video.is_decodable:
        raise ClipError("unsupported_codec", video.codec)
    limits.check_size(*video.dimensions)
    if not video.packets:
        raise ClipError("no_video", "the picture has no frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """What the first decoded picture and sound say."""

    picture: str
    """The lines that showinfo logged."""
    matrix: tuple[int, ...]
    """Display matrix, row by row."""
    sound_start_s: Fraction | None
    video_tags: dict[str, str]
    audio_tags: dict[str, str]

    @property
    def rotation_deg(self) -> int:
        """Clockwise degrees that a player turns the picture by, after mirroring it left to right where it does."""
        a, b, _, c, d = self.matrix[:5]
        if a * d - b * c < 0:
            a, b = -a, -b
        return round(math.degrees(math.atan2(b, a))) % 360

    @property
    def size(self) -> tuple[int, int] | None:
        found = re.search(r" s:(\d+)x(\d+) ", self.picture)
        return (int(found[1]), int(found[2])) if found else None


_UPRIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def _first_frame(path: Path, folder: Path, limits: Limits, video: Track | None, audio: Track | None) -> _First:
    """Decode one picture and one sound; FFmpeg writes the picture's display matrix into a file's header."""
    nonce = secrets.token_hex(8)
    command = _first_command(source_name(path, folder), limits, video, audio, nonce)
    try:
        done = child.run(command, folder, limits, cpu_s=PROBE_CPU_S)
        raise_for_failure(done, path)
        matrix, tags = _matrix(folder / _FIRST), _tags(folder / _TAGS)
    finally:
        for name in (_FIRST, _TAGS):
            (folder / name).unlink(missing_ok=True)
    picture, sound = (
        "\n".join(line for line in done.log.splitlines() if line.startswith(f"[{name}@{nonce} "))
        for name in ("showinfo", "ashowinfo")
    )
    if video is not None and not picture:
        raise ClipError("undecodable", f"no frame could be decoded: {done.first_error}")
    start = re.search(r" n:0 pts:(-?\d+) .* rate:(\d+) ", sound)
    return _First(
        picture=picture,
        matrix=matrix,
        sound_start_s=Fraction(int(start[1]), int(start[2])) if start else None,
        video_tags=tags.pop(0) if video is not None and tags else {},
        audio_tags=tags.pop(0) if audio is not None and tags else {},
    )


def _first_command(source: str, limits: Limits, video: Track | None, audio: Track | None, nonce: str) -> list[str]:
    media = ffmpeg.input(source, noautorotate=None, **input_options(limits))
    exact = {"flags": "+bitexact", "fflags": "+bitexact", "map_metadata": "-1"}
    tagged, outputs = [], []
    if video is not None:
        tagged.append(media[f"v:{video.number}"])
        small = f"showinfo@{nonce},scale=16:16,format=yuvj420p"
        options = {"f": "mov", "vf": small, "c:v": "mjpeg", "frames:v": 1, **exact}
        outputs.append(ffmpeg.output(tagged[-1], f"file:{_FIRST}", **options))
    if audio is not None:
        tagged.append(media[f"a:{audio.number}"])
    if audio is not None and audio.is_decodable:
        outputs.append(ffmpeg.output(tagged[-1], "-", f="null", af=f"ashowinfo@{nonce}", **{"frames:a": 1}))
    tags = {"f": "ffmetadata", "c": "copy", "flags": "+bitexact", "fflags": "+bitexact", "t": 0}
    outputs.append(ffmpeg.output(*tagged, f"file:{_TAGS}", **tags))
    # Sound that cannot be decoded must not cost the picture: the media stage says what becomes of it.
    prefix = [str(find_ffmpeg()), *global_options(limits), "-max_error_rate", "1"]
    return [*prefix, *ffmpeg.merge_outputs(*outputs).get_args()]


def _tags(path: Path) -> list[dict[str, str]]:
    """Tags of each track, with keys in lower case; FFmpeg escapes line ends and whatever means something here."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    sections = re.split(r"^\[(?:STREAM|CHAPTER)\]$", re.sub(r"\\\n", " ", text), flags=re.M)[1:]
    pairs = ((line.partition("=") for line in section.splitlines()) for section in sections)
    return [{key.lower(): value for key, _, value in lines} for lines in pairs]


def _matrix(path: Path) -> tuple[int, ...]:
    """The matrix of the track header (``tkhd``) of a file that FFmpeg has just written."""
    data = path.read_bytes() if path.exists() else b""
    at = data.rfind(b"tkhd") + len("tkhd")
    if at < len("tkhd"):
        return _UPRIGHT
    # Version and flags, then times, track and length of 20 or 32 bytes, then 16 bytes of layer and volume.
    at += 4 + (32 if data[at] else 20) + 16
    return struct.unpack(">9i", data[at : at + 36])


def _summary(
    path: Path, source: Survey, found: Survey, first: _First, video: Track | None, audio: Track | None,
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
        stated=(_container_states(source), *([_video_states(video, first.video_tags)] if video is not None else ())),
        decoded_size=first.size,
    )


def _sound(first: _First, audio: Track | None) -> tuple[float | None, float | None]:
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


def _container_states(source: Survey) -> Statement:
    return Statement(by="container", duration_s=source.stated_s, has_audio=bool(source.of("audio")))


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
