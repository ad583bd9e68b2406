"""What a media file holds, by one demux-only pass of FFmpeg: every presentation time, one decoded picture.

The numbers come from a muxer made for machines (framecrc) and from the decoded first frame (showinfo). The log also
holds text that the file's author wrote, which may imitate any line: the filters' lines are known by a random name.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import ffmpeg

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.log_lines import CUT_SHORT, says
from vidal.media.timing import seconds

_PACKETS = "probe.packets"
_PROBE_CPU_S = 60.0
_DISCARD = 0x4  # AV_PKT_FLAG_DISCARD: outside the edit list, decoded but never shown
_HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
_NO_TIME = -(2**63)
_SINGLE_FRAME_S = Fraction(1, 25)  # length of a picture that says nothing about its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Facts about a source; times are in seconds on the file's own clock, unless they say otherwise."""

    container: str
    video_codec: str
    width: int
    """As displayed: after sample aspect ratio and rotation."""
    height: int
    time_base: Fraction
    frame_ticks: list[int]
    """Presentation time of every frame, in units of `time_base`, sorted."""
    duration_s: float
    """Length of the picture, the last frame's own included."""
    rotation_deg: int
    is_hdr: bool
    is_interlaced: bool
    colour_space: str
    """Matrix, and below primaries and transfer curve, in FFmpeg's words; ``unknown`` where the source states none."""
    colour_primaries: str
    colour_transfer: str
    is_rgb: bool
    audio_codec: str | None
    audio_start_s: float | None
    """Seconds after the picture's start; negative if the sound comes first."""
    audio_duration_s: float | None

    @property
    def start_s(self) -> float:
        return float(self.frame_ticks[0] * self.time_base)

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


@dataclass(slots=True)
class _Stream:
    """One stream of a framecrc file."""

    kind: str = ""
    codec: str = ""
    time_base: Fraction = Fraction(1)
    dimensions: tuple[int, int] = (0, 0)
    aspect: Fraction = Fraction(1)
    packets: list[tuple[int, int]] = field(default_factory=list)
    """Presentation time and duration of each packet that is shown, in units of `time_base`."""


def probe(path: Path, folder: Path, limits: Limits) -> Probe:
    """Probe ``path``, with ``folder`` as scratch; raises `ClipError` for what is no clip or beyond a limit."""
    packets, nonce = folder / _PACKETS, secrets.token_hex(8)
    try:
        done = child.run(_command(path, folder, limits, nonce), folder, limits, marks=CUT_SHORT, cpu_s=_PROBE_CPU_S)
        streams = _read_packets(packets, limits.max_frames)
    finally:
        packets.unlink(missing_ok=True)
    video = next((s for s in streams if s.kind == "video"), None)
    if video is not None:
        limits.check_size(*video.dimensions)
    _raise_for_failure(done, video, path)
    assert video is not None
    audio = next((s for s in streams if s.kind == "audio"), None)
    return _summary(_FirstFrame(done.log, nonce), video, audio, limits)


def _command(path: Path, folder: Path, limits: Limits, nonce: str) -> list[str]:
    """``V`` picks the first picture that is not cover art; the first frame and sound are decoded for their facts."""
    source = ffmpeg.input(source_name(path, folder), noautorotate=None, **input_options(limits))
    picture, sound = source["V:0"], source["a:0?"]
    exact = {"flags": "+bitexact", "fflags": "+bitexact", "map_metadata": "-1"}
    outputs = [
        ffmpeg.output(picture, sound, f"file:{_PACKETS}", f="framecrc", c="copy", copypriorss="1", **exact),
        ffmpeg.output(
            picture,
            sound,
            "-",
            f="null",
            vf=f"showinfo@{nonce}",
            af=f"ashowinfo@{nonce}",
            **{"frames:v": 1, "frames:a": 1},
        ),
    ]
    return [str(find_ffmpeg()), *global_options(limits), *ffmpeg.merge_outputs(*outputs).get_args()]


def _raise_for_failure(done: child.Finished, video: _Stream | None, path: Path) -> None:
    if any(done.counts.values()):
        raise ClipError("truncated", "the file ends before its index or its sizes say")
    if says(done.log, r"Picture size \d+x\d+ (exceeds|is invalid)"):
        raise ClipError("too_many_pixels", done.first_error)
    if says(done.log, "Stream map '.*' matches no streams"):
        raise ClipError("no_video", "no picture other than cover art")
    if says(done.log, "moov atom not found") and _starts_like_mp4(path):
        raise ClipError("truncated", "the file ends before its index (moov)")
    codec = says(done.log, r"Codec \((\w+)\) not on whitelist")
    if done.returncode != 0 and codec is not None:
        raise ClipError("unsupported_codec", codec[1])
    if done.returncode != 0:
        raise ClipError("undecodable", done.first_error)
    if video is None or not video.packets:
        raise ClipError("no_video", "the picture has no frames")


def _starts_like_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _read_packets(path: Path, max_frames: int) -> list[_Stream]:
    streams: dict[int, _Stream] = {}
    if not path.exists():
        return []
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("#"):
                _read_header(line, streams)
            else:
                _read_packet(line.split(","), streams)
            if any(len(stream.packets) > max_frames for stream in streams.values() if stream.kind == "video"):
                raise ClipError("too_many_frames", f"more than {max_frames} frames")
    return [streams[index] for index in sorted(streams)]


