"""How the stored numbers of the kept clips differ between two datasets.

The distance of a number is that of Kolmogorov and Smirnov: the largest difference between the shares of the clips that
lie at or below a value, 0 to 1. Its interval comes from a bootstrap of the clips: in each resample the difference of
the two curves departs from the measured one by at most some height, and the 95th percentile of that height holds for
the true curves, too. Resampling the distance itself would never give an interval with 0 in it. A clip that both
datasets kept is drawn for both at once, so that what did not change has distance 0 without an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidal.diff.pairs import SIDES, Pairs

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]

DRAWN = 10_000
"""Most clips that distances and intervals are computed over."""
_RESAMPLES = 200
_CONFIDENCE = 0.95
_NO_NUMBERS = ("shard", "position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """One number over the kept clips; counts and means are of all clips, distance and intervals of those drawn."""

    column: str
    clips: tuple[int, int]
    """Number of kept clips before and after that have it."""
    means: tuple[float, float]
    distance: float
    distance_interval: tuple[float, float]
    paired: int
    """Number of clips that have it before and after."""
    changed: int
    """How many of these have another value."""
    change: float | None
    """Mean of after minus before over these; None without such a clip."""
    change_interval: tuple[float, float] | None

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        return self.distance == 0 and not self.changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """The numbers that both datasets have, that of the largest certain distance first."""

    all: list[Shift]
    drawn: int
    """Number of clips that distances and intervals are of."""
    kept: int
    """Number of clips that one of the datasets kept."""
    only: dict[str, list[str]]
    """Numbers that only the kept clips of one of them have, by side."""


def shifts(pairs: Pairs) -> Shifts:
    """Compare every number of the manifests, truth values as 0 and 1, and the scores of `text_match` by text."""
    numbers = _numbers(pairs)
    cursor = pairs.cursor()
    exact = {side: _means(pairs, side, numbers) for side in SIDES}
    has = {side: {name for name, (clips, _) in of.items() if clips} for side, of in exact.items()}
    names = [name for name in numbers if name in has["before"] and name in has["after"]]
    paired = _paired(pairs, {name: numbers[name] for name in names})
    (kept,) = cursor.sql("SELECT count(*) FROM clips WHERE 'kept' IN (before_status, after_status)").fetchall()[0]
    count = min(kept, DRAWN)
    values = {side: _drawn(pairs, side, {name: numbers[name] for name in names}, count) for side in SIDES}
    # A Poisson bootstrap: each clip is drawn by itself, once on average, and as often for both datasets.
    weights = np.random.default_rng(0).poisson(1.0, (_RESAMPLES, count)).astype(np.float32)
    found = []
    for name in names:
        before, after = values["before"][name], values["after"][name]
        distance, interval = distance_of(before, after, weights)
        common, changed, change = paired[name]
        half = _half_width(after - before, weights) if common else 0.0
        found.append(
            Shift(
                column=name, clips=(exact["before"][name][0], exact["after"][name][0]),
                means=(exact["before"][name][1], exact["after"][name][1]), distance=distance,
                distance_interval=interval, paired=common, changed=changed, change=change,
                change_interval=None if change is None else (change - half, change + half),
            )
        )  # fmt: skip
    found.sort(key=lambda shift: (-shift.distance_interval[0], -shift.distance, shift.column))
    only = {side: sorted(has[side] - has[other]) for side, other in (SIDES, SIDES[::-1])}
    return Shifts(all=found, drawn=count, kept=kept, only=only)


def _numbers(pairs: Pairs) -> dict[str, str]:
    """Return the numbers that are in both manifests, as expressions of SQL over a row ``m`` of either."""
    is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    numeric = [
        {f.name for f in schema if f.name not in _NO_NUMBERS and any(test(f.type) for test in is_number)}
        for schema in pairs.schemas.values()
    ]
    order = [name for name in pairs.schemas["after"].names if name in numeric[0] & numeric[1]]
    # Names are a stranger's: as identifiers and constants they are quoted.
    values = {name: "m." + _quoted(name, '"') for name in order}
    if all("text_match" in schema.names for schema in pairs.schemas.values()):
        views = " UNION ".join(f"SELECT unnest(text_match).view AS view FROM rows_{side}" for side in SIDES)
        for (view,) in (
            pairs.cursor().sql(f"SELECT view FROM ({views}) WHERE view IS NOT NULL ORDER BY view").fetchall()
        ):
            wanted = _quoted(view, "'")
            values[f"text_match.{view}"] = f"list_filter(m.text_match, lambda one: one.view = {wanted})[1].score"
    return {name: f"CASE WHEN isfinite(({v})::DOUBLE) THEN ({v})::DOUBLE END" for name, v in values.items()}


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, 2 * mark) + mark


def _means(pairs: Pairs, side: str, numbers: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """Return the number and the mean of each number over the kept clips of one side."""
    parts = ", ".join(f"count({v}), avg({v})" for v in numbers.values())
    row = (
        pairs.cursor().sql(f"SELECT {parts} FROM rows_{side} m WHERE status = 'kept'").fetchall()[0] if numbers else ()
    )
    return {name: (row[2 * k], row[2 * k + 1]) for k, name in enumerate(numbers)}


def _paired(pairs: Pairs, numbers: Mapping[str, str]) -> dict[str, tuple[int, int, float | None]]:
    """Return how many clips kept by both have each number twice and how many changed, and the mean change."""
    if not numbers:
        return {}
    columns = {side: ", ".join(f"{v} AS n{k}" for k, v in enumerate(numbers.values())) for side in SIDES}
    parts = ", ".join(
        f"count(a.n{k} - b.n{k}), count(*) FILTER (a.n{k} <> b.n{k}), avg(a.n{k} - b.n{k})" for k in range(len(numbers))
    )
    row = (
        pairs.cursor()
        .sql(f"""
        SELECT {parts} FROM clips
        JOIN (SELECT shard, file_row_number AS row, {columns["before"]} FROM rows_before m WHERE status = 'kept') b
            ON (b.shard = before_shard AND b.row = before_row)
        JOIN (SELECT shard, file_row_number AS row, {columns["after"]} FROM rows_after m WHERE status = 'kept') a
            ON (a.shard = after_shard AND a.row = after_row)
    """)
        .fetchall()[0]
    )
    return {name: (row[3 * k], row[3 * k + 1], row[3 * k + 2]) for k, name in enumerate(numbers)}


def _drawn(pairs: Pairs, side: str, numbers: Mapping[str, str], count: int) -> dict[str, Floats]:
    """Return each number of the drawn clips (count,), NaN where the side has not kept the clip or lacks it."""
    values = {name: np.full(count, np.nan) for name in numbers}
    if not numbers:
        return values
    columns = ", ".join(f"{v} AS n{k}" for k, v in enumerate(numbers.values()))
    # By a hash, so that the same clips are drawn each time, whatever their order.
    read = (
        pairs.cursor()
        .sql(f"""
        WITH drawn AS (
            SELECT *, row_number() OVER (ORDER BY hash(clip_id), number) - 1 AS place FROM (
                SELECT * FROM clips WHERE 'kept' IN (before_status, after_status)
                ORDER BY hash(clip_id), number LIMIT {count}
            )
        )
        SELECT place, {columns} FROM drawn
        JOIN rows_{side} m ON (m.shard = {side}_shard AND m.file_row_number = {side}_row) WHERE m.status = 'kept'
    """)
        .fetchnumpy()
    )
    for k, name in enumerate(numbers):
        values[name][read["place"]] = np.ma.filled(np.ma.asarray(read[f"n{k}"]).astype(np.float64), np.nan)
    return values


def distance_of(before: Floats, after: Floats, weights: Weights) -> tuple[float, tuple[float, float]]:
    """Return the distance of two samples, and its interval.

    ``before`` and ``after`` (n,) are of the same n clips, NaN where a sample lacks one; ``weights`` (resamples, n) say
    how often each clip is drawn.
    """
    places = [np.flatnonzero(np.isfinite(sample)) for sample in (before, after)]
    if not all(len(place) for place in places):
        return 0.0, (0.0, 0.0)
    pooled = np.concatenate([before[places[0]], after[places[1]]])
    order = np.argsort(pooled, kind="stable")
    # Of equal values the last one alone: up to it are all clips that lie at or below them.
    ends = np.flatnonzero(np.r_[np.diff(pooled[order]) != 0, True])
    owners = np.concatenate(places)[order]
    is_after = order >= len(places[0])
    measured = _curves(np.ones((1, len(before)), np.float32), owners, is_after, ends)[0]
    resampled = _curves(weights, owners, is_after, ends)
    height = float(np.quantile(np.abs(resampled - measured).max(axis=1), _CONFIDENCE))
    # Sums of shares are off by a few units of the last place.
    distance, height = round(float(np.abs(measured).max()), 9), round(height, 9)
    return distance, (max(0.0, distance - height), min(1.0, distance + height))


def _curves(weights: Weights, owners: npt.NDArray[np.int64], is_after: npt.NDArray[np.bool_],
            ends: npt.NDArray[np.int64]) -> Floats:  # fmt: skip
    """Return the share of after minus that of before at or below each value, (resamples, values)."""
    drawn = weights[:, owners].astype(np.float64)
    totals = np.stack([np.where(is_after, 0, drawn).sum(axis=1), np.where(is_after, drawn, 0).sum(axis=1)])
    # A resample without a clip of one side is of no use; it counts as no departure from 0.
    before, after = np.maximum(totals, 1)
    steps = drawn * np.where(is_after, 1 / after[:, None], -1 / before[:, None])
    return np.asarray(np.cumsum(steps, axis=1)[:, ends])


def _half_width(differences: Floats, weights: Weights) -> float:
    """Return half the width of the interval of a mean of paired differences (n,), NaN where there is none."""
    known = np.isfinite(differences)
    if not known.any():
        return 0.0
    drawn = weights[:, known].astype(np.float64)
    means = drawn @ differences[known] / np.maximum(drawn.sum(axis=1), 1)
    return float(np.quantile(np.abs(means - differences[known].mean()), _CONFIDENCE))
