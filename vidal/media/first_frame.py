"""The first picture and sound of a source, decoded for what their headers do not tell.

The facts come from filters whose lines in the log are known by a random name, and from files that FFmpeg wrote itself.
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

_PICTURE, _TAGS = "probe.first", "probe.tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFrame:
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


def first_frame(path: Path, folder: Path, limits: Limits, video: Track | None, audio: Track | None) -> FirstFrame:
    """Decode one picture and one sound; FFmpeg writes the picture's display matrix into a file's header."""
    nonce = secrets.token_hex(8)
    command = _command(source_name(path, folder), limits, video, audio, nonce)
    try:
        done = child.run(command, folder, limits, cpu_s=PROBE_CPU_S)
        raise_for_failure(done, path)
        matrix, tags = _matrix(folder / _PICTURE), _tags(folder / _TAGS)
    finally:
        for name in (_PICTURE, _TAGS):
            (folder / name).unlink(missing_ok=True)
    picture, sound = (
        "\n".join(line for line in done.log.splitlines() if line.startswith(f"[{name}@{nonce} "))
        for name in ("showinfo", "ashowinfo")
    )
    if video is not None and not picture:
        raise ClipError("undecodable", f"no frame could be decoded: {done.first_error}")
    start = re.search(r" n:0 pts:(-?\d+) .* rate:(\d+) ", sound)
    return FirstFrame(
        picture=picture,
        matrix=matrix,
        sound_start_s=Fraction(int(start[1]), int(start[2])) if start else None,
        video_tags=tags.pop(0) if video is not None and tags else {},
        audio_tags=tags.pop(0) if audio is not None and tags else {},
    )


def _command(source: str, limits: Limits, video: Track | None, audio: Track | None, nonce: str) -> list[str]:
    media = ffmpeg.input(source, noautorotate=None, **input_options(limits))
    exact = {"flags": "+bitexact", "fflags": "+bitexact", "map_metadata": "-1"}
    tagged, outputs = [], []
    if video is not None:
        tagged.append(media[f"v:{video.number}"])
        # The colours of this picture matter to nobody, and the scaler does not know every matrix.
        small = f"showinfo@{nonce},setparams=colorspace=bt470bg,scale=16:16,format=yuvj420p"
        options = {"f": "mov", "vf": small, "c:v": "mjpeg", "frames:v": 1, **exact}
        outputs.append(ffmpeg.output(tagged[-1], f"file:{_PICTURE}", **options))
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
