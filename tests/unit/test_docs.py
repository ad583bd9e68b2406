"""The pages are held to the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.conftest import ROOT
from tools import reference
from vidal import commands, modality, recipe
from vidal.stages import CATALOGUE
from vidal.stages.describe import Catalogue, settings_of

PAGES = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")] + sorted(
    (ROOT / "docs").glob("*.md")
)
TEXTS = "".join(page.read_text(encoding="utf-8") for page in PAGES)
RECIPES = sorted((ROOT / "pipelines").rglob("*.yaml"))
APP: Any = typer.main.get_command(commands.app)


def commands_of(path: Path) -> list[str]:
    """The command lines of a page's console blocks, or of a recipe's comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        comments = re.sub(r"\\\n#\s*", "", text)
        return re.findall(r"^#   (\S.*)$", comments, re.M)
    return re.findall(r"^\$ (.*)$", text, re.M)


COMMANDS = [(path, command) for path in [*PAGES, *RECIPES] for command in commands_of(path)]


def parse(command: str) -> None:
    """Read a command line of vidal's as the program does, without running it; raises what the program would print."""
    words = [word for word in shlex.split(command, comments=True) if word != "…"]
    words = words[words.index("vidal") + 1 :]
    to_run = APP
    while hasattr(to_run, "commands"):
        name, words = words[0], words[1:]
        to_run = to_run.commands[name]
    to_run.make_context(name, words)


@pytest.mark.parametrize(("path", "text"), reference.pages().items(), ids=lambda value: value[:40])
def test_a_generated_page_is_up_to_date(path: str, text: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == text, "run `make docs`"


def test_the_references_have_every_stage_and_every_command() -> None:
    stages, commands = (reference.pages()[f"docs/reference-{name}.md"] for name in ("stages", "commands"))
    assert set(re.findall(r"^## (.*)$", stages, re.M)) == {*CATALOGUE}
    assert {name.split()[0] for name in re.findall(r"^### vidal (.*)$", commands, re.M)} == {*APP.commands}


def test_every_setting_says_what_it_means() -> None:
    bare = {stage.name: [one.name for one in stage.settings if not one.meaning] for stage in Catalogue.all()}
    bare["training"] = [one.name for one in reference.training_settings() if not one.meaning]
    for one in modality.all():
        bare[one.layer] = [setting.name for setting in settings_of(one.transform) if not setting.meaning]
    assert {name: settings for name, settings in bare.items() if settings} == {}


def test_every_command_is_shown_on_a_page() -> None:
    shown = set(re.findall(r"^\$ .*?\bvidal ([a-z][a-z-]*)", TEXTS, re.M))
    assert shown == set(APP.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]*))?\)", page.read_text(encoding="utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[f"{path.name}: {command}" for path, command in COMMANDS])
def test_every_command_line_is_one_that_its_program_takes(path: Path, command: str) -> None:
    line = command.replace(".venv/bin/vidal", "vidal")
    if line.startswith("make "):
        words = [word for word in shlex.split(line, comments=True) if "…" not in word]
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
        line = done.stdout.splitlines()[-1].replace(".venv/bin/vidal", "vidal")
    if re.search(r"\bvidal\b", line.partition("#")[0]):
        parse(line)
    elif "open_clip_train" in line:
        from open_clip_train.params import parse_args

        parse_args([word for word in shlex.split(line)[3:] if word != "…"])
    named = [word for word in shlex.split(line, comments=True) if re.fullmatch(r"(pipelines|manifests)/.*", word)]
    assert all(list(ROOT.glob(word)) for word in named), named


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda path: path.name)
def test_every_command_that_a_sentence_names_exists(page: Path) -> None:
    named = set(re.findall(r"`vidal ([a-z][a-z-]*)", page.read_text(encoding="utf-8")))
    assert named <= set(APP.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_runs_is_there(page: Path) -> None:
    named = re.findall(r"python -m ((?:vidal|tools)[\w.]+)", page.read_text(encoding="utf-8"))
    paths = [ROOT / name.replace(".", "/") for name in named]
    assert [path for path in paths if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists())] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", TEXTS, re.M))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(
        r"`((?:vidal|pipelines|manifests|samples|tests|tools|benchmarks|docs)/[\w./-]*)`", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`(?:tests/[\w/]*)?(test_\w+\.py)`", page.read_text(encoding="utf-8")))
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_fault_names_tests_that_are_there_or_says_why_there_is_none() -> None:
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert [row for row in rows if len(row) != 4 or not (row[2] or row[3])] == []
    missing = [
        name
        for row in rows
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
        if not re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []


def test_every_figure_has_a_command_that_is_there() -> None:
    figures = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = [line for line in figures.splitlines() if line.startswith("|")][2:]
    assert rows
    assert all(re.search(r"`(benchmarks/\w+\.py|make [a-z-]+|vidal \w+|python -m [\w.]+)[^`]*`", row) for row in rows)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    # What is added to a dataset has no source of its own.
    has_source = "source" in yaml.safe_load(path.read_text())
    assert recipe.load(path).stages if has_source else recipe.steps_of(path)


@pytest.mark.parametrize(("page", "name"), [("README.md", "shorts.yaml"), ("docs/tutorial.md", "production.yaml")])
def test_a_pages_recipe_is_valid(page: str, name: str) -> None:
    block = re.search(rf"```yaml\n# {name}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert block is not None
    text = re.sub(r"\{list: candidates.csv\}.*", f"{{list: {ROOT / 'manifests' / 'sample.csv'}}}", block.group(1))
    assert recipe.check(yaml.safe_load(text), page).stages
