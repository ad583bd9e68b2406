"""Weights are held in 16 bits only where they are the same numbers, and give the same output."""

from __future__ import annotations

import pytest
import torch

from vidal.models.half_linear import HalfLinear, halve_exact_weights


def model(weight: float, *, bias: bool = True) -> torch.nn.Sequential:
    """A model of one linear layer with weights in steps of 1/64, but for one."""
    layer = torch.nn.Linear(96, 64, bias=bias).requires_grad_(False)
    layer.weight.copy_((layer.weight * 64).round() / 64)
    layer.weight[3, 5] = weight
    return torch.nn.Sequential(layer)


@pytest.mark.parametrize(
    ("weight", "is_halved"),
    [(0.5, True), (2.0**-20, True), (0.1, False), (2.0**-30, False), (1e6, False), (float("nan"), False)],
)
def test_a_layer_is_halved_if_all_its_weights_are_numbers_of_16_bits(weight: float, is_halved: bool) -> None:
    halved = model(weight)
    halve_exact_weights(halved)
    assert isinstance(halved[0], HalfLinear) is is_halved


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (2, 7, 96)])
def test_a_halved_layer_gives_the_same_output(bias: bool, shape: tuple[int, ...]) -> None:
    plain, values = model(0.5, bias=bias), torch.randn(shape)
    expected = plain(values)
    halve_exact_weights(plain)
    torch.testing.assert_close(plain(values), expected, rtol=1e-6, atol=1e-5)
    assert expected.abs().max() > 0.5


def test_a_subclass_keeps_its_own_product() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(values)

    doubled = torch.nn.Sequential(Doubled(4, 4, bias=False)).requires_grad_(False)
    doubled[0].weight.fill_(0.5)
    halve_exact_weights(doubled)
    assert doubled(torch.ones(1, 4)).tolist() == [[4.0] * 4]
