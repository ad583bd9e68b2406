"""An ablation from the command line: arms differ in what they say, share what is held out, and are trained once."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import vidal
from tests.learned import RECIPE
from tests.processes import command
from tests.sentence_models import sentence_model
from tools.rendering import learning_set
from vidal.train import recipe as recipes
from vidal.train.run_folder import RunFolder

ARMS: dict[str, Any] = {
    "as-it-is": {},
    "filtered": {"where": "match_score > 0.45"},
    "titles": {"set": {"text.views": {"raw": 1.0}}},
}  # fmt: skip
FOLDER = "ablation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with planted faults, a recipe, arms, and their ablation with two seeds."""
    out = tmp_path_factory.mktemp("ablate")
    learning_set.write(str(out / "set"), clips=64, scenes=8, size=16, workers=1, wrong=0.3, copies=0.2)
    towers = {"video": RECIPE["towers"]["video"]}
    text = {"model": sentence_model(out / "text"), "max_tokens": 16}
    recipe = RECIPE | {"text": text, "towers": towers, "batch_size": 4, "data": {"workers": 0, "heldout": 0.3}}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (out / "arms.yaml").write_text(yaml.safe_dump({"arms": ARMS, "evaluate": {"where": "not caption_is_wrong"}}))
    (out / "told.json").write_text(ablate(out).stdout)
    return out


def ablate(folder: Path, *more: str, seeds: int = 2) -> CompletedProcess[str]:
    return command(
        "ablate", str(folder / "recipe.yaml"), "--arms", str(folder / "arms.yaml"), "--data", str(folder / "set"),
        "--out", str(folder / FOLDER), "--seeds", str(seeds), "--json", *more,
    )  # fmt: skip


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return found


def changed(folder: Path) -> Callable[[], set[str]]:
    """What was written since this was called."""
    before = {path: path.stat().st_mtime_ns for path in (folder / FOLDER).rglob("*") if path.is_file()}
    return lambda: {
        str(path.relative_to(folder / FOLDER))
        for path in (folder / FOLDER).rglob("*")
        if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    }


def test_each_arm_trains_on_its_own_clips_and_none_on_what_is_held_out(folder: Path) -> None:
    untrained = {row["clip_id"] for row in csv.DictReader((folder / FOLDER / "untrained.csv").open())}
    for name, arm in ARMS.items():
        chosen = vidal.open(folder / "set", where=arm.get("where"))
        clips = {chosen.clip_id(i) for i in range(len(chosen))} - untrained
        for seed in (0, 1):
            run = RunFolder(folder / FOLDER / name / f"seed-{seed}")
            assert (run.split(), run.read().recipe["seed"]) == (dict.fromkeys(clips, False), seed)
        assert told(folder)["arms"][name]["clips"] == len(clips)
    assert run.read().settings().text.views.weights == {"raw": 1.0}


def test_it_says_what_each_arm_is_worth_and_what_it_cost(folder: Path) -> None:
    said = told(folder)
    assert (said["seeds"], said["steps"], said["batch_size"]) == (2, 2, 4)
    first, *others = said["arms"].values()
    assert first["difference"] is None and first["differences"] == {}
    for arm in said["arms"].values():
        assert set(arm["recall"]) == {"text_to_video", "video_to_text"} and len(arm["by_seed"]) == 2
        assert arm["mean_recall"] == pytest.approx(sum(arm["by_seed"]) / 2) == sum(arm["recall"].values()) / 2
        assert arm["cpu_s"] > 0 and arm["gpu_s"] is None and arm["passes"] == 8 / arm["clips"]
    for arm in others:
        found = arm["difference"]
        assert found["mean"] == pytest.approx(arm["mean_recall"] - first["mean_recall"])
        assert found["low"] <= found["mean"] <= found["high"] and set(arm["differences"]) == set(arm["recall"])


def test_the_plot_and_the_chosen_recipe_are_there(folder: Path) -> None:
    shown = "".join(ElementTree.parse(folder / FOLDER / "ablation.svg").getroot().itertext())
    assert all(name in shown for name in ARMS)
    chosen = recipes.load(folder / FOLDER / "chosen.yaml", [])
    assert told(folder)["chosen"] == "as-it-is" and chosen == recipes.load(folder / "recipe.yaml", [])


def test_a_finished_run_is_not_trained_again_and_a_seed_more_is_one_run_an_arm(folder: Path) -> None:
    since = changed(folder)
    assert json.loads(ablate(folder).stdout) == told(folder)
    assert since() == {"untrained.csv", "ablation.svg", "chosen.yaml"}
    arm = folder / FOLDER / "titles" / "arm.json"
    written = json.loads(arm.read_text())
    # As an earlier version wrote it, without a setting that has come since.
    del written["recipe"]["pairs_per_step"]
    arm.write_text(json.dumps(written))
    kept = folder / FOLDER / "filtered" / "seed-1.json"
    kept.unlink()
    # Trained, but not evaluated yet: what the training cost is no longer known.
    assert (
        json.loads(ablate(folder).stdout)["arms"]["filtered"]["by_seed"] == told(folder)["arms"]["filtered"]["by_seed"]
    )
    assert json.loads(kept.read_text())["cpu_s"] is None
    assert len(json.loads(ablate(folder, seeds=3).stdout)["arms"]["titles"]["by_seed"]) == 3
    assert {name.split("/")[1] for name in since() if name.endswith("model.safetensors")} == {"seed-2"}


@pytest.mark.parametrize(
    ("arms", "more", "why"),
    [
        ({"as-it-is": {}, "filtered": {"where": "match_score > 0.5"}}, [], "filtered: holds another arm of this name: where: .* → "),
        ({"as-it-is": {}, "few": {"where": "match_score > 0.9"}}, [], "arm few: . clips do not fill a batch of 4; lower batch_size"),
        ({"as-it-is": {}, "typo": {"where": "match > 0.9"}}, [], "no column `match`; near it: text_match, match_score"),
        (ARMS, ["--steps", "3"], "as-it-is: holds another arm of this name: recipe.steps: 2 → 3; delete it, or choose another --out"),
    ],
    ids=["another condition", "few clips", "no such column", "other steps"],
)  # fmt: skip
def test_an_arm_that_cannot_be_trained_or_is_another_is_one_line(
    arms: dict[str, Any], more: list[str], why: str, folder: Path
) -> None:
    before = (folder / "arms.yaml").read_text()
    (folder / "arms.yaml").write_text(
        yaml.safe_dump({"arms": arms, "evaluate": {"where": "not caption_is_wrong"}}, sort_keys=False)
    )
    try:
        done = ablate(folder, *more)
    finally:
        (folder / "arms.yaml").write_text(before)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.search(why, done.stderr), done.stderr
