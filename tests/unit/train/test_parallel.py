"""The towers as they are trained: frozen weights in half precision, sharded ones, and towers that only run forward."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ranks import on_ranks
from vidal.train.data.loader import Batch
from vidal.train.distributed import World
from vidal.train.loop import StepResult, Trainer
from vidal.train.optim import Optimisation
from vidal.train.parallel import as_written, compiles, matmul_precision, prepared
from vidal.train.recipe import Precision, TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import LoraSettings, Tune, VisionSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

ROWS = 8
SIDES = ("depth", "audio")
SIZES = VisionSettings(hidden_size=16, layers=2, heads=2, patch_size=4, image_size=8, projection_dim=6, frames=1)


def recipe_of(**settings: Any) -> TrainRecipe:
    towers = {side: {"model": "none"} for side in SIDES}
    given = {"text": {"model": "none"}, "towers": towers, "pairs": {"depth-audio": {}}, "batch_size": ROWS, "steps": 2}
    return TrainRecipe.model_validate(given | settings)


def encoder_of(*modes: Tune) -> Encoder:
    torch.manual_seed(0)
    towers = {side: VisionTower(SIZES) for side in SIDES}
    for tower, mode in zip(towers.values(), modes, strict=True):
        tune(tower, mode, LoraSettings(rank=2))
    for name, parameter in nn.ModuleDict(towers).named_parameters():
        if "lora_B" in name:
            # At zero, the adapters' first factors would get no gradient.
            nn.init.normal_(parameter, std=0.1)
    return Encoder(towers, None, pairs={SIDES: None})


def batch(rank: int = 0, ranks: int = 1) -> Batch:
    rows = ROWS // ranks
    own = slice(rank * rows, (rank + 1) * rows)
    valid = torch.ones(rows, dtype=torch.bool)
    pixels = torch.Generator().manual_seed(1)
    return Batch(
        step=0, epoch=0, sides=SIDES, texts=[], tokens=None, valid=valid, broken_rows=~valid, group=torch.arange(rows),
        clip_group=torch.arange(rows),
        inputs={side: torch.randn(ROWS, 3, 8, 8, generator=pixels)[own] for side in SIDES},  # type: ignore[misc]
        first=own.start, step_rows=ROWS, clip_ids=["x"] * rows, samples=rows, nbytes=0,
    )  # fmt: skip


def step(encoder: Encoder, towers: dict[str, nn.Module], recipe: TrainRecipe, here: World) -> StepResult:
    trainer = Trainer(
        recipe, encoder, towers, Optimisation(encoder, recipe.optimiser, 2), None,  # type: ignore[arg-type]  # no text
        here, threading.Event(),
    )  # fmt: skip
    (result,) = trainer.steps(iter([batch(here.rank, here.size)]))
    return result


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_frozen_weights_in_half_precision_give_the_same_bits(chunk_size: int | None) -> None:
    recipe = recipe_of(precision="bf16", chunk_size=chunk_size)
    gradients: list[dict[str, Tensor]] = []
    for stores_bases in (True, False):
        encoder = encoder_of("lora", "lora")
        towers = prepared(encoder, recipe, World(), stores_bases=stores_bases)
        types = {p.dtype for m in encoder.modules() if isinstance(m, nn.Linear) for p in m.parameters(recurse=False)}
        assert types == ({torch.float32} if stores_bases else {torch.float32, torch.bfloat16})
        step(encoder, towers, recipe, World())
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    assert all(torch.equal(gradients[1][name], gradient) for name, gradient in gradients[0].items())


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_frozen_tower_takes_part_and_gets_no_gradient(chunk_size: int | None) -> None:
    recipe = recipe_of(chunk_size=chunk_size)
    encoder = encoder_of("frozen", "full")
    assert step(encoder, prepared(encoder, recipe, World(), stores_bases=True), recipe, World()).is_finite
    with_gradient = {name.split(".")[1] for name, p in encoder.named_parameters() if p.grad is not None}
    assert with_gradient == {"audio", "depth-audio"}


def sharded(rank: int, ranks: int, precision: Precision) -> dict[str, Any]:
    recipe = recipe_of(precision=precision, fsdp=True, optimiser={"clip_norm": None}, chunk_size=1, kept_chunks=2)
    encoder, here = encoder_of("full", "full"), World(rank=rank, size=ranks)
    towers = prepared(encoder, recipe, here, stores_bases=True)
    seen: set[torch.dtype] = set()
    encoder.tower("depth").encoder.layers[0].mlp.fc1.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda module, _: seen.add(module.weight.dtype)
    )
    result = step(encoder, towers, recipe, here)
    kept = {p.dtype for p in encoder.parameters()} | {p.grad.dtype for p in encoder.parameters() if p.grad is not None}
    return {"computed": seen, "kept": kept, "numbers": [result.loss, result.grad_norm]}


@pytest.mark.parametrize(
    ("precision", "computed", "tolerance"), [("fp32", torch.float32, 1e-5), ("bf16", torch.bfloat16, 2e-2)]
)
def test_sharded_weights_are_gathered_in_the_precision_of_the_run_and_kept_in_float32(
    precision: Precision, computed: torch.dtype, tolerance: float
) -> None:
    encoder = encoder_of("full", "full")
    alone = step(encoder, dict(encoder.towers), recipe_of(optimiser={"clip_norm": None}), World())
    for rank in on_ranks(2, sharded, precision):
        assert rank["computed"] == {computed} and rank["kept"] == {torch.float32}
        assert rank["numbers"] == pytest.approx([alone.loss, alone.grad_norm], rel=tolerance)


@pytest.mark.parametrize(
    ("stated", "device", "compiler", "wanted"),
    [(None, "cpu", "gcc", False), (None, "cuda", "gcc", True), (None, "cuda", None, False), (True, "cpu", None, True),
     (False, "cuda", "gcc", False)],
)  # fmt: skip
def test_towers_are_compiled_by_default_on_a_gpu_beside_a_c_compiler(
    stated: bool | None, device: str, compiler: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name if name == compiler else None)
    assert compiles(recipe_of(compile=stated), World(device=torch.device(device))) is wanted


def test_compiled_towers_run_as_written_where_they_evaluate() -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    tower = VisionTower(SIZES)
    tower.compile(backend=backend)
    with as_written(recipe_of(compile=True), World()), torch.no_grad():
        tower(torch.zeros(1, 3, 8, 8))
        assert not graphs
    with torch.no_grad():
        tower(torch.zeros(1, 3, 8, 8))
    assert graphs


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", "highest"), ("tf32", "high"), ("bf16", "high")])
def test_float32_products_run_in_tf32_unless_full_precision_is_asked_for(precision: Precision, wanted: str) -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision(precision):
        assert torch.get_float32_matmul_precision() == wanted
    assert torch.get_float32_matmul_precision() == before
