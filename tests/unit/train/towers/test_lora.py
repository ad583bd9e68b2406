"""An adapted layer: what peft computes, in one product, and without the gradient of the frozen weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from vidal.train.towers.lora import MergedLinear
from vidal.train.towers.settings import LoraSettings, VisionSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import Attention, VisionTower

SETTINGS = VisionSettings(hidden_size=32, layers=1, heads=4, patch_size=8, image_size=32, projection_dim=12)


def layer(**lora: Any) -> MergedLinear:
    torch.manual_seed(0)
    tower = VisionTower(SETTINGS)
    tune(tower, "lora", LoraSettings(**{"rank": 4, "alpha": 6, **lora}))
    attention = tower.encoder.layers[0].self_attn
    assert isinstance(attention, Attention) and isinstance(attention.q_proj, MergedLinear)
    nn.init.normal_(attention.q_proj.lora_B["default"].weight, std=0.1)
    return attention.q_proj


def results(one: MergedLinear, x: Tensor, *, as_peft: bool) -> list[Tensor]:
    """Output, and the gradients of input and adapter."""
    one.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    out = PeftLinear.forward(one, x) if as_peft else one(x)
    (out.float() if out.dtype == torch.bfloat16 else out).square().sum().backward()
    gradients = [x.grad, one.lora_A["default"].weight.grad, one.lora_B["default"].weight.grad]
    return [out.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("shape", [(5, 32), (2, 3, 32)])
def test_output_and_gradients_are_pefts(shape: tuple[int, ...]) -> None:
    one = layer().double()
    x = torch.randn(shape, dtype=torch.float64)
    ours, theirs = (results(one, x, as_peft=as_peft) for as_peft in (False, True))
    assert len(ours) == len(theirs) == 4
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert all(p.grad is None for p in one.base_layer.parameters())


@pytest.mark.parametrize(
    ("lora", "weight"),
    [
        # Dropout is of the adapter's input; a weight in bfloat16 has no place for a small adapter.
        ({"dropout": 0.5}, torch.float32),
        ({}, torch.bfloat16),
    ],
    ids=["dropout", "weight in bfloat16"],
)
def test_where_the_sum_is_not_the_weights_the_bits_are_pefts(lora: dict[str, Any], weight: torch.dtype) -> None:
    one, x = layer(**lora), torch.randn(5, 32)
    one.base_layer.to(weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (results(one, x, as_peft=as_peft) for as_peft in (False, True))
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(got, wanted) for got, wanted in zip(ours, theirs, strict=True))


def test_in_bfloat16_the_error_is_that_of_pefts_two_products() -> None:
    one, x = layer(), torch.randn(256, 32)
    exact = results(one, x, as_peft=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (results(one, x, as_peft=as_peft) for as_peft in (False, True))
    for got, pefts, wanted in zip(ours, theirs, exact, strict=True):
        assert (got - wanted).norm() < 1.2 * (pefts - wanted).norm() < 0.01 * wanted.norm()
