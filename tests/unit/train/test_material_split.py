"""What is kept from training: whole clusters, and the same ones whatever stands beside them."""

from __future__ import annotations

import numpy as np
import pytest

from vidal.train.material import held_out

CLUSTERS = [f"cluster-{n}" for n in range(20_000)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_about_the_share_that_was_asked_for_is_held(share: float) -> None:
    assert abs(held_out(CLUSTERS, share).mean() - share) < 0.01


def test_a_cluster_is_held_whole_or_not_at_all() -> None:
    clusters = [f"cluster-{n // 5}" for n in range(1000)]
    by_cluster = held_out(clusters, 0.3).reshape(200, 5)
    assert (by_cluster.all(axis=1) | ~by_cluster.any(axis=1)).all()


def test_what_is_held_depends_on_no_other_clip_and_no_order() -> None:
    order = np.random.default_rng(0).permutation(len(CLUSTERS))
    whole = held_out(CLUSTERS, 0.1)
    assert np.array_equal(held_out([CLUSTERS[k] for k in order], 0.1), whole[order])
    assert np.array_equal(held_out(CLUSTERS[:100], 0.1), whole[:100])


def test_a_larger_share_holds_what_a_smaller_one_does() -> None:
    assert not (held_out(CLUSTERS, 0.05) & ~held_out(CLUSTERS, 0.1)).any()


def test_the_split_is_what_it_was_when_this_was_written() -> None:
    assert [k for k, held in enumerate(held_out(CLUSTERS[:60], 0.05)) if held] == HELD


HELD = [41, 56]
