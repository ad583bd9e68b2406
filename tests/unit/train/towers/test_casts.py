"""What a layer casts and copies: each weight that is no bfloat16 once, what goes into a group of products once."""

from __future__ import annotations

import pytest

from benchmarks.train_costs import casts_of_a_layer, copies_across_frames
from vidal.train.towers.settings import Tune

WEIGHTS = 6 * 2
"""Matrices and biases of a layer."""
SUMS = 4
"""Of a weight and its adapter."""


@pytest.mark.parametrize(
    ("mode", "stores_bases", "weights"),
    [("full", True, WEIGHTS), ("lora", True, WEIGHTS), ("lora", False, SUMS)],
)
def test_a_layer_casts_what_goes_into_queries_keys_and_values_once(
    mode: Tune, stores_bases: bool, weights: int
) -> None:
    # And what the two norms give; all else is in bfloat16 already.
    assert casts_of_a_layer(mode, stores_bases=stores_bases) == weights + 2


def test_attention_across_frames_copies_nothing() -> None:
    assert copies_across_frames() == 0
