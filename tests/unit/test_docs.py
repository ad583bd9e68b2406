"""The pages are held to the code."""

from __future__ import annotations

import re

import pytest
import typer

from tests.conftest import ROOT
from vidal import cli, recipe
from vidal.stages.table import with_table

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_stage_table_is_that_of_the_catalogue() -> None:
    assert with_table(README) == README, "run `make docs`"


def test_every_command_of_the_readme_exists_and_every_command_is_in_it() -> None:
    commands = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    told = set(re.findall(r"^\$ (?:\.venv/bin/)?vidal ([a-z]+)", README, re.M))
    assert told == commands


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", README, re.M))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page) -> None:
    named = re.findall(r"`((?:vidal|pipelines|manifests|samples|tests|benchmarks|docs)/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_figure_has_a_command_that_is_there() -> None:
    figures = README.split("## Figures")[1].split("\n## ")[0]
    rows = [line for line in figures.splitlines() if line.startswith("|")][2:]
    assert rows
    assert all(re.search(r"`(benchmarks/\w+\.py|make [a-z-]+|vidal \w+|python -m [\w.]+)[^`]*`", row) for row in rows)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_sound(path) -> None:
    assert recipe.load(path).stages


def test_the_readmes_recipe_is_sound() -> None:
    block = re.search(r"```yaml\n# shorts.yaml\n(.*?)```", README, re.S)
    assert block is not None
    text = re.sub(r"\{list: candidates.csv\}.*", f"{{list: {ROOT / 'manifests' / 'sample.csv'}}}", block.group(1))
    import yaml

    assert recipe.check(yaml.safe_load(text), "README.md").stages
