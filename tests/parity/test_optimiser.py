"""Schedule, groups and averaged weights against timm's and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidal.errors import RecipeError
from vidal.train.optim import Optimisation, OptimiserSettings, learning_rate, parameter_groups


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"tower": nn.Linear(4, 3), "norm": nn.LayerNorm(3), "visual_projection": nn.Linear(3, 2)})


def test_the_cosine_is_timms() -> None:
    from timm.scheduler import CosineLRScheduler

    settings = OptimiserSettings(lr=0.1, warmup_steps=0, min_lr=0.01)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = CosineLRScheduler(optimiser, t_initial=50, lr_min=0.01)
    for step in range(50):
        assert learning_rate(settings, step, 50) == pytest.approx(theirs._get_lr(step)[0], abs=1e-12)


@pytest.mark.parametrize(("step", "wanted"), [(0, 0.025), (1, 0.05), (3, 0.1), (4, 0.1), (54, 0.05), (104, 0.0)])
def test_the_rate_climbs_to_its_height_and_falls_to_its_end(step: int, wanted: float) -> None:
    assert learning_rate(OptimiserSettings(lr=0.1, warmup_steps=4), step, 104) == pytest.approx(wanted)


def test_multipliers_hold_through_the_schedule_and_thin_tensors_are_not_decayed() -> None:
    net = model()
    settings = OptimiserSettings(lr=0.1, warmup_steps=2, weight_decay=0.3, lr_multipliers={"visual_projection.*": 0.1})
    optimisation = Optimisation(net, settings, 10)
    for step in range(10):
        lr = optimisation.begin(step)
        rates = {id(p): g["lr"] for g in optimisation.adamw.param_groups for p in g["params"]}
        assert rates[id(net["visual_projection"].weight)] == pytest.approx(0.1 * lr)
        assert rates[id(net["tower"].weight)] == pytest.approx(lr)
    decayed = {id(p) for g in optimisation.adamw.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(net["tower"].weight), id(net["visual_projection"].weight)}


def test_a_pattern_that_matches_nothing_is_rejected_with_what_is_near() -> None:
    with pytest.raises(RecipeError, match="matches no trained parameter; similar: visual_projection"):
        parameter_groups(model().named_parameters(), OptimiserSettings(lr_multipliers={"visual_proj.*": 2.0}))


def steps(optimisation: Optimisation, net: nn.Module, first: int, last: int) -> None:
    for step in range(first, last):
        optimisation.begin(step)
        torch.manual_seed(step)
        net["visual_projection"](net["norm"](net["tower"](torch.randn(5, 4)))).square().sum().backward()
        optimisation.clip()
        optimisation.step()


def test_the_state_goes_into_groups_of_another_layout_and_resumes_bitwise_identically() -> None:
    one = model()
    whole = Optimisation(one, OptimiserSettings(ema=0.9, weight_decay=0.1), 20)
    steps(whole, one, 0, 12)
    state, weights = (
        {k: v.clone() for k, v in whole.state().items()},
        {k: v.clone() for k, v in one.state_dict().items()},
    )
    steps(whole, one, 12, 20)
    two = model()
    two.load_state_dict(weights)
    other = Optimisation(two, OptimiserSettings(ema=0.9, weight_decay=0.1, lr_multipliers={"tower.*": 1.0 + 1e-12}), 20)
    other.adamw.param_groups.reverse()
    other.load_state(state)
    steps(other, two, 12, 20)
    for name, wanted in one.state_dict().items():
        assert torch.allclose(two.state_dict()[name], wanted, atol=1e-9), name
    assert other.ema is not None and whole.ema is not None
    assert all(torch.allclose(other.ema.values[n], v, atol=1e-9) for n, v in whole.ema.values.items())


def test_averaged_weights_are_the_recursion_by_hand() -> None:
    net = model()
    optimisation = Optimisation(net, OptimiserSettings(ema=0.5, lr=0.1), 5)
    wanted = net["tower"].weight.detach().clone()
    for step in range(5):
        steps(optimisation, net, step, step + 1)
        decay = min(0.5, (2 + step) / (11 + step))
        wanted = decay * wanted + (1 - decay) * net["tower"].weight.detach()
    assert optimisation.ema is not None
    assert torch.allclose(optimisation.ema.values["tower.weight"], wanted, atol=1e-7)
