"""In float8 the products of trained layers are rounded, here as torchao emulates it, and nothing else is."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.train.test_parallel import SIDES, encoder_of, recipe_of, step
from vidal import extras
from vidal.errors import MachineError, RecipeError, UserError
from vidal.train import float8
from vidal.train.distributed import World
from vidal.train.parallel import prepared
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import Tune, VisionSettings
from vidal.train.towers.vit import VisionTower

NEEDS_TORCHAO = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is in no other extra: pip install -e '.[float8]'"
)
RECIPE: dict[str, Any] = {"precision": "bf16", "optimiser": {"clip_norm": None}}


def converted(encoder: Encoder) -> set[str]:
    return {name for name, module in encoder.named_modules() if type(module).__name__ == "Float8Linear"}


def gradients(recipe: TrainRecipe, *modes: Tune) -> tuple[float, dict[str, Tensor], set[str]]:
    encoder = encoder_of(*modes)
    before = encoder.state_dict()
    towers = prepared(encoder, recipe, World(), stores_bases=True)
    # Checkpoints and exports know nothing of it.
    assert {name: x.dtype for name, x in encoder.state_dict().items()} == {name: x.dtype for name, x in before.items()}
    result = step(encoder, towers, recipe, World())
    found = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    return result.loss, found, converted(encoder)


@NEEDS_TORCHAO
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_step_is_that_of_bf16_within_the_rounding_of_three_bits(chunk_size: int | None) -> None:
    plain, wanted, none = gradients(recipe_of(**RECIPE, chunk_size=chunk_size), "full", "full")
    loss, found, layers = gradients(recipe_of(**RECIPE, chunk_size=chunk_size, float8=True), "full", "full")
    # Of each layer four projections and the MLP; not the projection to the joint space.
    assert not none and len(layers) == 2 * 2 * 6 and not any("visual_projection" in name for name in layers)
    assert loss == pytest.approx(plain, rel=0.2) and loss != plain
    assert found.keys() == wanted.keys()
    flat = [torch.cat([each[name].flatten() for name in wanted]) for each in (found, wanted)]
    # With eight rows and a scale of 14, roundings of 6 % are a third of the gradient; its direction stays.
    assert 0.9 < torch.cosine_similarity(*flat, dim=0) < 0.9999


@NEEDS_TORCHAO
def test_what_is_frozen_or_an_adapter_is_computed_as_before() -> None:
    recipe = recipe_of(**RECIPE, towers={"depth": {"model": "none", "tune": "attention"}, "audio": {"model": "none", "tune": "lora"}},
                       float8=True)  # fmt: skip
    _, found, layers = gradients(recipe, "attention", "lora")
    assert layers and {name.split(".")[1] for name in layers} == {"depth"} and not any("mlp" in name for name in layers)
    assert any("lora_B" in name for name in found)


def test_a_tower_of_odd_widths_is_refused() -> None:
    odd = VisionSettings(hidden_size=12, layers=1, heads=2, patch_size=4, image_size=8, projection_dim=6, frames=1)
    encoder = Encoder({side: VisionTower(odd) for side in SIDES}, None, pairs={SIDES: None})
    with pytest.raises(RecipeError, match="float8: no layer of the depth tower has widths that are multiples of 16"):
        prepared(encoder, recipe_of(**RECIPE, float8=True), World(), stores_bases=True)


def test_a_gpu_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Stand-ins for a GPU that is not here.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    monkeypatch.setattr(extras, "missing", lambda modules: [])
    with pytest.raises(MachineError) as caught:
        float8.check(recipe_of(**RECIPE, float8=True), torch.device("cuda", 0))
    assert str(caught.value) == (
        "float8 needs a GPU of compute capability 8.9, as of Ada and Hopper; A100 has 8.0: set float8: false"
    )
    float8.check(recipe_of(**RECIPE), torch.device("cuda", 0))


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError) as caught:
        float8.check(recipe_of(**RECIPE, float8=True), torch.device("cpu"))
    assert str(caught.value) == "float8: true needs torchao, which is not installed: pip install 'vidal[float8]'"
