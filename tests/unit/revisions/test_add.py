"""Further stages over a finished dataset: what they write becomes a revision, and all that is there stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import vidal
from tests.processes import command
from tests.runs import (
    AUDIO,
    CAPTION,
    FEW_LETTERS,
    LETTERS,
    PAINT,
    SAME_TITLE,
    SHADE,
    TROUBLE,
    digests,
    problems,
    run,
    write_recipe,
)
from vidal.build import BuildResult, How, add
from vidal.dataset import revisions
from vidal.dataset.dataset import Dataset, write_info
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, RecipeError
from vidal.export.export import write_joint
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import drop

TITLES = ["a", "ab", "abc", "abcd", "abcd", "mute", "reject", "abcdef", "raise"]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Nine candidates in three shards: video and audio, one clip mute, one failed."""
    run(write_recipe(tmp_path, [TROUBLE, PAINT, AUDIO], TITLES), tmp_path / "out", InProcessEngine())
    return tmp_path / "out"


def added(out: Path, stages: list[Any], *, workers: int = 0, **keys: Any) -> BuildResult:
    path = out.with_name("more.yaml")
    path.write_text(yaml.safe_dump({"stages": stages, **keys}))
    return add(path, str(out), How(engine="local", workers=workers), Console(), quiet=True)


def rows(out: Path | str) -> dict[str, dict[str, Any]]:
    return {row["title"]: row for row in Dataset.open(str(out)).rows()}


def test_a_layer_and_columns_are_added_and_nothing_that_is_there_changes(built: Path) -> None:
    before, samples = digests(built), vidal.open(built)
    added(built, [SHADE, LETTERS])
    after = digests(built)
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[2] for name in after if name.endswith(".tar") and name not in before} == {"depth"}
    assert problems(built) == []
    both = vidal.open(built)
    assert len(both) == len(samples) and both.layers == ["video", "audio", "depth"]
    assert both[0]["depth"].shape == (2, 16, 16) and (both[0]["video"] == samples[0]["video"]).all()
    assert {title: row["letters"] for title, row in rows(built).items() if row["status"] == "kept"}["abcdef"] == 6
    assert "letters" not in rows(f"{built}@0")["abc"]


def test_only_what_a_stage_reads_is_read(built: Path) -> None:
    shutil.rmtree(built / "audio")
    assert added(built, [SHADE]).funnel.kept == 7


def test_every_candidate_keeps_its_row_and_a_rejected_one_its_members(built: Path) -> None:
    added(built, [LETTERS, {FEW_LETTERS: {"min": 3}}, SHADE])
    row = rows(built)["ab"]
    assert (row["status"], row["stage"], row["decided_value"]) == ("rejected", "few_letters", 2)
    assert {member["layer"] for member in row["members"]} == {"video", "audio"}
    assert rows(built)["raise"]["stage"] == "trouble" and rows(built)["mute"]["layers"] == ["video", "depth"]
    assert problems(built) == []
    refilter(str(built), [f"{FEW_LETTERS}.min=4"])
    assert rows(built)["abc"]["status"] == "rejected" and problems(built) == []


def test_a_stage_added_anew_is_refiltered_by_its_name(built: Path) -> None:
    added(built, [LETTERS, {FEW_LETTERS: {"min": 2}}, SHADE])
    added(built, [{FEW_LETTERS: {"min": 3}}])
    stages = Dataset.open(str(built)).info.recipe["stages"]
    refilter(str(built), [f"{FEW_LETTERS}.min=4"])
    assert Dataset.open(str(built)).info.recipe["stages"] == [*stages[:-1], {**stages[-1], "settings": {"min": 4}}]
    assert problems(built) == []


def test_stages_are_added_to_a_dataset_that_no_recipe_built(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT], ["a", "ab", "abc", "abcd", "abcd", "mute"]), out, InProcessEngine())
    info = Dataset.open(str(out)).info
    # As a rendered set is written.
    write_info(Storage(str(out)), info.model_copy(update={"recipe": {"clips": 6}, "definition": {}}))
    more = [LETTERS, SAME_TITLE, {FEW_LETTERS: {"min": 3}}]
    assert added(out, more).funnel.kept == 3 and problems(out) == []
    assert added(out, more).did_nothing
    assert refilter(str(out), [f"{FEW_LETTERS}.min=4"]).kept == 2 and problems(out) == []


