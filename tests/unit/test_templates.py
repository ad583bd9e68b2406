"""`vidal init`: a recipe that ships becomes one of the user's own, and works as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.processes import command
from tests.runs import outcomes
from vidal import recipe, templates
from vidal.errors import OutputError, UserError
from vidal.train import recipe as training

BUILDS = [name for name in templates.names() if not name.startswith("train/")]
TRAININGS = [name for name in templates.names() if name.startswith("train/")]


@pytest.mark.parametrize("name", BUILDS)
def test_every_template_of_a_build_passes_the_recipe_check(name: str, tmp_path: Path) -> None:
    assert templates.write(tmp_path / "mine.yaml", name).as_json() == {
        "out": str(tmp_path / "mine.yaml"),
        "template": name,
    }
    # What is added to a dataset has no source of its own.
    has_source = "\nsource:" in (tmp_path / "mine.yaml").read_text()
    assert recipe.load(tmp_path / "mine.yaml").stages if has_source else recipe.steps_of(tmp_path / "mine.yaml")
    assert "pipelines/" + name not in (tmp_path / "mine.yaml").read_text()


@pytest.mark.parametrize("name", TRAININGS)
def test_every_template_of_a_training_passes_the_recipe_check(name: str, tmp_path: Path) -> None:
    templates.write(tmp_path / "mine.yaml", name)
    assert training.load(tmp_path / "mine.yaml", []).towers


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"recipe.yaml: is there already; name another file$"):
        templates.write(tmp_path / "recipe.yaml", "own-videos")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["own", "sample", "../pyproject"])
def test_a_template_that_does_not_ship_is_one_line_that_lists_those_that_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^--template {name}: choose from crawl-channel, .*own-videos.*train/depth"):
        templates.write(tmp_path / "recipe.yaml", name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/recipe.yaml: cannot be written: "):
        templates.write(tmp_path / "no" / "recipe.yaml", "own-videos")


CLIPS = ("cat-stare.mp4", "bunny-apple.mp4")


@pytest.fixture
def place(tmp_path: Path, samples: Path) -> Path:
    """A folder with two clips under videos/, and a recipe by `vidal init`."""
    (tmp_path / "videos").mkdir()
    for name in CLIPS:
        shutil.copy(samples / name, tmp_path / "videos")
    done = command("init", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"out": "recipe.yaml", "template": "own-videos"}, done.stderr
    return tmp_path


def build(place: Path) -> set[str]:
    done = command("build", "recipe.yaml", "--out", "data", "--engine", "local", "--workers", "0", cwd=place)
    assert done.returncode == 0, done.stderr
    return {status for status, _ in outcomes(place / "data").values()}


LIST = "{list: candidates.csv}"


@pytest.mark.parametrize("source", ["{folder: videos}", LIST])
def test_the_recipe_of_init_builds_a_folder_or_a_list_up_to_the_models(source: str, place: Path) -> None:
    (place / "candidates.csv").write_text("url\n" + "".join(f"videos/{name}\n" for name in CLIPS))
    text = (place / "recipe.yaml").read_text()
    assert text.count("source: {folder: videos}") == 1 and f"source: {LIST}" in text
    without_models = text.replace("source: {folder: videos}", f"source: {source}").partition("  - ocr")[0]
    (place / "recipe.yaml").write_text(without_models)
    assert build(place) == {"kept"} and len(outcomes(place / "data")) == len(CLIPS)


@pytest.mark.slow
def test_the_recipe_of_init_builds_as_it_is(place: Path) -> None:
    assert build(place) == {"kept"} and len(outcomes(place / "data")) == len(CLIPS)
