"""The plot of an ablation: an SVG of each arm's difference to the first, its interval, and each seed's difference."""

from __future__ import annotations

from xml.sax.saxutils import escape

from vidal.ablate.result import Ablation, ArmResult

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 860, 190, 640, 50, 34
_INK, _BETTER, _WORSE, _OPEN = "#333", "#2a9d55", "#c0392b", "#1b6ca8"


def plot(ablation: Ablation) -> str:
    """Return the SVG; green and red are intervals that exclude zero."""
    first, *others = ablation.arms.items()
    ends = [0.0]
    for _, arm in others:
        if arm.difference:
            ends += [arm.difference.low, arm.difference.high]
        ends += _by_seed(arm, first[1])
    low, high = min(ends), max(ends)
    # An axis needs some width where all differences are 0.
    margin = (high - low or 0.01) * 0.06

    def x(difference: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (difference - low + margin) / (high - low + 2 * margin)

    bottom = _TOP + _ROW * len(others)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 50}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{_WIDTH}" height="{bottom + 50}" fill="white"/>',
        f'<text x="{_LEFT}" y="22">difference in mean R@1 to {escape(first[0])} ({first[1].mean_recall:.1%}), '
        f"{ablation.seeds} seeds, {ablation.held_out} held-out clips</text>",
        f'<path d="M{_LEFT} {bottom}H{_RIGHT}" stroke="{_INK}"/>',
        f'<path d="M{x(0):.1f} {_TOP - 12}V{bottom}" stroke="{_INK}" stroke-dasharray="3 3"/>',
    ]
    for tick in _ticks(low, high):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="{_INK}">{tick * 100:+g}</text>'
        )
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{bottom + 38}" text-anchor="middle">percentage points</text>')
    for place, (name, arm) in enumerate(others):
        if arm.difference:
            y, found = _TOP + _ROW * place + _ROW / 2, arm.difference
            colour = (_BETTER if found.low > 0 else _WORSE) if found.excludes_zero else _OPEN
            parts += [
                f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>',
                f'<path d="M{x(found.low):.1f} {y}H{x(found.high):.1f}" stroke="{colour}" stroke-width="3"/>',
                *(
                    f'<circle cx="{x(seed):.1f}" cy="{y + 9}" r="2" fill="{_INK}" fill-opacity="0.6"/>'
                    for seed in _by_seed(arm, first[1])
                ),
                f'<circle cx="{x(found.mean):.1f}" cy="{y}" r="5" fill="{colour}"/>',
                f'<text x="{_RIGHT + 12}" y="{y + 4}" fill="{colour}">{found.mean * 100:+.1f} '
                f"({found.low * 100:+.1f} to {found.high * 100:+.1f})</text>",
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _by_seed(arm: ArmResult, first: ArmResult) -> list[float]:
    return [own - other for own, other in zip(arm.by_seed, first.by_seed, strict=True)]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from ``low`` to ``high``, zero among them."""
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 8)
    return [n * step for n in range(-round(1 / step), round(1 / step) + 1) if low <= n * step <= high]
