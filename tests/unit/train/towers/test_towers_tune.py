"""What each way of tuning trains, and LoRA: fresh equals base, merged equals unmerged."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from vidal.train.towers.settings import LoraSettings, VisionSettings
from vidal.train.towers.tune import merged, tune
from vidal.train.towers.vit import VisionTower

VIDEO = {"frames": 4, "temporal": True}
KINDS: list[dict[str, Any]] = [{}, VIDEO, VIDEO | {"class_embedding_per_frame": True}]


def tower(**settings: Any) -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(
        VisionSettings(hidden_size=32, layers=2, heads=4, patch_size=8, image_size=32, projection_dim=12, **settings)
    )


def clip() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


EXTRAS = {"embeddings.class_embedding", "post_layernorm.weight", "post_layernorm.bias", "visual_projection.weight"}
TEMPORAL_EXTRAS = {"temporal_embedding", "temporal_layer_norm1.weight", "temporal_layer_norm1.bias"}
LORA = {f"{p}_proj.lora_{m}.default.weight" for p in ("q", "k", "v", "out") for m in "AB"}
ATTENTION = {f"{p}_proj.{kind}" for p in ("q", "k", "v", "out") for kind in ("weight", "bias")}

# how, settings of the tower, what is trained outside the layers, what in each layer
TRAINED: list[tuple[Any, dict[str, Any], set[str], set[str]]] = [
    ("lora", {}, EXTRAS, {f"self_attn.{n}" for n in LORA}),
    ("lora", VIDEO, EXTRAS, {f"temporal_attn.{n}" for n in LORA} | TEMPORAL_EXTRAS),
    ("attention", {}, EXTRAS, {f"self_attn.{n}" for n in ATTENTION}),
    ("attention", VIDEO, EXTRAS, {f"temporal_attn.{n}" for n in ATTENTION} | TEMPORAL_EXTRAS),
    ("frozen", VIDEO, set(), set()),
]


@pytest.mark.parametrize(("how", "settings", "outside", "inside"), TRAINED)
def test_what_is_trained(how: Any, settings: dict[str, Any], outside: set[str], inside: set[str]) -> None:
    one = tower(**settings)
    tune(one, how)
    trained = {name for name, parameter in one.named_parameters() if parameter.requires_grad}
    assert trained == outside | {f"encoder.layers.{i}.{name}" for i in range(2) for name in inside}


@pytest.mark.parametrize("settings", [{}, VIDEO])
def test_full_trains_everything(settings: dict[str, Any]) -> None:
    one = tower(**settings)
    tune(one, "frozen")
    tune(one, "full")
    assert all(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("settings", KINDS)
def test_every_trained_parameter_gets_a_gradient_and_no_other(settings: dict[str, Any]) -> None:
    for how in ("lora", "attention", "full"):
        one = tower(**settings)
        tune(one, how)  # type: ignore[arg-type]
        one(clip()).square().sum().backward()
        for name, parameter in one.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (how, name)


@pytest.mark.parametrize("settings", KINDS)
def test_fresh_adapters_change_nothing(settings: dict[str, Any]) -> None:
    base, adapted = tower(**settings).eval(), tower(**settings).eval()
    tune(adapted, "lora", LoraSettings(rank=4))
    assert torch.equal(adapted(clip()), base(clip()))


@pytest.mark.parametrize("rank", [1, 2, 16])
@pytest.mark.parametrize("settings", KINDS)
def test_merged_equals_unmerged(settings: dict[str, Any], rank: int) -> None:
    one = tower(**settings).double().eval()
    base = one(clip().double())
    tune(one, "lora", LoraSettings(rank=rank))
    one.double()
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    plain = merged(one)
    assert plain.state_dict().keys() == tower(**settings).state_dict().keys()
    torch.testing.assert_close(plain(clip().double()), one(clip().double()), rtol=0, atol=1e-12)
    assert (one(clip().double()) - base).abs().max() > 1e-3
    assert merged(plain) is plain


def test_an_adapters_dropout_acts_in_training_only() -> None:
    one = tower()
    tune(one, "lora", LoraSettings(rank=4, dropout=0.5))
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    assert not torch.equal(one(clip()), one(clip()))
    one.eval()
    assert torch.equal(one(clip()), one(clip()))


def test_adapters_stand_on_the_four_projections_only() -> None:
    one = tower(**VIDEO)
    tune(one, "lora")
    modules = {name.split(".lora_")[0] for name, _ in one.named_parameters() if ".lora_" in name}
    assert {re.sub(r"\d+", "N", name) for name in modules} == {
        f"encoder.layers.N.temporal_attn.{p}_proj" for p in ("q", "k", "v", "out")
    }


def test_a_tower_with_adapters_compiles_without_a_graph_break() -> None:
    one = tower(**VIDEO)
    tune(one, "lora", LoraSettings(rank=4, dropout=0.0))
    torch._dynamo.reset()
    compiled = torch.compile(one, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clip()), one(clip()), rtol=0, atol=1e-6)


def test_checkpointing_replays_an_adapters_dropout() -> None:
    grads = []
    for checkpointing in (False, True):
        one = tower(**VIDEO, gradient_checkpointing=checkpointing)
        tune(one, "lora", LoraSettings(rank=4, dropout=0.5))
        torch.manual_seed(5)
        one(clip()).square().sum().backward()
        grads.append({n: p.grad for n, p in one.named_parameters() if p.grad is not None})
    assert all(torch.equal(grad, grads[1][name]) for name, grad in grads[0].items())
