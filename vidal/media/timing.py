"""Which frames of a clip are kept and which are stored: arithmetic on presentation times, nothing else."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

# Keeps a time that should fall on a slot's edge from landing in the slot before, by rounding.
_SLACK = 0.001

_ROUNDING_S = 1e-6


def seconds(ticks: int, time_base: Fraction) -> float:
    """The same float for the same instant, whichever time base it is told in."""
    return float(ticks * time_base)


def keeps_every_frame(times_s: Sequence[float], duration_s: float, max_fps: float) -> bool:
    """Whether the rate is within ``max_fps``, jitter of a nominal rate aside."""
    return len(times_s) <= max(1.0, max_fps * 1.01 * duration_s)


def decimate(times_s: Sequence[float], max_fps: float) -> list[float]:
    """The first frame of each slot of ``1 / max_fps`` seconds: true times, at most ``max_fps`` in any second."""
    kept: list[float] = []
    slot = -math.inf
    for time_s in times_s:
        if (now := math.floor(time_s * max_fps + _SLACK)) > slot:
            kept.append(time_s)
            slot = now
    return kept


def decimate_expression(max_fps: float) -> str:
    """`decimate` in the language of FFmpeg's select filter."""
    return f"isnan(prev_selected_t)+gt(floor(t*{max_fps:g}+{_SLACK}),floor(prev_selected_t*{max_fps:g}+{_SLACK}))"


def centre_frames(times_s: Sequence[float], duration_s: float, count: int) -> list[int]:
    """Indices of the frames on display at the centres of ``count`` equal segments, each other than the last.

    A clip with fewer than ``count`` frames gives every one of its frames.
    """
    count = min(count, len(times_s))
    centres = [(k + 0.5) * duration_s / count for k in range(count)]
    chosen = [max(0, bisect_right(times_s, centre + _ROUNDING_S) - 1) for centre in centres]
    for k in range(1, count):
        chosen[k] = max(chosen[k], chosen[k - 1] + 1)
    return [min(index, len(times_s) - count + k) for k, index in enumerate(chosen)]


def stretch(chosen: Sequence[int], count: int) -> list[int]:
    """``count`` indices into ``chosen``, evenly repeated where the clip has fewer frames."""
    return [k * len(chosen) // count for k in range(count)]


def pick_expression(times_s: Sequence[float], chosen: Sequence[int]) -> str:
    """A select expression that passes exactly the frames ``chosen``, by thresholds halfway to the frame before.

    Each threshold that time passes lets one frame through, so rounding and a stray frame cannot give two for one.
    """
    thresholds = [(times_s[i - 1] + times_s[i]) / 2 if i else times_s[0] - 1 for i in chosen]
    passed = "+".join(f"gte(t,{threshold:.9f})" for threshold in thresholds)
    return f"st(1,{passed});st(2,gt(ld(1),ld(0)));st(0,ld(1));ld(2)"


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Size with the given short side, even and never larger than the source."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
