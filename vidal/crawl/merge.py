"""Picture and sound that came apart, put into one file without coding either anew: FFmpeg under supervision."""

from __future__ import annotations

from pathlib import Path

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits

MERGED = "source"


def merge(folder: Path, video: str, audio: str, limits: Limits | None = None) -> Path:
    """Copy both streams into ``folder/source``, Matroska, which holds any pair; the two parts are removed."""
    limits = limits or Limits()
    parts, target = [folder / video, folder / audio], folder / MERGED
    options = [word for pair in input_options(limits).items() for word in (f"-{pair[0]}", pair[1])]
    inputs = [word for part in parts for word in (*options, "-i", source_name(part, folder))]
    copying = ["-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1"]
    # Bit-exact: the same parts give the same file, so that its hash stands for what came.
    bit_exact = ["-fflags", "+bitexact", "-flags", "+bitexact"]
    command = [str(find_ffmpeg()), *global_options(limits), *inputs, *copying, *bit_exact, "-f", "matroska"]
    finished = child.run([*command, source_name(target, folder)], folder, limits)
    if finished.returncode != 0:
        raise ClipError("undecodable", f"picture and sound do not go together: {finished.first_error}")
    for part in parts:
        part.unlink()
    return target
