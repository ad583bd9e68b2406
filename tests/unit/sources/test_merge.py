"""Finished datasets as one source: their kept clips together, each with all that its own dataset has of it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    outcomes,
    rows,
    run,
    write_recipe,
)
from vidal import recipe as recipes
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.errors import RecipeError, SourceError
from vidal.recipe import Recipe, check
from vidal.revisions.refilter import refilter
from vidal.sources.dataset import DatasetSource


def built(folder: Path, stages: list[Any], clips: dict[str, str], **own: list[Any]) -> Path:
    """A dataset of clips by id with their titles, and columns of the source's own."""
    folder.mkdir()
    with (folder / "list.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["clip_id", "url", "title", *own])
        for row in zip(clips, clips.values(), *own.values(), strict=True):
            table.writerow([row[0], f"{folder.name}-{row[0]}.mp4", *row[1:]])
    recipe = recipes.load(write_recipe(folder, stages, 1), [f"source.list={folder / 'list.csv'}"])
    run(recipe, folder / "out", InProcessEngine())
    return folder / "out"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Video, depth and counted letters of five clips, one of them rejected; the source's own column ``mood``."""
    clips = {"a0": "one", "a1": "two", "a2": "reject", "a3": "three", "both": "four"}
    return built(tmp_path / "a", [PAINT, TROUBLE, SHADE, LETTERS], clips, mood=["m0", "m1", "m2", "m3", "m4"])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Video, audio and captions of six clips, one mute, one failed, one with an id of the first dataset."""
    clips = {"b0": "two", "b1": "mute", "b2": "raise", "b3": "five", "both": "six", "b5": "one"}
    return built(tmp_path / "b", [TROUBLE, PAINT, AUDIO, CAPTION], clips, weight=[1, 2, 3, 4, 5, 6])


def merge(*datasets: Path | str, stages: list[Any] | None = None, **keys: Any) -> Recipe:
    source = {"datasets": [str(address) for address in datasets]}
    return check({"source": source, "shards": {"size": 3}, "stages": stages or [], **keys}, "merged")


@pytest.mark.parametrize(
    ("where", "clips"),
    [("not flag_wrong_caption", {"a1", "a3", "both"}), ("letters > 3 and not flag_unsafe", {"a3", "both"})],
)
def test_a_condition_and_flags_choose_the_clips_of_a_dataset(
    first: Path, tmp_path: Path, where: str, clips: set[str]
) -> None:
    flags.FlagWriter(Dataset.open(str(first)).storage).write("a0", "wrong_caption")
    recipe = check({"source": {"dataset": str(first), "where": where}, "stages": [{FEW_LETTERS: {"min": 1}}]}, "chosen")
    run(recipe, tmp_path / "out", InProcessEngine())
    assert rows(tmp_path / "out").keys() == clips
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


def test_flags_that_changed_make_another_source_and_others_do_not(first: Path) -> None:
    source = DatasetSource(dataset=str(first), where="not flag_wrong_caption")
    writer, before = flags.FlagWriter(Dataset.open(str(first)).storage), source.identity()
    writer.write("a0", "wrong_caption", is_set=False)
    assert source.identity() == before
    writer.write("a0", "wrong_caption")
    assert source.identity() != before


def test_a_condition_that_no_clip_meets_is_one_line(first: Path, tmp_path: Path) -> None:
    recipe = check(
        {"source": {"dataset": str(first), "where": "letters > 99"}, "stages": [{FEW_LETTERS: {"min": 1}}]}, "none"
    )
    with pytest.raises(SourceError, match=r"the dataset has no kept clip that meets where: letters > 99$"):
        run(recipe, tmp_path / "out", InProcessEngine())


def test_a_merge_has_the_kept_clips_of_each_with_their_rows_and_members(
    first: Path, second: Path, tmp_path: Path
) -> None:
    run(merge(first, second), tmp_path / "out", InProcessEngine())
    merged, dataset = rows(tmp_path / "out"), Dataset.open(str(tmp_path / "out"))
    assert dataset.info.layers == ["video", "depth", "audio"] and set(dataset.info.columns) >= {
        "letters",
        "letter_rule",
    }
    before = {**rows(second), **rows(first)}
    wanted = {clip_id for clip_id, row in before.items() if row["status"] == "kept"}
    assert {clip_id for clip_id, row in merged.items() if row["status"] == "kept"} == wanted
    for clip_id in wanted:
        now, then = merged[clip_id], before[clip_id]
        assert now["layers"] == then["layers"]
        for name in ("url", "title", "caption", "letters", "letter_words", "mood", "weight", "frame_times"):
            assert now[name] == then.get(name), (clip_id, name)
        media = [
            {m["name"]: m["sha256"] for m in row["members"] if not m["name"].endswith(".json")} for row in (now, then)
        ]
        assert media[0] == media[1]
    assert list(verify(dataset)) == []


def test_an_id_that_stands_in_both_is_kept_once_and_rejected_as_repeated(
    first: Path, second: Path, tmp_path: Path
) -> None:
    run(merge(second, first), tmp_path / "out", InProcessEngine())
    merged = rows(tmp_path / "out")
    assert merged["both"]["title"] == "six"
    (repeated,) = [row for row in merged.values() if row["status"] == "rejected"]
    assert (repeated["title"], repeated["stage"], repeated["reason"]) == ("four", "plan", "repeated")
    assert not repeated["members"] and len(merged) == 9


STAGES = [LETTERS, {FEW_LETTERS: {"min": 4}}, CAPTION, SAME_TITLE, SHADE]


def test_stages_and_a_global_decision_run_over_all_of_them(first: Path, second: Path, tmp_path: Path) -> None:
    run(merge(first, second, stages=[CAPTION, SAME_TITLE, SHADE]), tmp_path / "out", InProcessEngine())
    found, merged = outcomes(tmp_path / "out"), rows(tmp_path / "out")
    titles = [row["title"] for row in merged.values() if row["status"] == "kept"]
    assert sorted(titles) == ["five", "four", "mute", "one", "three", "two"]
    pairs = {frozenset(("a0", "b5")), frozenset(("a1", "b0"))}
    assert {frozenset((i, row["duplicate_of"])) for i, row in merged.items() if found[i][1] == "duplicate"} == pairs
    assert all({"video", "depth"} <= set(row["layers"]) for row in merged.values() if row["status"] == "kept")
    assert merged["b1"]["layers"] == ["video", "depth"] and merged["b3"]["layers"] == ["video", "depth", "audio"]
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


def test_two_workers_and_a_run_resumed_give_the_same_bytes(first: Path, second: Path, tmp_path: Path) -> None:
    recipe = merge(first, second, stages=STAGES)
    run(recipe, tmp_path / "one", InProcessEngine())
    run(recipe, tmp_path / "two", PoolEngine(2))
    shutil.rmtree(tmp_path / "two" / "depth")
    shutil.rmtree(tmp_path / "two" / "manifest")
    run(recipe, tmp_path / "two", InProcessEngine())
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_revision_is_merged_as_it_is_and_each_dataset_is_part_of_the_identity(second: Path, tmp_path: Path) -> None:
    clips = {"a0": "one", "a1": "three", "a2": "fourteen"}
    first = built(tmp_path / "c", [PAINT, LETTERS, {FEW_LETTERS: {"min": 1}}], clips)
    before = merge(first, second).source.identity()
    refilter(str(first), [f"{FEW_LETTERS}.min=5"])
    assert merge(f"{first}@0", second).source.identity() == before != merge(first, second).source.identity()
    for address, kept in ((first, {"a1", "a2"}), (f"{first}@0", {"a0", "a1", "a2"})):
        run(merge(address, second), tmp_path / f"out{len(kept)}", InProcessEngine())
        assert {
            i for i, row in rows(tmp_path / f"out{len(kept)}").items() if i[0] == "a" and row["status"] == "kept"
        } == kept


def test_the_command_merges_paths_that_start_from_the_recipe(first: Path, second: Path, tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text(yaml.safe_dump({"source": {"datasets": ["a/out", "b/out"]}, "stages": []}))
    for out, more in (("out", []), ("other", ["--set", f"source.datasets=[{second}, {first}]"])):
        done = command("build", path, "--out", tmp_path / out, "--engine", "local", "--workers", "0", *more)
        assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "out")["both"]["title"] == "four" and rows(tmp_path / "other")["both"]["title"] == "six"


def test_a_column_that_two_declare_differently_is_rejected(first: Path, tmp_path: Path) -> None:
    other = built(tmp_path / "b", [PAINT, "tests.letter_toys:HalfLetters"], {"b0": "one"})
    message = (
        rf"{first} has the column `letters` as int \(scores\), {other} as float \(scores\); build one of them anew"
    )
    with pytest.raises(RecipeError, match=message):
        merge(first, other)
    own = built(tmp_path / "c", [PAINT], {"c0": "one"}, letters=["many"])
    with pytest.raises(RecipeError, match="the source has a column `letters` of type string, and a stage declares"):
        run(merge(first, own), tmp_path / "out", InProcessEngine())
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_columns_of_the_sources_that_do_not_agree_are_rejected(first: Path, tmp_path: Path) -> None:
    other = built(tmp_path / "b", [PAINT], {"b0": "one"}, mood=[3])
    with pytest.raises(
        SourceError, match=r"cannot be merged with .*mood.* types: string vs int64; build one of them anew"
    ):
        merge(first, other).source.candidates()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ({"datasets": ["{0}"]}, "source.datasets: List should have at least 2 items"),
        ({"datasets": "{0}"}, "source.datasets: Input should be a valid list"),
        ({"dataset": "{0}"}, "`stages` must be a list of at least one stage; it may be empty only where"),
        ({"datasets": ["{0}", "{0}/none"]}, r"/none: no dataset there \(no dataset.json\)"),
        ({"datasets": ["{0}", "{0}@7"]}, "has no revision 7"),
    ],
)
def test_what_cannot_be_merged_is_rejected(first: Path, source: dict[str, Any], what: str) -> None:
    given = yaml.safe_load(yaml.safe_dump(source).replace("{0}", str(first)))
    with pytest.raises((RecipeError, SourceError), match=what):
        check({"source": given, "stages": []}, "merged").source.candidates()
