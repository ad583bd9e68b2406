"""A usage error is one clear line on stderr and exit code 2; an environment error is one line and exit code 1."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.processes import command, vidal
from tests.runs import BROKEN_SETUP, PAINT, SHADE, TROUBLE, digests, run, write_recipe
from vidal.dataset.lock import Lock
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine

USER, MACHINE = 2, 1


def recipe_over(folder: Path, source: dict[str, str], stages: list[object] | None = None) -> Path:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump({"source": source, "stages": stages or [PAINT]}))
    return path


def list_of(folder: Path, content: str) -> dict[str, str]:
    (folder / "l.csv").write_text(content)
    return {"list": str(folder / "l.csv")}


def fake_ffmpeg(folder: Path, first_line: str) -> str:
    """A program that says it is some FFmpeg or other."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\necho '{first_line}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


Case = tuple[str, Callable[[Path], tuple[list[str], dict[str, str]]], int, str]


def build(make: Callable[[Path], Path], *more: str) -> Callable[[Path], tuple[list[str], dict[str, str]]]:
    def arguments(folder: Path) -> tuple[list[str], dict[str, str]]:
        given = ["build", str(make(folder)), "--engine", "local", "--workers", "0"]
        return ([*given, *(m.format(folder=folder) for m in more)] if "--out" in more
                else [*given, "--out", str(folder / "out"), *(m.format(folder=folder) for m in more)]), {}  # fmt: skip

    return arguments


def with_ffmpeg(first_line: str | None) -> Callable[[Path], tuple[list[str], dict[str, str]]]:
    def arguments(folder: Path) -> tuple[list[str], dict[str, str]]:
        (folder / "a.mp4").write_bytes(b"not looked at")
        recipe = recipe_over(folder, list_of(folder, "url\na.mp4\n"), ["fetch", "probe"])
        binary = str(folder / "no" / "ffmpeg") if first_line is None else fake_ffmpeg(folder, first_line)
        return build(lambda _: recipe)(folder)[0], {"VIDAL_FFMPEG": binary}

    return arguments


def toys(folder: Path) -> Path:
    return write_recipe(folder, [PAINT], 3)


