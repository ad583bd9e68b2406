"""Groups by depth, clipping, state that fits or is rejected, and the formulas of open_clip, timm and AdamW."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.ranks import on_ranks
from vidal.errors import ModelError
from vidal.train.full_state import full_state
from vidal.train.optim import Optimisation, OptimiserSettings, decays, learning_rate, parameter_groups


class Tower(nn.Module):
    """The names of a vision tower, of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"position_embedding": nn.Embedding(4, 6)})
        self.pre_layrnorm = nn.LayerNorm(6)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(6, 6) for _ in range(3))})
        self.visual_projection = nn.Linear(6, 5, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.pre_layrnorm(rows + self.embeddings["position_embedding"].weight[0])
        for layer in self.encoder["layers"]:
            rows = layer(rows).tanh()
        out: Tensor = self.visual_projection(rows)
        return out


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.towers = nn.ModuleDict({"depth": Tower()})
        self.logit_scale = nn.ParameterDict({"text-depth": nn.Parameter(torch.tensor(2.0))})

    def loss(self, rows: Tensor) -> Tensor:
        return (self.towers["depth"](rows) * self.logit_scale["text-depth"]).square().mean()


def trained(model: Model, optimisation: Optimisation, first: int, last: int, rows: slice = slice(None)) -> None:
    for step in range(first, last):
        optimisation.begin(step)
        generator = torch.Generator().manual_seed(step)
        model.loss(torch.randn(8, 6, generator=generator)[rows].to(model.logit_scale["text-depth"].dtype)).backward()
        optimisation.clip()
        optimisation.step()


@pytest.mark.parametrize(
    ("settings", "theirs", "more"),
    [
        ({"schedule": "cosine"}, "cosine_lr", ()),
        ({"schedule": "constant"}, "const_lr", ()),
        (
            {"schedule": "warmup_stable_decay", "decay_share": 0.25, "min_lr": 0.01},
            "const_lr_cooldown",
            (15, 1.0, 0.01),
        ),
        ({"schedule": "warmup_stable_decay", "decay_share": 0.001}, "const_lr_cooldown", (1,)),
    ],
)
def test_the_rate_is_open_clips_at_every_step(settings: dict[str, Any], theirs: str, more: tuple[float, ...]) -> None:
    from open_clip_train import scheduler

    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    set_rate = getattr(scheduler, theirs)(optimiser, 0.3, 7, 60, *more)
    for step in range(60):
        set_rate(step)
        ours = learning_rate(OptimiserSettings(lr=0.3, warmup_steps=7, **settings), step, 60)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12), step


def test_what_decays_is_what_timm_lets_decay_beside_the_names_that_are_left_out() -> None:
    from timm.optim import param_groups_weight_decay

    model = Model()
    theirs = {id(p) for g in param_groups_weight_decay(model, 0.2) if g["weight_decay"] for p in g["params"]}
    assert {id(p) for n, p in model.named_parameters() if decays(n, p)} == theirs


def test_updates_are_adamw_by_its_formula() -> None:
    net = nn.Linear(3, 2, bias=False).double()
    settings = OptimiserSettings(lr=0.01, weight_decay=0.2, clip_norm=None)
    optimisation = Optimisation(net, settings, 9)
    weight, m, v = net.weight.detach().clone(), torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for step in range(9):
        lr = optimisation.begin(step)
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(step)).double()
        net.weight.grad = gradient.clone()
        optimisation.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        hat_m, hat_v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.98 ** (step + 1))
        weight = weight * (1 - lr * 0.2) - lr * hat_m / (hat_v.sqrt() + 1e-6)
        assert torch.allclose(net.weight.detach(), weight, rtol=0, atol=1e-12)


def test_averaged_weights_are_timms_under_the_same_decay() -> None:
    from timm.utils import ModelEmaV3

    model = Model().double()
    optimisation = Optimisation(model, OptimiserSettings(lr=0.1, ema=0.7), 12)
    theirs = ModelEmaV3(model, decay=0.0)
    for step in range(12):
        trained(model, optimisation, step, step + 1)
        theirs.decay = min(0.7, (2 + step) / (11 + step))
        theirs.update(model)
    assert optimisation.ema is not None
    for name, value in theirs.module.named_parameters():
        assert torch.allclose(optimisation.ema.values[name], value, rtol=0, atol=1e-12), name


@pytest.mark.parametrize(("name", "times"), [
    ("logit_scale.text-depth", 0), ("towers.depth.visual_projection.weight", 0), ("towers.depth.encoder.layers.2.weight", 1),
    ("towers.depth.encoder.layers.0.bias", 3), ("towers.depth.pre_layrnorm.weight", 4),
    ("towers.depth.embeddings.position_embedding.weight", 4),
])  # fmt: skip
def test_layer_decay_takes_from_each_layer_down(name: str, times: int) -> None:
    model = Model()
    groups = parameter_groups(model.named_parameters(), OptimiserSettings(layer_decay=0.5))
    wanted = dict(model.named_parameters())[name]
    assert [g["multiplier"] for g in groups if any(p is wanted for p in g["params"])] == [0.5**times]  # type: ignore[attr-defined]


