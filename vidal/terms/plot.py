"""An SVG plot of keyword frequencies before and after balancing: all by rank, then head and tail by name."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from vidal.terms.balance import Chosen, Frequencies, totals
from vidal.terms.gather import Gathered

_WIDTH, _HEIGHT = 980, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 430, 40, 390
_NAMED = 15
_BEFORE, _AFTER, _OUT = "#c2410c", "#1d4ed8", "#a8a29e"


def plot(gathered: Gathered, frequency: Frequencies, chosen: Chosen) -> str:
    """Return the SVG: shares of captions before, shares of terms after; keywords out of bounds are grey."""
    is_chosen = np.isin(frequency.candidate, chosen.candidates)
    terms = np.bincount(frequency.keyword[is_chosen], minlength=len(frequency.names))
    before = frequency.captions / max(1, int(totals(gathered).sum()))
    after = terms / max(1, len(chosen.candidates))
    order = sorted(range(len(frequency.names)), key=lambda k: (-frequency.captions[k], k))
    within = [k for k in order if frequency.is_within[k]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *_curves(np.sort(before)[::-1], np.sort(after[after > 0])[::-1]),
        *_bars("head: the most frequent", order[:_NAMED], frequency, before, after, x=540),
        *_bars("tail: the rarest within the bounds", within[-_NAMED:], frequency, before, after, x=780),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _curves(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> list[str]:
    ranks = math.log10(max(10, len(before)))
    lowest = math.floor(math.log10(min([1e-2, *before[-1:], *after[-1:]])))

    def x(rank: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log10(rank) / ranks

    def y(share: float) -> float:
        return _TOP + (_BOTTOM - _TOP) * min(1.0, math.log10(share) / lowest)

    parts = [f'<path d="M{_LEFT},{_TOP} L{_LEFT},{_BOTTOM} L{_RIGHT},{_BOTTOM}" fill="none" stroke="#333"/>']
    for power in range(lowest, 1):
        parts.append(_text(_LEFT - 6, y(10.0**power) + 4, f"{10.0**power:.{max(0, -power - 2)}%}", "end"))
    for power in range(int(ranks) + 1):
        parts.append(_text(x(10**power), _BOTTOM + 18, f"{10**power:,}", "middle"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, "keywords by rank", "middle"))
    named = ((before, _BEFORE, "before: share of captions"), (after, _AFTER, "after: share of terms"))
    for place, (shares, colour, name) in enumerate(named):
        # A hundred ranks, evenly spaced on the logarithmic axis, draw any curve.
        ranks_drawn = sorted({max(1, round(len(shares) ** (step / 100))) for step in range(101)}) if len(shares) else []
        points = " ".join(f"{x(rank):.1f},{y(float(shares[rank - 1])):.1f}" for rank in ranks_drawn)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(_RIGHT - 150, _TOP + 4 + 18 * place, name, "start", colour))
    return parts


def _bars(
    title: str, keywords: list[int], frequency: Frequencies, before: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64], *, x: int,
) -> list[str]:  # fmt: skip
    parts = [_text(x - 70, _TOP - 14, title, "start")]
    largest = max([*before[keywords], *after[keywords], 1e-9])
    for place, keyword in enumerate(keywords):
        y = _TOP + 23.5 * place
        is_within = bool(frequency.is_within[keyword])
        parts.append(_text(x - 6, y + 12, frequency.names[keyword][:14], "end", "#333" if is_within else _OUT))
        for shift, share, colour in ((0, before, _BEFORE if is_within else _OUT), (8, after, _AFTER)):
            width = 90 * share[keyword] / largest
            parts.append(f'<rect x="{x}" y="{y + shift:.1f}" width="{width:.1f}" height="7" fill="{colour}"/>')
        widest = 90 * max(before[keyword], after[keyword]) / largest
        parts.append(_text(x + widest + 4, y + 12, f"{frequency.captions[keyword]:,}", "start", "#666"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    # Keywords come from strangers' captions, and an SVG can hold scripts.
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
