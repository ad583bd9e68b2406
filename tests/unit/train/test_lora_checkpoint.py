"""A run of adapters stores what it trains; the frozen rest comes from the recipe's model, which has to be the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from tests import learned
from tests.clip_folders import clip_folder
from tests.processes import command
from vidal.errors import ModelError, OutputError
from vidal.train import load_encoder
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.checkpoint import Checkpoints
from vidal.train.run import train
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.export import save_folder

CLIP = torch.rand(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learning set, a CLIP folder, and three runs of temporal adapters and an average: of the same recipe, one that
    stores all, and one whose start is the first."""
    here = tmp_path_factory.mktemp("lora")
    learned.small_set(here / "set")
    clip_folder(here / "clip")
    run(here, "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "base_digests", lambda self: {})
        run(here, "all")
    run(here, "next", init_from=str(here / "run"))
    return here


def recipe_of(folder: Path, **change: Any) -> recipes.TrainRecipe:
    video = {"model": str(folder / "clip"), "tune": "lora", "lora": {"rank": 2}, "frames": 2, "temporal": True}
    raw = learned.RECIPE | {
        "towers": {"video": video}, "steps": 3, "checkpoints": {"every_steps": 1},
        "optimiser": {"lr": 1e-2, "ema": 0.5},
    }  # fmt: skip
    return recipes.check(raw | change, "lora.yaml")


def run(folder: Path, out: str, *, resume: bool = False, **change: Any) -> None:
    recipe = recipe_of(folder, **change)
    data, place = str(folder / "set"), str(folder / out)
    train(recipe, [data], place, Console(quiet=True), quiet=True, device="cpu", resume=resume)


def newest(run: Path) -> Path:
    return run / "checkpoints" / "000003"


def test_what_is_trained_is_stored_and_the_rest_is_a_digest(folder: Path) -> None:
    stored, everything = (load_file(newest(folder / name) / "model.safetensors") for name in ("run", "all"))
    trained = {name for name, p in build_encoder(recipe_of(folder)).named_parameters() if p.requires_grad}
    assert stored.keys() == trained and any(".lora_A" in name for name in trained)
    assert all(torch.equal(everything[name], tensor) for name, tensor in stored.items())
    frozen = sum(tensor.nbytes for name, tensor in everything.items() if name not in trained)
    sizes = [(newest(folder / name) / "model.safetensors").stat().st_size for name in ("run", "all")]
    assert sizes[0] < sizes[1] - frozen < 2 * sizes[0]
    latest = Checkpoints(folder / "run").latest()
    assert latest is not None and latest.bases() == build_encoder(recipe_of(folder)).base_digests()


@pytest.mark.parametrize("checkpoint", ["", "@000002"])
def test_its_encoder_is_that_of_a_run_that_stores_all(checkpoint: str, folder: Path, tmp_path: Path) -> None:
    ours, whole = (load_encoder(f"{folder / name}{checkpoint}") for name in ("run", "all"))
    assert torch.equal(ours.encode("video", CLIP), whole.encode("video", CLIP))
    untrained = build_encoder(recipe_of(folder)).eval()
    assert not torch.allclose(ours.encode("video", CLIP), untrained.encode("video", CLIP), atol=1e-3)
    exported = load_encoder(save_folder(ours, tmp_path / "out"))
    torch.testing.assert_close(exported.encode("video", CLIP), ours.encode("video", CLIP), atol=1e-5, rtol=0)


def test_it_embeds_and_is_searched(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "embeddings"
    for arguments in (
        ["embed", folder / "set", "--checkpoint", folder / "run", "--out", out],
        ["search", "a red ball", "--embeddings", out, "--top", "1"],
    ):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")


def test_it_resumes_bitwise(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(newest(tmp_path / "run"))
    train(
        recipe_of(folder), [str(folder / "set")], str(tmp_path / "run"), Console(quiet=True), quiet=True,
        device="cpu", resume=True,
    )  # fmt: skip
    for name in ("model.safetensors", "optimiser.safetensors"):
        again, once = (load_file(newest(place) / name) for place in (tmp_path / "run", folder / "run"))
        assert again.keys() == once.keys() and all(torch.equal(again[key], once[key]) for key in once)


@pytest.fixture
def other_model(folder: Path) -> Iterator[None]:
    """The folder of the recipe's model holds one with another weight in it."""
    path = folder / "clip" / "model.safetensors"
    before = path.read_bytes()
    weights = load_file(path)
    weights["vision_model.encoder.layers.0.mlp.fc1.weight"][0, 0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    yield
    path.write_bytes(before)


@pytest.mark.usefixtures("other_model")
def test_another_base_is_refused_in_a_line(folder: Path) -> None:
    said = r"000003: its video tower was trained on other frozen weights than the recipe's model gives now[^\n]*$"
    with pytest.raises(ModelError, match=said):
        load_encoder(folder / "run")
    with pytest.raises(OutputError, match=said[:-2]):
        run(folder, "run", resume=True)


def test_a_run_that_starts_from_another_stores_all(folder: Path, tmp_path: Path) -> None:
    embeddings = load_encoder(folder / "next").encode("video", CLIP)
    stored = load_file(newest(folder / "next") / "model.safetensors")
    assert any("base_layer" in name for name in stored)
    shutil.move(folder / "run", tmp_path / "run")
    try:
        assert torch.equal(load_encoder(folder / "next").encode("video", CLIP), embeddings)
    finally:
        shutil.move(tmp_path / "run", folder / "run")