def _read_header(line: str, streams: dict[int, _Stream]) -> None:
    match = re.match(r"#(tb|media_type|codec_id|dimensions|sar) (\d+): (\S+)$", line)
    if match is None:
        return
    stream, value = streams.setdefault(int(match[2]), _Stream()), match[3]
    if match[1] == "tb":
        stream.time_base = Fraction(value)
    elif match[1] == "media_type":
        stream.kind = value
    elif match[1] == "codec_id":
        stream.codec = value
    elif match[1] == "dimensions":
        width, height = value.split("x")
        stream.dimensions = (int(width), int(height))
    else:
        stream.aspect = _aspect(value)


def _aspect(text: str) -> Fraction:
    """Sample aspect ratio; one that is unknown or absurd counts as square."""
    over, under = (int(part) for part in text.split("/"))
    ratio = Fraction(over, under) if over > 0 and under > 0 else Fraction(1)
    return ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)


def _read_packet(cells: list[str], streams: dict[int, _Stream]) -> None:
    """``stream, dts, pts, duration, size, crc[, F=flags]``; flags are left out of a plain key frame."""
    flags = next((int(cell.strip()[2:], 16) for cell in cells[6:] if cell.strip().startswith("F=")), 1)
    if flags & _DISCARD:
        return
    dts, pts, duration = (int(cell) for cell in cells[1:4])
    streams[int(cells[0])].packets.append((dts if pts == _NO_TIME else pts, duration))


class _FirstFrame:
    """What the log of a probe says about the first decoded picture and sound."""

    def __init__(self, log: str, nonce: str) -> None:
        own = f"[showinfo@{nonce} ", f"[ashowinfo@{nonce} "
        self.picture = "\n".join(line for line in log.splitlines() if line.startswith(own[0]))
        self.sound = "\n".join(line for line in log.splitlines() if line.startswith(own[1]))
        self.container = _first(r"^\[in#0/(\S+) @ ", log)

    @property
    def rotation_deg(self) -> int:
        """Clockwise degrees that a player turns the picture by; FFmpeg reports the angle counter-clockwise."""
        angle = _first(r"displaymatrix: rotation of (-?\d+\.\d+) degrees", self.picture)
        return -round(float(angle)) % 360 if angle else 0

    @property
    def sound_start_s(self) -> Fraction | None:
        match = re.search(r" n:0 pts:(-?\d+) .* rate:(\d+) ", self.sound)
        return Fraction(int(match[1]), int(match[2])) if match else None


def _summary(first: _FirstFrame, video: _Stream, audio: _Stream | None, limits: Limits) -> Probe:
    ticks = sorted({tick for tick, _ in video.packets})
    length = (ticks[-1] - ticks[0]) * video.time_base + _last_duration(video, ticks)
    limits.check_duration(float(length))
    limits.check_frames(len(ticks), float(length))
    width, height = _displayed(video, first.rotation_deg)
    sound_start, sound_length = _sound(first, audio, seconds(ticks[0], video.time_base))
    return Probe(
        container=first.container,
        video_codec=video.codec,
        width=width,
        height=height,
        time_base=video.time_base,
        frame_ticks=ticks,
        duration_s=float(length),
        rotation_deg=first.rotation_deg,
        is_hdr=_first(r"color_trc:(\S+)", first.picture) in _HDR_TRANSFERS,
        is_interlaced=_first(r" n: *0 .* i:([PTB]) ", first.picture) in ("T", "B"),
        colour_space=_first(r"color_space:(\S+)", first.picture),
        colour_primaries=_first(r"color_primaries:(\S+)", first.picture),
        colour_transfer=_first(r"color_trc:(\S+)", first.picture),
        is_rgb=_first(r" n: *0 .* fmt:(\S+) ", first.picture).startswith(("gbr", "rgb", "bgr", "pal8")),
        audio_codec=audio.codec if audio is not None and audio.packets else None,
        audio_start_s=sound_start,
        audio_duration_s=sound_length,
    )


def _last_duration(video: _Stream, ticks: list[int]) -> Fraction:
    own = max(video.packets)[1]
    if own > 0:
        return own * video.time_base
    steps = sorted(b - a for a, b in pairwise(ticks))
    return steps[len(steps) // 2] * video.time_base if steps else _SINGLE_FRAME_S


def _displayed(video: _Stream, rotation: int) -> tuple[int, int]:
    width, height = video.dimensions
    if video.aspect > 1:
        width = round(width * video.aspect)
    else:
        height = round(height / video.aspect)
    return (height, width) if rotation % 180 == 90 else (width, height)


def _sound(first: _FirstFrame, audio: _Stream | None, picture_start_s: float) -> tuple[float | None, float | None]:
    """Start after the picture and length; the decoded first frame knows of priming samples, the packets do not."""
    if audio is None or not audio.packets:
        return None, None
    begin = audio.packets[0][0] * audio.time_base
    if first.sound_start_s is not None:
        begin = max(begin, first.sound_start_s)
    last, duration = max(audio.packets)
    return float(begin) - picture_start_s, float((last + duration) * audio.time_base - begin)


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.M)
    return match[1] if match else ""
