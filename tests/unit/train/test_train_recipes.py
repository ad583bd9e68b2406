"""Training recipes: those that ship are valid, and an error in one is one line that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from vidal.errors import RecipeError
from vidal.train import recipe as recipes

SHIPPED = sorted((ROOT / "pipelines" / "train").glob("*.yaml"))
SIZES = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}
GOOD = {"text": {"model": "m"}, "towers": {"depth": {"sizes": SIZES}}, "batch_size": 8, "steps": 3}

# What LanguageBind published: lr, batch, warm-up, mask, LoRA rank, epochs.
PUBLISHED = {
    "video": (1e-4, 640, 2000, 0.3, 16, 16),
    "infrared": (1e-4, 1024, 200, 0.5, 2, 1),
    "depth": (5e-4, 1024, 200, 0.5, 2, 1),
    "audio": (5e-4, 512, 2000, 0.3, 16, 8),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert recipes.load(path, []).name


@pytest.mark.parametrize("modality", PUBLISHED)
def test_the_published_settings_are_those_of_the_paper(modality: str) -> None:
    recipe = recipes.load(ROOT / "pipelines" / "train" / f"{modality}.yaml", [])
    tower, optimiser = recipe.towers[modality], recipe.optimiser
    said = (
        optimiser.lr,
        recipe.batch_size,
        optimiser.warmup_steps,
        tower.patch_dropout,
        tower.lora.rank,
        recipe.epochs,
    )
    assert said == PUBLISHED[modality]
    assert (optimiser.betas, optimiser.eps, optimiser.weight_decay) == ((0.9, 0.98), 1e-6, 0.2)
    assert recipe.text.views.weights == {"caption": 1.0}


@pytest.mark.parametrize(("change", "said"), [
    ({"stages": []}, "is a recipe for `vidal build`"),
    ({"batchsize": 8}, "unknown setting `batchsize`"),
    ({"batch_size": 1}, "batch_size: Input should be greater than or equal to 2"),
    ({"epochs": 2}, "set either `epochs` or `steps`"),
    ({"towers": {"smell": {"sizes": SIZES}}}, "no modality `smell`"),
    ({"towers": {"depth": {}}}, "set either `model` or `sizes`"),
    ({"towers": {"depth": {"sizes": SIZES, "transform": {"sise": 3}}}}, "sise"),
    ({"pairs": {"text-video": {}}}, "needs a tower `video`"),
    ({"pairs": {"depth-depth": {}}}, "write two of text"),
    ({"pairs": {"depth-text+audio": {}}}, "needs a tower `audio`; towers has depth"),
    ({"pairs": {"depth-text+smell": {}}}, "for one of the two, several others may stand with + between"),
    ({"pairs": {"depth-text+depth": {}}}, "write two of text"),
    ({"pairs": {"depth+audio-text+video": {}}}, "write two of text"),
    ({"towers": {"depth": {"sizes": SIZES}, "audio": {"sizes": SIZES}}, "pairs": {"audio+text-depth": {}},
      "distil": {"teachers": ["t"]}}, "not those of the fused pair `depth-audio+text`"),
    ({"towers": {"depth": {"sizes": SIZES}, "audio": {"sizes": SIZES}},
      "pairs": {"text-depth": {"weight": 1}, "text-audio": {}}}, "give every pair a weight, or none"),
    ({"float8": True}, "float8 needs `precision: bf16`"),
    ({"float8": True, "precision": "bf16", "fsdp": True}, "float8 does not go with `fsdp`"),
    ({"float8": True, "precision": "bf16", "towers": {"depth": {"sizes": SIZES, "tune": "lora"}}},
     "float8 is for layers that are trained"),
    ({"loss": {"kind": "triplet"}}, "loss.kind: Input should be 'info_nce' or 'sigmoid'"),
    ({"text": {"model": "m", "views": {"captoin": 1}}}, "did you mean caption?"),
    ({"text": {"model": "m", "views": "mixed"}}, "no preset `mixed`"),
])  # fmt: skip
def test_an_error_is_one_line_that_names_the_place(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(RecipeError) as caught:
        recipes.load(path, [])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_override_sets_a_nested_setting(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert recipes.load(path, ["optimiser.lr=3e-5", "towers.depth.patch_dropout=0.5"]).optimiser.lr == 3e-5
    with pytest.raises(RecipeError, match="write key"):
        recipes.load(path, ["batch_size"])


@pytest.mark.parametrize(("change", "shares", "loss_weights"), [
    ({"pairs": {"text-depth": {}, "depth-audio": {}}}, None, {("text", "depth"): [1.0], ("depth", "audio"): [1.0]}),
    ({"pairs": {"text-depth": {"weight": 3}, "depth-audio": {"weight": 1}}}, [3, 1],
     {("text", "depth"): [1.0], ("depth", "audio"): [1.0]}),
    ({"pairs": {"depth-audio": {"weight": 3}, "text-depth": {"weight": 1}}, "pairs_per_step": "all", "epochs": 2,
      "steps": None}, None, {("text", "audio", "depth"): [3.0, 1.0]}),
    ({"pairs": {"text-depth": {}, "depth-audio": {}}, "pairs_per_step": "all"}, None,
     {("text", "audio", "depth"): [1.0, 1.0]}),
])  # fmt: skip
def test_weights_are_shares_of_steps_with_one_pair_and_factors_of_losses_with_all(
    change: dict[str, object], shares: list[float] | None, loss_weights: dict[tuple[str, ...], list[float]]
) -> None:
    recipe = recipes.check(
        {**GOOD, "towers": {"depth": {"sizes": SIZES}, "audio": {"sizes": SIZES}}, **change}, "x.yaml"
    )
    assert recipe.step_shares() == shares
    assert {sides: list(weights.values()) for sides, weights in recipe.loss_weights().items()} == loss_weights


def test_text_stands_first_in_a_pair_and_every_tower_is_paired_with_it_by_default() -> None:
    assert recipes.ordered("audio-text") == ("text", "audio")
    assert recipes.check(dict(GOOD), "x.yaml").pair_settings().keys() == {("text", "depth")}
