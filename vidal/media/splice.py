"""Makes timestamps that restart or jump continuous, without re-encoding."""

from __future__ import annotations

from pathlib import Path

import ffmpeg

from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.tracks import PROBE_CPU_S, raise_for_failure

# What is spliced is MPEG-TS or MPEG-PS, whose streams MPEG-TS can hold.
_SPLICED = "spliced.ts"


def splice(path: Path, folder: Path, limits: Limits) -> Path:
    """Copy every track of ``path`` to a file in ``folder`` with continuous timestamps, and return its path.

    FFmpeg closes the jumps, as it does by default (without ``-copyts``). Raises `ClipError` if it cannot read the file.
    """
    source = ffmpeg.input(source_name(path, folder), **input_options(limits))
    # By default FFmpeg's MPEG-TS starts with a delay, which would move every timestamp of the copy.
    output = ffmpeg.output(
        source["v?"], source["a?"], f"file:{_SPLICED}", f="mpegts", c="copy",
        muxdelay=0, muxpreload=0, flags="+bitexact", fflags="+bitexact",
    )  # fmt: skip
    options = [option for option in global_options(limits) if option != "-copyts"]
    finished = child.run([str(find_ffmpeg()), *options, *output.get_args()], folder, limits, cpu_s=PROBE_CPU_S)
    raise_for_failure(finished, path)
    return folder / _SPLICED
