"""Muxes video and audio that were downloaded separately into one file, without transcoding."""

from __future__ import annotations

from pathlib import Path

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits

MERGED = "source"


def merge(folder: Path, video: str, audio: str, limits: Limits | None = None) -> Path:
    """Copy both streams into ``folder/source`` and remove the two parts; Matroska can hold any pair of codecs.

    Raises `ClipError` where FFmpeg cannot read them.
    """
    limits = limits or Limits()
    parts, target = [folder / video, folder / audio], folder / MERGED
    options = [word for pair in input_options(limits).items() for word in (f"-{pair[0]}", pair[1])]
    inputs = [word for part in parts for word in (*options, "-i", source_name(part, folder))]
    copying = ["-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1"]
    # Bit-exact: the same parts give the same file.
    bit_exact = ["-fflags", "+bitexact", "-flags", "+bitexact"]
    command = [str(find_ffmpeg()), *global_options(limits), *inputs, *copying, *bit_exact, "-f", "matroska"]
    finished = child.run([*command, source_name(target, folder)], folder, limits)
    if finished.returncode != 0:
        raise ClipError("undecodable", f"video and audio cannot be muxed: {finished.first_error}")
    for part in parts:
        part.unlink()
    return target
