"""What stages that make one picture of each colour frame share: batches of frames, and how steady the result is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

_STILL_LEVELS = 8.0
"""A pixel stands still if its colour changes by less than this, in levels of 255."""
_LEAST_STILL_SHARE = 0.01


def for_each_frame(
    frames: Sequence[Sequence[Picture]],
    make: Callable[[list[Picture]], list[Any]],
    *,
    batch_frames: int,
    mix_clips: bool,
) -> list[list[Any]]:
    """What ``make`` gives for each frame of each clip, called with up to ``batch_frames`` frames of one size.

    Arithmetic differs in its last bits with the size of a batch. Unless ``mix_clips``, no batch holds frames of two
    clips, so that a clip's bytes do not depend on its neighbours.
    """
    groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for clip, clip_frames in enumerate(frames):
        for number, frame in enumerate(clip_frames):
            groups.setdefault((None if mix_clips else clip, frame.shape), []).append((clip, number))
    made: list[list[Any]] = [[None] * len(clip_frames) for clip_frames in frames]
    for places in groups.values():
        for first in range(0, len(places), batch_frames):
            batch = places[first : first + batch_frames]
            results = make([frames[clip][number] for clip, number in batch])
            for (clip, number), result in zip(batch, results, strict=True):
                made[clip][number] = result
    return made


def flicker(colour: Sequence[Picture], made: Sequence[npt.NDArray[Any]], full_range: float) -> float | None:
    """Mean change of ``made`` from frame to frame where the colour stands still, as a share of ``full_range``.

    None if nothing stands still.
    """
    changed = pixels = total = 0.0
    for frame, following, a, b in zip(colour, colour[1:], made, made[1:], strict=False):
        still = np.abs(frame.astype(np.int16) - following.astype(np.int16)).mean(axis=2) < _STILL_LEVELS
        changed += float(np.abs(a[still].astype(np.float64) - b[still].astype(np.float64)).sum())
        pixels += int(still.sum())
        total += still.size
    if total == 0 or pixels / total < _LEAST_STILL_SHARE:
        return None
    return round(changed / pixels / full_range, 5)
