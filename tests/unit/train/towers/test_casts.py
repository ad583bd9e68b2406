"""How much autocast casts in a layer: each weight once, and what goes into each group of products once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vidal.train.towers.settings import LoraSettings, Tune, VisionSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

WEIGHTS = 6 * 2
"""Matrices and biases of a layer."""


class Casts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket is torch.ops.aten._to_copy
        return func(*args, **(kwargs or {}))


def casts(mode: Tune, layers: int) -> int:
    torch.manual_seed(0)
    size = VisionSettings(hidden_size=16, layers=layers, heads=2, patch_size=8, image_size=16, projection_dim=4)
    tower = VisionTower(size)
    tune(tower, mode, LoraSettings(rank=2))
    with Casts() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
        tower(torch.randn(2, 3, 16, 16))
    return counted.count


@pytest.mark.parametrize(("mode", "adapters"), [("full", 0), ("lora", 4 * 2)])
def test_a_layer_casts_what_goes_into_queries_keys_and_values_once(mode: Tune, adapters: int) -> None:
    in_a_layer = (casts(mode, 3) - casts(mode, 1)) / 2
    # What the two norms give; all else is in bfloat16 already.
    assert in_a_layer == WEIGHTS + adapters + 2