def test_every_trained_parameter_is_in_one_group_and_depth_counts_frozen_layers() -> None:
    model = Model()
    model.towers["depth"].encoder["layers"][2].requires_grad_(False)
    groups = parameter_groups(
        model.named_parameters(), OptimiserSettings(layer_decay=0.5, lr_multipliers={"*.weight": 3.0})
    )
    placed = [id(p) for g in groups for p in g["params"]]  # type: ignore[attr-defined]
    assert sorted(placed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    first = model.towers["depth"].encoder["layers"][0].weight
    assert [g["multiplier"] for g in groups if any(p is first for p in g["params"])] == [3 * 0.5**3]  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [None, 1e-3, 1e3])
def test_clipping_is_torchs_and_tells_the_norm_before_it(limit: float | None) -> None:
    model = Model()
    optimisation = Optimisation(model, OptimiserSettings(clip_norm=limit), 5)
    model.loss(torch.ones(2, 6)).backward()
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    wanted = nn.utils.clip_grad_norm_(twin.parameters(), limit or math.inf)
    assert optimisation.clip() == float(wanted)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert (p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad)  # type: ignore[arg-type]


def test_a_rate_that_would_climb_is_rejected() -> None:
    with pytest.raises(ValidationError, match=r"min_lr 0\.5 is above lr 0\.1"):
        OptimiserSettings(lr=0.1, min_lr=0.5)


HARM = {
    "of another shape": ("exp_avg.towers.depth.visual_projection.weight", torch.zeros(2, 2)),
    "half there": ("exp_avg_sq.towers.depth.visual_projection.weight", None),
    "without averages": ("ema.towers.depth.visual_projection.weight", None),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_state_that_does_not_fit_is_one_line(harm: str) -> None:
    model = Model()
    optimisation = Optimisation(model, OptimiserSettings(ema=0.9), 5)
    trained(model, optimisation, 0, 2)
    key, value = HARM[harm]
    state = optimisation.state()
    state.pop(key)
    state |= {} if value is None else {key: value}
    with pytest.raises(ModelError, match=r"^here: .*visual_projection.weight[^\n]*$"):
        Optimisation(Model(), OptimiserSettings(ema=0.9), 5).load_state(state, "here")


def test_averaging_that_begins_on_resume_begins_at_the_weights_that_were_loaded() -> None:
    model = Model()
    before = Optimisation(model, OptimiserSettings(), 5)
    trained(model, before, 0, 3)
    other = Model()
    after = Optimisation(other, OptimiserSettings(ema=0.9), 5)
    other.load_state_dict(model.state_dict())
    after.load_state(before.state())
    assert after.ema is not None
    assert all(torch.equal(after.ema.values[n], p) for n, p in model.named_parameters())


@pytest.mark.parametrize(("is_fused", "wanted"), [(True, "meta"), (False, "cpu")])
def test_the_step_counter_that_a_resume_loads_lies_where_adamw_takes_it(is_fused: bool, wanted: str) -> None:
    """The meta device stands for a GPU, on which AdamW is fused and refuses a counter on the CPU."""
    model = Model()
    before = Optimisation(model, OptimiserSettings(), 5)
    trained(model, before, 0, 3)
    elsewhere = Model().to("meta")
    after = Optimisation(elsewhere, OptimiserSettings(), 5)
    after.adamw = torch.optim.AdamW(elsewhere.parameters(), fused=is_fused)
    after.load_state(before.state())
    states = [after.adamw.state[p] for p in elsewhere.parameters()]
    assert {state["step"].device.type for state in states} == {wanted}
    assert {state["exp_avg"].device.type for state in states} == {"meta"}


SETTINGS = OptimiserSettings(lr=1e-2, clip_norm=0.05, ema=0.9, layer_decay=0.8)


def sharded(rank: int, ranks: int, weights: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Any]:
    """Goes on from whole tensors, in shards where there are several ranks, and gives whole ones back."""
    model = Model()
    model.load_state_dict(weights)
    if ranks > 1:
        fully_shard(model.towers["depth"], mesh=init_device_mesh("cpu", (ranks,)))
    optimisation = Optimisation(model, SETTINGS, 10)
    optimisation.load_state(state)
    share, norms = 8 // ranks, []
    for step in range(3, 6):
        optimisation.begin(step)
        rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))[rank * share : (rank + 1) * share]
        model.loss(rows).backward()
        scale = model.logit_scale["text-depth"]
        if ranks > 1:
            torch.distributed.all_reduce(scale.grad)
            scale.grad /= ranks
        norms.append(optimisation.clip())
        optimisation.step()
    return {
        "model": full_state(model.state_dict()),
        "optimiser": optimisation.state(),
        "norms": {"": torch.tensor(norms)},
    }


def test_shards_of_two_ranks_go_on_from_whole_tensors_as_one_process_does() -> None:
    model = Model()
    optimisation = Optimisation(model, SETTINGS, 10)
    trained(model, optimisation, 0, 3)
    weights, state = full_state(copy.deepcopy(model.state_dict())), copy.deepcopy(optimisation.state())
    one, *_ = on_ranks(1, sharded, weights, state)
    for two in on_ranks(2, sharded, weights, state):
        for part in ("model", "optimiser", "norms"):
            assert one[part].keys() == two[part].keys()
            for name, wanted in one[part].items():
                assert torch.allclose(two[part][name], wanted, atol=1e-6), name


def test_names_are_free_of_wrappers() -> None:
    names = ["module.a.b", "_orig_mod.a.b", "module._orig_mod.a.b", "a._orig_mod.b", "a.b"]
    assert {name: list(full_state({name: torch.zeros(1)})) for name in names} == {name: ["a.b"] for name in names}
