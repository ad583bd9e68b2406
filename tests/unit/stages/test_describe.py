"""`vidal stages`: what a recipe's author needs to know of a stage is read off its class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

import pytest
from pydantic import Field
from typer.testing import CliRunner

from vidal.clip import Clip
from vidal.commands import app
from vidal.errors import RecipeError
from vidal.record import Column
from vidal.stage import Resources, Stage
from vidal.stages import CATALOGUE
from vidal.stages.describe import Catalogue, Description, settings_of


class Colourfulness(Stage):
    """Measures how far the colours are from grey.

    Of every second frame.
    """

    default_resources = Resources(batch_size=4)
    reads = ("video",)
    columns: ClassVar[Mapping[str, Column]] = {
        "colourfulness": Column(float, "mean distance of the colours from grey, 0 = grey")
    }
    every: int = Field(2, ge=1, le=8)
    """Frames from one to the next."""
    names: list[str] = Field(min_length=1)
    space: str | None = None

    def process(self, clip: Clip) -> None:
        """Nothing."""


OWN = f"{__name__}:Colourfulness"


def said(*words: str) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["stages", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_stage_of_the_catalogue_has_a_summary_and_names_what_it_reads_and_writes() -> None:
    assert [stage.name for stage in Catalogue.all()] == list(CATALOGUE)
    assert all(stage.summary.endswith(".") for stage in Catalogue.all())
    assert "too_long: Rejects clips longer than ``max_s`` seconds" in said()
    assert [stage["name"] for stage in json.loads(said("--json"))["stages"]] == list(CATALOGUE)


def test_a_class_without_a_source_has_settings_without_a_meaning() -> None:
    made = type(Stage)("Made", (Stage,), {"__module__": __name__, "__annotations__": {"every": int}, "every": 2})
    told = {setting.name: setting.meaning for setting in settings_of(made)}
    assert told["every"] == "" and told["resources"].startswith("The recipe's overrides")


def test_a_stage_is_told_with_its_settings_and_columns() -> None:
    assert said(OWN).splitlines() == [
        OWN,
        "",
        "Measures how far the colours are from grey.",
        "",
        "Of every second frame.",
        "",
        "  reads   video",
        "  writes  colourfulness",
        "  declares colourfulness: float, in the group scores: mean distance of the colours from grey, 0 = grey",
        "settings",
        "  every: int, default 2, >= 1, <= 8",
        "      Frames from one to the next.",
        "  names: list[str], required, length >= 1",
        "  space: str | null, default null",
        "  resources: Resources | null, default null",
        "      The recipe's overrides of `default_resources`.",
        "  resources.gpus: float, default 0.0, >= 0",
        "      GPUs per worker; on a machine with a GPU, stages that use it run in separate workers.",
        "  resources.batch_size: int, default 4, >= 1",
        *said(OWN).splitlines()[-3:],
    ]


def test_json_has_every_setting_with_its_default_as_a_recipe_writes_it() -> None:
    settings = {setting["name"]: setting for setting in json.loads(said("no_text", "--json"))["settings"]}
    assert (settings["mode"]["type"], settings["mode"]["default"]) == ('"and" | "or"', "and")
    assert (settings["min_words"]["bounds"], settings["min_words"]["is_required"]) == (">= 0", False)


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_stage_can_be_described(name: str) -> None:
    assert json.dumps(Description.of(name).as_json())
    assert list(Description.of(name).lines())


WRONG = [
    ("too_lang", "no stage `too_lang`; did you mean `too_long`?"),
    (
        "vidal.stage:Nothing",
        "no stage `vidal.stage:Nothing` (module 'vidal.stage' has no attribute 'Nothing'); known: ",
    ),
    ("json:dumps", "no stage `json:dumps` (json:dumps is not a stage); known: "),
]


@pytest.mark.parametrize(("name", "line"), WRONG)
def test_a_name_of_no_stage_is_one_line(name: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Description.of(name)
    assert str(caught.value).startswith(line)
