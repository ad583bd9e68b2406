"""The command line mirrors the library: what it prints is what is there, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vidal
from tests.runs import PAINT, SAME_TITLE, TROUBLE, run, write_recipe
from vidal.cli import _guarded, app
from vidal.engine.local import InProcessEngine
from vidal.errors import MachineError, RecipeError, VidalError

TITLES = ["one", "reject", "gone", "raise", "one", "two"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run(write_recipe(folder, [PAINT, TROUBLE, SAME_TITLE], TITLES), folder / "out", InProcessEngine())
    return folder / "out"


def said(*arguments: str | Path) -> str:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_version_is_the_packages() -> None:
    assert said("--version") == f"vidal {vidal.__version__}\n"


def test_every_command_has_a_line_of_help() -> None:
    listed = said("--help")
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
        assert (command.name or command.callback.__name__.replace("_", "-")) in listed


def test_status_reconciles(built: Path) -> None:
    told = json.loads(said("status", built, "--json"))
    assert (told["shards"], told["shards_committed"]) == (2, 2)
    assert told["candidates"] == told["kept"] + told["rejected"] + told["failed"] + told["open"] == 6
    assert {(line["stage"], line["status"], line["reason"], line["clips"]) for line in told["turned_away"]} == {
        ("trouble", "rejected", "unwanted", 1),
        ("trouble", "failed", "rate_limited", 1),
        ("trouble", "failed", "value_error", 1),
        ("same_title", "rejected", "duplicate", 1),
    }
    assert said("status", built).startswith("toys: 2 of 2 shards committed, layers video\n")


WHY = [
    ("c001", "c001 is rejected: stage trouble, unwanted (1 > 0)"),
    (
        "c002",
        "c002 is failed: stage trouble, rate_limited (429); another try may succeed: vidal retry {out} --clip c002",
    ),
    ("c005", "c005 is kept"),
]


@pytest.mark.parametrize(("clip", "sentence"), WHY)
def test_why_says_what_became_of_a_clip(clip: str, sentence: str, built: Path) -> None:
    assert said("why", clip, built).splitlines()[0] == sentence.format(out=built)


def test_why_names_the_clip_that_a_duplicate_repeats(built: Path) -> None:
    told = {clip: json.loads(said("why", clip, built, "--json")) for clip in ("c000", "c004")}
    (repeat,) = [row for row in told.values() if row["status"] == "rejected"]
    (first,) = [row for row in told.values() if row["status"] == "kept"]
    sentence = f"{repeat['clip_id']} is rejected: stage same_title, duplicate (None), repeats {first['clip_id']}"
    assert said("why", repeat["clip_id"], built).splitlines()[0] == sentence


def test_a_build_takes_overrides_and_tells_scripts_in_json(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT], 6)
    given = ["build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0", "--json"]
    told = json.loads(said(*given, "--set", "shards.size=2", "--set", f"{PAINT}.pixels=8"))
    assert (told["kept"], told["did_nothing"]) == (6, False)
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (info["shards"], info["recipe"]["stages"][0]["settings"]["pixels"]) == (3, 8)


CODES: list[tuple[BaseException, int]] = [
    (RecipeError("r.yaml: wrong"), 2),
    (MachineError("the disk is full"), 1),
    (VidalError("odd"), 1),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    assert _guarded(fails) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"vidal: {error}\n")


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        _guarded(lambda: 1 / 0)
