"""Finds the cuts of a video, and divides it at them into segments of a bounded length."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import ffmpeg
import numpy as np
import numpy.typing as npt

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts
from vidal.media.timing import seconds

Frame = npt.NDArray[np.uint8]
FindCuts = Callable[[Iterator[Frame]], Iterable[int]]
"""Takes frames, RGB ``(height, width, 3)``, and returns the indices of those that begin a new scene."""

_SMALL, _TIMES = "scenes.mp4", "scenes.times"
_LONG_SIDE = 256


def cuts_s(facts: SourceFacts, folder: Path, limits: Limits, find: FindCuts) -> list[float]:
    """Return the times of the first frame of each scene but the first, in seconds after the first frame of the source.

    The frames are scaled to at most 256 pixels. Raises `ClipError` if they cannot be decoded.
    """
    media = ffmpeg.input(source_name(facts.path, folder), **input_options(limits))
    # Even sides, for x264.
    size = {"w": f"2*ceil(min(1,{_LONG_SIDE}/max(iw,ih))*iw/2)", "h": f"2*ceil(min(1,{_LONG_SIDE}/max(iw,ih))*ih/2)"}
    video = media[f"v:{facts.video_track}"].filter("scale", flags="area+accurate_rnd+bitexact", **size)
    output = ffmpeg.output(
        video, f"file:{_SMALL}", f="mp4", pix_fmt="yuv420p", preset="ultrafast", crf=10, fps_mode="passthrough",
        map_metadata="-1", map_chapters="-1", flags="+bitexact", fflags="+bitexact",
        **{
            "c:v": "libx264", "threads:v": 1, "enc_time_base:v": "demux",
            "stats_enc_pre:v": _TIMES, "stats_enc_pre_fmt:v": "{pts} {tb}",
        },
    )  # fmt: skip
    command = [str(find_ffmpeg()), *global_options(limits), "-max_error_rate", "1", *output.get_args()]
    try:
        finished = child.run(command, folder, limits)
        if finished.returncode != 0:
            raise ClipError("undecodable", finished.first_error)
        ticks = [int(line.split()[0]) for line in (folder / _TIMES).read_text(encoding="ascii").splitlines()]
        indices = sorted({index for index in find(_frames(folder / _SMALL)) if 0 < index < len(ticks)})
    finally:
        for name in (_SMALL, _TIMES):
            (folder / name).unlink(missing_ok=True)
    # The clock of the frames that were decoded is that of the file, as `-copyts` says.
    return [seconds(ticks[index] - facts.frame_ticks[0], facts.time_base) for index in indices]


def _frames(path: Path) -> Iterator[Frame]:
    # A file that FFmpeg has just written: nothing of the author's but the pixels.
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            is_there, frame = video.read()
            if not is_there:
                return
            yield np.asarray(frame[..., ::-1], dtype=np.uint8)
    finally:
        video.release()


def segment_bounds(
    times_s: Sequence[float], cuts: Sequence[float], duration_s: float, *, max_s: float, min_s: float
) -> list[float]:
    """Return where segments begin, and the end of the last: ``[0, …, duration_s]``, all but the last times of frames.

    A scene of more than ``max_s`` is divided evenly. Then segments of less than ``min_s`` are joined to the shorter
    neighbour, as long as both fit into ``max_s``. No part of the video is left out: one that stays short is for the
    filters to reject.
    """
    bounds = [0.0]
    for start_s, end_s in pairwise([0.0, *cuts, duration_s]):
        # Less a rounding error, by which a scene of twice `max_s` would get a third part.
        parts = math.ceil((end_s - start_s) / max_s - 1e-9)
        wanted = [start_s + (end_s - start_s) * part / parts for part in range(1, parts)]
        # The frame before, so that no part is longer than wanted.
        bounds += [times_s[max(0, bisect_left(times_s, time_s + 1e-6) - 1)] for time_s in wanted] + [end_s]
    while len(bounds) > 2:
        lengths = [end_s - start_s for start_s, end_s in pairwise(bounds)]
        joined = [
            (lengths[k - 1] + lengths[k], k) for k in range(1, len(lengths)) if min(lengths[k - 1 : k + 1]) < min_s
        ]
        shortest = min(joined, default=(math.inf, 0))
        if shortest[0] > max_s + 1e-6:
            break
        del bounds[shortest[1]]
    return bounds