def occupied(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").touch()
    return toys(folder)


def a_file(folder: Path) -> Path:
    (folder / "out").write_text("mine")
    return toys(folder)


def no_dataset_json(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "dataset.json").write_text("{}")
    return toys(folder)


ERRORS: list[Case] = [
    ("no recipe", build(lambda f: f / "no.yaml"), USER, "no.yaml: no such file; it holds"),
    ("unknown setting", build(lambda f: recipe_over(f, {"list": "x.csv"}, [{PAINT: {"pixel": 3}}])), USER,
     "stages[0].tests.engine_toys:Paint: unknown setting `pixel`; it has"),
    ("bad override", build(toys, "--set", "shards.size=0"), USER, "shards.size: Input should be greater than or equal to 1"),
    ("missing list", build(lambda f: recipe_over(f, {"list": "x.csv"})), USER, "x.csv: no such file; source.list names"),
    ("empty list", build(lambda f: recipe_over(f, list_of(f, ""))), USER, "l.csv: the list is empty; it needs a header"),
    ("header only", build(lambda f: recipe_over(f, list_of(f, "url\n"))), USER, "l.csv: no candidate in it"),
    ("no url column", build(lambda f: recipe_over(f, list_of(f, "link\nx\n"))), USER, "l.csv: no column `url` (it has link)"),
    ("missing folder", build(lambda f: recipe_over(f, {"folder": "nowhere"})), USER, "nowhere: no such folder"),
    ("folder without media", build(lambda f: recipe_over(f, {"folder": str(f)})), USER, "no media file under it"),
    ("dataset that is none", build(lambda f: recipe_over(f, {"dataset": str(f)})), USER, "no dataset there"),
    ("annotations that are gone", build(lambda f: recipe_over(f, {"vidal_json": "v.json"})), USER, "v.json: no such file"),
    ("occupied folder", build(occupied), USER, "the folder is not empty and has no dataset.json (it contains thesis.tex)"),
    ("out is a file", build(a_file), USER, "out: is a file; --out must name a folder"),
    ("another's dataset.json", build(no_dataset_json), USER, "dataset.json: not a vidal dataset"),
    ("file as parent", build(toys, "--out", "{folder}/toys.yaml/out"), USER, "toys.yaml/out: part of the path is a file"),
    ("read-only place", build(toys, "--out", "/proc/vidal"), MACHINE, "/proc/vidal: cannot be written: "),
    ("address of no kind", build(toys, "--out", "nonsense://x/y"), USER, "nonsense://x/y: not an address that can be opened"),
    ("minus one worker", build(toys, "--workers", "-1"), USER, "--workers -1: at least 1"),
    ("ray address and local", build(toys, "--ray-address", "auto"), USER, "--ray-address needs --engine ray"),
    ("model missing", build(lambda f: write_recipe(f, [PAINT, BROKEN_SETUP], 3)), MACHINE, "the model's folder is gone"),
    ("ffmpeg missing", with_ffmpeg(None), MACHINE, "VIDAL_FFMPEG"),
    ("ffmpeg too old", with_ffmpeg("ffmpeg version 3.4.2 Copyright"), MACHINE, "VIDAL_FFMPEG"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "code", "line"), ERRORS, ids=[case[0] for case in ERRORS])
def test_an_error_is_one_line_and_an_exit_code(
    name: str, arguments: Callable[[Path], tuple[list[str], dict[str, str]]], code: int, line: str, tmp_path: Path
) -> None:
    given, env = arguments(tmp_path)
    done = command(*given, env=env)
    assert line in done.stderr
    assert done.stderr.startswith("vidal: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_a_folder_of_another_recipe_says_what_differs_and_the_two_ways_out(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, [{PAINT: {"pixels": 8}}, SHADE], 3), tmp_path / "out", InProcessEngine())
    before = digests(tmp_path / "out")
    recipe = write_recipe(tmp_path, [{PAINT: {"pixels": 9}}, TROUBLE], 3)
    done = command("build", recipe, "--out", tmp_path / "out", "--engine", "local")
    assert done.returncode == USER
    assert done.stderr == (
        f"vidal: {tmp_path}/out: was built from a different recipe; differences: stages.shade: present → absent; "
        f"stages.paint.settings.pixels: 8 → 9; stages.trouble: absent → present. "
        f"Choose another --out for the new recipe, or delete {tmp_path}/out to rebuild it\n"
    )
    assert digests(tmp_path / "out") == before


def test_two_drivers_on_one_dataset(tmp_path: Path) -> None:
    recipe, out = toys(tmp_path), tmp_path / "out"
    with Lock(Storage(str(out))):
        rejected = command("build", recipe, "--out", out, "--engine", "local", "--workers", "0")
    assert rejected.returncode == USER
    assert rejected.stderr == (
        f"vidal: {out}: another run (pid {os.getpid()} on {os.uname().nodename}) is writing this dataset; "
        f"wait for it, or choose another --out\n"
    )
    assert command("build", recipe, "--out", out, "--engine", "local", "--workers", "0").returncode == 0


def test_a_build_says_what_it_did_and_a_second_one_that_there_was_nothing_to_do(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT, TROUBLE], ["clip 0", "reject", "raise"])
    given = ["build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0"]
    first = vidal(*given, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    told = json.loads(first.stdout)
    assert (told["candidates"], told["kept"], told["rejected"], told["failed"], told["open"]) == (3, 1, 1, 1, 0)
    assert told["did_nothing"] is False
    second = command(*given)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.startswith(f"{tmp_path}/out: nothing to do, every shard is committed\n")
    assert json.loads(command(*given, "--json").stdout)["did_nothing"] is True
    # A shard that is gone is missed, whatever else lies in the folder.
    (tmp_path / "out/manifest/000000.parquet").rename(tmp_path / "out/manifest/000007.parquet")
    assert json.loads(command(*given, "--json").stdout)["did_nothing"] is False
    assert (tmp_path / "out/manifest/000000.parquet").exists()


@pytest.mark.parametrize("words", ["status", "verify", "why {} x", "retry", "report", "export --out x"])
def test_commands_on_what_is_no_dataset_say_so(words: str, tmp_path: Path) -> None:
    given = words if "{}" in words else f"{words} {{}}"
    done = command(*given.format(tmp_path).split())
    assert (done.returncode, done.stdout) == (USER, "")
    assert done.stderr == f"vidal: {tmp_path}: no dataset there (no dataset.json)\n"


def test_a_clip_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    run(toys(tmp_path), tmp_path / "out", InProcessEngine())
    done = command("why", tmp_path / "out", "nobody")
    assert (done.returncode, done.stderr.count("\n")) == (USER, 1)
    assert "no clip nobody in this dataset" in done.stderr


@pytest.mark.parametrize("again", [False, True], ids=["first run", "second run"])
def test_a_build_in_which_every_candidate_failed_ends_with_the_commonest_reason(again: bool, tmp_path: Path) -> None:
    (tmp_path / "odd.mp4").write_text("no media")
    recipe = recipe_over(tmp_path, list_of(tmp_path, "url\na.mp4\nb.mp4\nodd.mp4\n"), ["fetch", "probe"])
    arguments = ["build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0"]
    done = [command(*arguments) for _ in range(1 + again)][-1]
    assert done.returncode == MACHINE
    assert "every candidate failed, 2 of 3 in stage fetch with reason missing" in done.stderr


def test_an_address_that_is_listed_twice_does_not_hide_that_every_candidate_failed(tmp_path: Path) -> None:
    recipe = recipe_over(tmp_path, list_of(tmp_path, "url\na.mp4\nb.mp4\na.mp4\n"), ["fetch"])
    done = command("build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert (done.returncode, "2 of 2 in stage fetch with reason missing" in done.stderr) == (MACHINE, True)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_crawl_in_which_every_candidate_failed_ends_the_build_that_starts_from_it(
    as_json: bool, tmp_path: Path
) -> None:
    listed = list_of(tmp_path, "url\na.mp4\nb.mp4\n")
    (tmp_path / "crawl.yaml").write_text(f"source: {json.dumps(listed)}\nstages: [fetch, keep_source]\n")
    recipe = tmp_path / "build.yaml"
    recipe.write_text("source: {crawl: crawl.yaml, into: crawled}\nstages: [probe]\n")
    how = ["--engine", "local", "--workers", "0", *(["--json"] if as_json else [])]
    done = command("build", recipe, "--out", tmp_path / "out", *how)
    said = "crawled: every candidate failed, 2 of 2 in stage fetch with reason scheme_not_allowed"
    assert (done.returncode, said in done.stderr) == (MACHINE, True), done.stderr
    assert not as_json or json.loads(done.stdout)["failed"] == 2


def test_a_build_in_which_one_candidate_was_only_rejected_is_done(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT, TROUBLE], ["raise", "reject"])
    assert command("build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0").returncode == 0
