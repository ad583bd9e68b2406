"""Arms change the recipe or the data, and nothing that would make them train for longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.learned import RECIPE
from vidal.ablate.arms import Design, design
from vidal.errors import RecipeError


def designed(folder: Path, arms: Any, recipe: dict[str, Any] = RECIPE, **options: Any) -> Design:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "arms.yaml").write_text(yaml.safe_dump(arms))
    return design(folder / "recipe.yaml", folder / "arms.yaml", ["set"], **options)


def test_an_arm_changes_recipe_condition_and_data_and_the_first_one_nothing(tmp_path: Path) -> None:
    arms = {"as-it-is": {}, "other": {"set": {"text.views": {"raw": 1}}, "where": "b > 1", "data": "elsewhere"}}
    told = designed(tmp_path, {"arms": arms}, where="a or c", overrides=["optimiser.lr=0.5"], steps=7)
    first, other = told.trainings.values()
    assert (first.where, first.data, first.recipe) == ("(a or c)", ("set",), told.base)
    assert (other.where, other.data) == ("(a or c) and (b > 1)", ("elsewhere",))
    assert other.recipe.text.views.weights == {"raw": 1}
    assert {(arm.recipe.steps, arm.recipe.optimiser.lr) for arm in (first, other)} == {(7, 0.5)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"set": {"steps": 9}}, "arm b: sets `steps`, which is the same for all arms; set it by --set, for all"),
        ({"set": {"batch_size": 4}}, "arm b: sets `batch_size`, which is the same"),
        ({"set": {"seed": 1}}, "arm b: sets `seed`, which is the same"),
        ({"set": {"towers": {"audio": RECIPE["towers"]["audio"]}}}, "arm b: does not train text-video, by which arms"),
        ({"set": {"text.view": "mix"}}, "arm b: .*unknown setting `text.view`"),
        ({"filter": "x"}, "unknown setting `arms.b.filter`"),
    ],
)
def test_an_arm_that_cannot_be_compared_is_one_line(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=why):
        designed(tmp_path, {"arms": {"a": {}, "b": change}})


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ({"a": {}}, "at least 2 items"),
        ({"a": {}, "../b": {}}, "arm `../b`: a name has letters, digits, - and _ only"),
        ({"a": {}, "b\n": {}}, "a name has letters"),
    ],
)
def test_two_arms_with_names_of_folders_are_needed(arms: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=why):
        designed(tmp_path, {"arms": arms})


def test_epochs_are_no_length_that_arms_share(tmp_path: Path) -> None:
    recipe = {key: value for key, value in RECIPE.items() if key != "steps"} | {"epochs": 2}
    with pytest.raises(RecipeError, match="every arm has the same number of steps; give it by --steps"):
        designed(tmp_path, {"arms": {"a": {}, "b": {}}}, recipe)
    assert designed(tmp_path, {"arms": {"a": {}, "b": {}}}, recipe, steps=3).base.steps == 3