def test_a_global_decision_is_added(built: Path) -> None:
    added(built, [LETTERS, SAME_TITLE, SHADE])
    repeated = [row for row in Dataset.open(str(built)).rows() if row["reason"] == "duplicate"]
    assert [row["title"] for row in repeated] == ["abcd"] and "depth" not in repeated[0]["layers"]
    assert problems(built) == [] and len(vidal.open(built)) == 6


def test_a_second_addition_stands_on_the_first(built: Path, tmp_path: Path) -> None:
    added(built, [SHADE])
    added(built, [CAPTION])
    dataset = Dataset.open(str(built))
    assert dataset.number == 2 and dataset.tar("depth", 0) == "revisions/1/depth/000000.tar"
    assert vidal.open(built)[0]["texts"]["caption"] and problems(built) == []
    assert write_joint(dataset, str(tmp_path / "joint")).clips == 7
    with pytest.raises(OutputError, match="revision 2 is based on revision 1; drop it first"):
        drop(str(built), 1)


def test_a_column_that_is_there_gets_another_value_in_the_revision_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, CAPTION], ["one", "two"]), out, InProcessEngine())
    added(out, ["tests.engine_toys:Shout"])
    assert rows(out)["one"]["caption"] == "ONE" and rows(f"{out}@0")["one"]["caption"] == "one"


def test_two_workers_give_the_bytes_of_one(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "pool" / "out")
    added(built, [LETTERS, SAME_TITLE, SHADE])
    added(tmp_path / "pool" / "out", [LETTERS, SAME_TITLE, SHADE], workers=2)
    assert digests(built) == digests(tmp_path / "pool" / "out")


def test_the_same_addition_again_does_nothing_and_says_so(built: Path) -> None:
    added(built, [SHADE])
    before = digests(built)
    assert added(built, [SHADE]).did_nothing
    assert digests(built) == before


def test_an_addition_that_died_resumes_and_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "calm" / "out")
    added(tmp_path / "calm" / "out", [SHADE, LETTERS])
    (built / "revisions" / "1" / "depth").mkdir(parents=True)
    added(built, [SHADE, LETTERS])
    for name in ("current.json", "1/manifest/000001.parquet"):
        (built / "revisions" / name).unlink()
    assert vidal.open(built).layers == ["video", "audio"]
    added(built, [SHADE, LETTERS])
    assert digests(built) == digests(tmp_path / "calm" / "out")


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ({"stages": [PAINT]}, "paint writes the layer video, which .* has; build a new dataset"),
        (
            {"stages": [{"blur_faces": {"detector": "tests.detectors:load"}}]},
            "blur_faces writes the layer video, which .* has; build a new dataset from it to replace the layer",
        ),
        ({"stages": [SHADE], "source": {"list": "x.csv"}}, "remove `source`"),
        ({"stages": ["media"]}, "media reads `source_file`, which nothing before it writes"),
        ({"stages": []}, "`stages` must be a list of at least one stage"),
    ],
)
def test_what_cannot_be_added_is_rejected(built: Path, recipe: dict[str, Any], what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        added(built, **recipe)
    assert revisions.numbers(Storage(str(built))) == []


def test_the_command_adds(built: Path) -> None:
    path = built.with_name("more.yaml")
    path.write_text(yaml.safe_dump({"stages": [SHADE]}))
    done = command("add", path, built, "--engine", "local", "--workers", "0")
    assert done.returncode == 0 and "kept" in done.stdout, done.stderr
    assert Dataset.open(str(built)).info.made_by == "vidal add more.yaml"


def test_a_stage_in_which_every_kept_clip_fails_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 4}}, PAINT], ["raise", "raise", "a"]),
        out,
        InProcessEngine(),
    )
    verdict = added(out, [TROUBLE]).verdict()
    assert verdict is not None and "2 of 2 in stage trouble with reason" in str(verdict)
