"""The interval of a difference: as scipy's where there is one seed, and as often right as it says where there are few."""

from __future__ import annotations

import numpy as np
import pytest

from vidal.ablate.statistics import Floats, difference, recall

TRUTH = 0.03


def simulated(rng: np.random.Generator, of_seeds: float, of_queries: float, of_both: float, seeds: int) -> Floats:
    """(s, 1, u): differences in hits whose mean is the truth."""
    units = 60
    spread = of_seeds * rng.normal(size=(seeds, 1)) + of_queries * rng.normal(size=(1, units))
    return (TRUTH + spread + of_both * rng.normal(size=(seeds, units)))[:, None]


@pytest.mark.parametrize(
    ("of_seeds", "of_queries", "of_both", "seeds", "at_most"),
    [
        (0.02, 0.0, 0.0, 3, 0.98),
        (0.0, 0.3, 0.0, 3, 0.98),
        (0.02, 0.15, 0.1, 5, 0.995),
        # What differs by seed and query is counted in both parts: the interval is wider than it need be.
        (0.0, 0.0, 0.3, 3, 1.0),
    ],
    ids=["trainings differ", "queries differ", "all differ", "each answer is drawn"],
)
def test_an_interval_of_95_percent_holds_the_truth_as_often(
    of_seeds: float, of_queries: float, of_both: float, seeds: int, at_most: float
) -> None:
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(200):
        drawn = simulated(rng, of_seeds, of_queries, of_both, seeds)
        found = difference(drawn, np.zeros_like(drawn), np.ones((1, 60)))
        held += found.low <= TRUTH <= found.high
    assert 0.91 <= held / 200 <= at_most


def test_with_one_seed_it_is_the_paired_bootstrap_of_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    hits, baseline = (rng.random((1, 1, 200)) < share for share in (0.7, 0.5))
    ours = difference(hits.astype(float), baseline.astype(float), np.ones((1, 200)))
    theirs = stats.bootstrap(
        (hits[0, 0].astype(float), baseline[0, 0].astype(float)), lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True, method="percentile", n_resamples=4000, rng=2,
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert ours.mean == pytest.approx(hits.mean() - baseline.mean())


def test_pairing_removes_what_is_hard_for_both_arms() -> None:
    rng = np.random.default_rng(3)
    hard = np.broadcast_to((rng.random(300) < 0.5).astype(float), (2, 1, 300))
    found = difference(np.maximum(hard, np.arange(300) % 30 == 0), hard, np.ones((1, 300)))
    assert found.excludes_zero and found.high - found.low < 0.05
    assert not difference(rng.permutation(hard, axis=2), hard, np.ones((1, 300))).excludes_zero


def test_pairing_removes_what_a_seed_does_to_both_arms() -> None:
    baseline = np.zeros((5, 1, 300))
    for seed in range(5):
        baseline[seed, :, : 50 * (seed + 1)] = 1
    better = np.maximum(baseline, np.arange(300) >= 294)
    found = difference(better, baseline, np.ones((1, 300)))
    assert found.excludes_zero and found.high - found.low < 0.05
    assert not difference(better, baseline[::-1], np.ones((1, 300))).excludes_zero


def test_each_direction_counts_as_much_and_each_query_of_a_unit() -> None:
    hits = np.asarray([[[2.0, 0.0], [0.0, 1.0]]])
    queries = np.asarray([[3, 1], [1, 1]])
    assert recall(hits, queries).tolist() == [[0.5, 0.5]]
    assert difference(hits, np.zeros_like(hits), queries).mean == 0.5
