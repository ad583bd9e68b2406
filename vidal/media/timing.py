"""Selects the frames of a clip to keep and to store, from their presentation times alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

# Keeps a time on the boundary of two slots from falling into the earlier one by rounding.
_SLACK = 0.001

_ROUNDING_S = 1e-6


def seconds(ticks: int, time_base: Fraction) -> float:
    """Convert ticks to seconds; equal times give the same float in every time base."""
    return float(ticks * time_base)


def keeps_every_frame(times_s: Sequence[float], duration_s: float, max_fps: float) -> bool:
    """Return whether the average rate is at most ``max_fps``, with 1 % of tolerance for jitter."""
    return len(times_s) <= max(1.0, max_fps * 1.01 * duration_s)


def decimate(times_s: Sequence[float], max_fps: float) -> list[float]:
    """Return the times of the first frame in each slot of ``1 / max_fps`` seconds."""
    kept: list[float] = []
    slot = -math.inf
    for time_s in times_s:
        # The arithmetic of `decimate_expression`, which FFmpeg evaluates: both must choose the same frames.
        if (now := math.floor(time_s * max_fps + _SLACK)) > slot:
            kept.append(time_s)
            slot = now
    return kept


def decimate_expression(max_fps: float) -> str:
    """Return `decimate` as an expression for FFmpeg's ``select`` filter."""
    return f"isnan(prev_selected_t)+gt(floor(t*{max_fps:g}+{_SLACK}),floor(prev_selected_t*{max_fps:g}+{_SLACK}))"


def centre_frames(times_s: Sequence[float], duration_s: float, count: int) -> list[int]:
    """Return the indices of the frames on display at the centres of ``count`` equal segments, without repetition.

    For a clip of fewer than ``count`` frames, all indices are returned. Example: ``centre_frames([0, 1, 2, 3], 4, 2)``
    gives ``[1, 3]``.
    """
    count = min(count, len(times_s))
    centres = [(k + 0.5) * duration_s / count for k in range(count)]
    chosen = [max(0, bisect_right(times_s, centre + _ROUNDING_S) - 1) for centre in centres]
    # Two centres may fall on one long frame; the next frame then stands in for the second.
    for k in range(1, count):
        chosen[k] = max(chosen[k], chosen[k - 1] + 1)
    return [min(index, len(times_s) - count + k) for k, index in enumerate(chosen)]


def stretch(chosen: Sequence[int], count: int) -> list[int]:
    """Return ``count`` indices into ``chosen``, evenly repeated if it is shorter: ``[0, 0, 1, 1]`` for 4 of 2."""
    return [k * len(chosen) // count for k in range(count)]


def pick_expression(times_s: Sequence[float], chosen: Sequence[int]) -> str:
    """Return an expression for FFmpeg's ``select`` filter that passes exactly the frames ``chosen``.

    The thresholds lie halfway to the previous frame. Each one lets a single frame pass, so neither rounding nor an
    extra frame can select two frames for one index.
    """
    thresholds = [(times_s[i - 1] + times_s[i]) / 2 if i else times_s[0] - 1 for i in chosen]
    passed = "+".join(f"gte(t,{threshold:.9f})" for threshold in thresholds)
    # Variable 0 has the number of thresholds that the frame before had passed.
    return f"st(1,{passed});st(2,gt(ld(1),ld(0)));st(0,ld(1));ld(2)"


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return width and height, both even, with the given shorter side, but never larger than the source."""
    # 4:2:0 has one colour sample for 2x2 pixels, so both sides have to be even.
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
