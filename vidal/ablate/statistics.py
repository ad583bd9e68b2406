"""The difference between two arms, and its interval: over queries by a bootstrap, over seeds by Student's t.

Both arms answer the same queries with the same seeds, so differences are taken query by query and seed by seed. Queries
are resampled in whole units. Seeds are few, and a resample of three of them understates their spread, so their mean is
drawn from the t distribution of its standard error instead. A single seed has no such error: its interval is over
queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
# Resamples that are drawn at a time: of each, there is a number for every unit.
_BLOCK = 100
_LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean difference in R@1 and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.low > 0 or self.high < 0


def recall(hits: Floats, queries: Floats) -> Floats:
    """Return the share of hits by seed and direction (s, d), of the hits (s, d, u) of units of ``queries`` (d, u)."""
    return np.asarray(hits.sum(axis=2) / queries.sum(axis=1), np.float64)


def difference(hits: Floats, baseline: Floats, queries: Floats, *, seed: int = 0) -> Difference:
    """Return the difference in R@1 between two arms, as the mean over seeds and directions.

    ``hits`` and ``baseline`` (s, d, u) count the hits of each seed and direction in each unit, of ``queries`` (d, u)
    queries. ``seed`` is of the resampling.
    """
    paired = hits - baseline
    by_seed = recall(paired, queries).mean(axis=1)
    of_all_seeds = paired.mean(axis=0)
    rng = np.random.default_rng(seed)
    seeds, units = len(paired), paired.shape[2]
    error = by_seed.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0
    drawn = []
    for _ in range(0, RESAMPLES, _BLOCK):
        counts = rng.multinomial(units, np.full(units, 1 / units), size=_BLOCK).T
        # Of a direction in which only few clips have a modality, a resample may have none.
        drawn.append((of_all_seeds @ counts / np.maximum(queries @ counts, 1)).mean(axis=0))
    values = np.concatenate(drawn)
    if error:
        values += error * rng.standard_t(seeds - 1, RESAMPLES)
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(mean=float(by_seed.mean()), low=float(low), high=float(high))
