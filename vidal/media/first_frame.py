"""Decodes the first video and audio frame of a source, for properties that the headers do not state.

They are read from log lines of a filter with a random name and from files that FFmpeg wrote itself, none of which the
author of the source can forge.
"""

from __future__ import annotations

import math
import re
import secrets
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.tracks import PROBE_CPU_S, Track, raise_for_failure

_FRAME, _AUDIO, _TAGS = "probe.first", "probe.audio", "probe.tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFrame:
    """Properties of the first decoded video and audio frame."""

    showinfo: str
    """The log lines of the ``showinfo`` filter; empty without video."""
    matrix: tuple[int, ...]
    """The 3x3 display matrix, row by row."""
    audio_start_s: Fraction | None
    """Timestamp of the first decoded audio sample, in seconds."""
    video_tags: dict[str, str]
    audio_tags: dict[str, str]
    """Metadata of the track, with keys in lower case."""

    @property
    def rotation_deg(self) -> int:
        """Degrees by which a player rotates the frame clockwise, after mirroring it horizontally if it does."""
        a, b, _, c, d = self.matrix[:5]
        # A negative determinant mirrors the frame; without the mirroring, what remains is a rotation.
        if a * d - b * c < 0:
            a, b = -a, -b
        return round(math.degrees(math.atan2(b, a))) % 360

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the decoded frame in pixels, or None without video."""
        match = re.search(r" s:(\d+)x(\d+) ", self.showinfo)
        return (int(match[1]), int(match[2])) if match else None


_UPRIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def first_frame(path: Path, folder: Path, limits: Limits, video: Track | None, audio: Track | None) -> FirstFrame:
    """Decode one frame of each of the given tracks, with ``folder`` as scratch space.

    Raises `ClipError` if the video frame cannot be decoded; audio that cannot be decoded is tolerated.
    """
    nonce = secrets.token_hex(8)
    command = _command(source_name(path, folder), limits, video, audio, nonce)
    try:
        finished = child.run(command, folder, limits, cpu_s=PROBE_CPU_S)
        raise_for_failure(finished, path)
        matrix = _matrix(folder / _FRAME)
        samples, text = _text(folder / _AUDIO), _text(folder / _TAGS)
    finally:
        for name in (_FRAME, _AUDIO, _TAGS):
            (folder / name).unlink(missing_ok=True)
    showinfo = "\n".join(line for line in finished.log.splitlines() if line.startswith(f"[showinfo@{nonce} "))
    if video is not None and not showinfo:
        raise ClipError("undecodable", f"no frame could be decoded: {finished.first_error}")
    base = re.search(r"^#tb 0: (\d+)/(\d+)$", samples, re.M)
    start = re.search(r"^0, *-?\d+, *(-?\d+),", samples, re.M)
    # FFmpeg escapes line ends and special characters of a value, so a line begins a section or a tag of its own.
    sections = re.split(r"^\[(?:STREAM|CHAPTER)\]$", re.sub(r"\\\n", " ", text), flags=re.M)[1:]
    pairs = ((line.partition("=") for line in section.splitlines()) for section in sections)
    tags = [{key.lower(): value for key, _, value in lines} for lines in pairs]
    return FirstFrame(
        showinfo=showinfo,
        matrix=matrix,
        audio_start_s=int(start[1]) * Fraction(int(base[1]), int(base[2])) if start and base else None,
        video_tags=tags.pop(0) if video is not None and tags else {},
        audio_tags=tags.pop(0) if audio is not None and tags else {},
    )


def _command(source: str, limits: Limits, video: Track | None, audio: Track | None, nonce: str) -> list[str]:
    # FFmpeg would turn the frame itself otherwise, and write no matrix.
    media = ffmpeg.input(source, noautorotate=None, **input_options(limits))
    exact = {"flags": "+bitexact", "fflags": "+bitexact", "map_metadata": "-1"}
    tagged, outputs = [], []
    if video is not None:
        tagged.append(media[f"v:{video.number}"])
        # The colours of this frame are not used, and the scaler does not support every matrix.
        small = f"showinfo@{nonce},setparams=colorspace=bt470bg,scale=16:16,format=yuvj420p"
        options = {"f": "mov", "vf": small, "c:v": "mjpeg", "frames:v": 1, **exact}
        outputs.append(ffmpeg.output(tagged[-1], f"file:{_FRAME}", **options))
    if audio is not None:
        tagged.append(media[f"a:{audio.number}"])
    if audio is not None and audio.is_decodable:
        # To a file: a second filter that logs would write into the lines of the first.
        outputs.append(ffmpeg.output(tagged[-1], f"file:{_AUDIO}", f="framecrc", **{"frames:a": 1}))
    # Of no duration: tags are in the headers, and no packet has to be read for them.
    tags = {"f": "ffmetadata", "c": "copy", "flags": "+bitexact", "fflags": "+bitexact", "t": 0}
    outputs.append(ffmpeg.output(*tagged, f"file:{_TAGS}", **tags))
    # Undecodable audio must not fail the probe: the media stage decides about it.
    prefix = [str(find_ffmpeg()), *global_options(limits), "-max_error_rate", "1"]
    return [*prefix, *ffmpeg.merge_outputs(*outputs).get_args()]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _matrix(path: Path) -> tuple[int, ...]:
    """Read the display matrix from the track header (``tkhd``) of the MOV file that FFmpeg has just written."""
    data = path.read_bytes() if path.exists() else b""
    # From the end: the header is written behind the frame, whose bytes are the author's and could spell the name.
    at = data.rfind(b"tkhd") + len("tkhd")
    if at < len("tkhd"):
        return _UPRIGHT
    # 4 bytes of version and flags, 20 or 32 of times, track id and duration, then 16 of layer and volume.
    at += 4 + (32 if data[at] else 20) + 16
    return struct.unpack(">9i", data[at : at + 36])
