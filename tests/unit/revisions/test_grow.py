"""Further candidates for a finished dataset: new shards behind those that are there, no byte of which changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

import vidal
from tests.processes import command
from tests.runs import (
    CAPTION,
    FEW_LETTERS,
    LETTERS,
    PAINT,
    SAME_TITLE,
    SHADE,
    TROUBLE,
    digests,
    problems,
    rows_in_order,
    run,
    write_list,
    write_recipe,
)
from vidal.build import BuildResult, How, add, grow
from vidal.dataset.dataset import Dataset
from vidal.dataset.find import find
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, RecipeError, UserError
from vidal.export.export import write_joint
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import drop

OLD = ["a", "ab", "abc", "abcd", "abcde", "abcdef"]
NEW = ["x", "xy", "xyz", "xyz", "xyzabc", "xyzabcd", "xyzabcde"]
STAGES = [LETTERS, {FEW_LETTERS: {"min": 2}}, PAINT, SAME_TITLE, SHADE]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Six candidates in two shards of at most four."""
    run(write_recipe(tmp_path, STAGES, OLD), tmp_path / "out", InProcessEngine())
    return tmp_path / "out"


@pytest.fixture
def longer(tmp_path: Path) -> str:
    """A list of the same six candidates and seven more."""
    (tmp_path / "longer").mkdir()
    return f"list={write_list(tmp_path / 'longer', [*OLD, *NEW])}"


def grown(out: Path, *source: str, workers: int = 0) -> BuildResult:
    return grow(str(out), source, How(engine="local", workers=workers), Console(), quiet=True)


def test_a_longer_list_adds_its_new_candidates_as_further_shards(built: Path, longer: str, tmp_path: Path) -> None:
    before = digests(built)
    result = grown(built, longer)
    after, dataset = digests(built), Dataset.open(str(built))
    assert {name: after[name] for name in before} == before and problems(built) == []
    assert {
        name: after[f"revisions/1/{name}"] for name in before if name.startswith("manifest/")
    }.items() <= before.items()
    assert (dataset.info.candidates, dataset.info.shards, result.funnel.candidates) == (13, 4, 13)
    assert [row["title"] for row in rows_in_order(built)[:6]] == [row["title"] for row in rows_in_order(f"{built}@0")]
    assert sorted(row["title"] for row in rows_in_order(built)[6:]) == sorted(NEW)
    assert [(row["shard"], row["position"]) for row in rows_in_order(built)] == [
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 4), (1, 5), *((2, 6 + k) for k in range(4)), *((3, 10 + k) for k in range(3)),
    ]  # fmt: skip
    samples = vidal.open(built)
    assert len(samples) == 10 and {samples[i]["depth"].shape for i in range(10)} == {(2, 16, 16)}
    assert write_joint(dataset, str(tmp_path / "joint")).clips == 10
    new = next(row for row in rows_in_order(built) if row["title"] == "xyzabc")
    assert find(dataset, new["clip_id"]).row["shard"] == new["shard"]


def test_the_same_list_again_does_nothing_and_says_so(built: Path, longer: str) -> None:
    grown(built, longer)
    before = digests(built)
    assert grown(built, longer).did_nothing
    assert digests(built) == before


def test_it_grows_again_and_takes_part_in_every_other_revision(built: Path, longer: str, tmp_path: Path) -> None:
    (tmp_path / "third").mkdir()
    grown(built, longer)
    grown(built, f"list={write_list(tmp_path / 'third', [*OLD, *NEW, *['z' * n for n in range(1, 6)]])}")
    assert Dataset.open(str(built)).info.shards == 6 and problems(built) == []
    more = tmp_path / "more.yaml"
    more.write_text(f"stages: [{CAPTION}]")
    add(more, str(built), How(engine="local", workers=0), Console(), quiet=True)
    refilter(str(built), [f"{FEW_LETTERS}.min=3"])
    assert problems(built) == [] and {row["caption"] for row in rows_in_order(built) if row["status"] == "kept"} >= {
        "zzz",
        "abc",
    }
    with pytest.raises(OutputError, match="revision 2 is based on revision 1; drop it first"):
        drop(str(built), 1)


def test_a_looser_refilter_of_a_growth_brings_back_what_a_stricter_one_before_it_rejected(
    built: Path, longer: str
) -> None:
    def of_each(address: Path | str) -> list[tuple[str, str, str]]:
        return [(row["title"], row["status"], row["reason"]) for row in rows_in_order(address)]

    refilter(str(built), [f"{FEW_LETTERS}.min=4"])
    grown(built, longer)
    # The last candidates are built by the strict filter, so no stage behind it has run on the shorter of them.
    assert refilter(str(built), [f"{FEW_LETTERS}.min=2"]).kept == 5 + 3
    assert of_each(built)[:6] == of_each(f"{built}@0") and problems(built) == []
    reasons = {title: reason for title, _, reason in of_each(built)[6:]}
    assert {title for title, reason in reasons.items() if reason == "not_processed"} == {"xy", "xyz"}
    # Strict again, and loose again: nothing was lost on the way.
    assert refilter(str(built), [f"{FEW_LETTERS}.min=4"]).kept == 3 + 3
    assert refilter(str(built), [f"{FEW_LETTERS}.min=2"]).kept == 5 + 3


def test_two_workers_give_the_bytes_of_one_and_a_growth_that_died_resumes(
    built: Path, longer: str, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "pool" / "out")
    grown(built, longer)
    for name in ("current.json", "1/dataset.json", "1/manifest/000003.parquet", "1/grown/manifest/000001.parquet"):
        (built / "revisions" / name).unlink()
    assert len(vidal.open(built)) == 5
    with pytest.raises(OutputError, match="revision 1 was begun by vidal grow and is not finished"):
        refilter(str(built), [f"{FEW_LETTERS}.min=3"])
    grown(built, longer)
    # From the folder of the other one, so that addresses in it are the same.
    (tmp_path / "calm").mkdir()
    built.rename(tmp_path / "calm" / "out")
    (tmp_path / "pool" / "out").rename(built)
    grown(built, longer, workers=2)
    assert digests(built) == digests(tmp_path / "calm" / "out")


@pytest.mark.parametrize(
    ("source", "error", "what"),
    [
        ("more.csv", UserError, "--source more.csv: write kind=value, such as list=more.csv"),
        ("lst=more.csv", RecipeError, "`source` has|unknown|not permitted"),
    ],
)
def test_a_source_that_cannot_be_is_rejected(built: Path, source: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        grown(built, source)


def test_the_command_grows(built: Path, longer: str) -> None:
    done = command("grow", built, "--source", longer, "--engine", "local", "--workers", "0")
    assert done.returncode == 0 and "13 candidates" in done.stdout, done.stderr
    assert Dataset.open(str(built)).info.made_by == f"vidal grow {longer}"


def test_the_notes_of_both_lists_stay_with_the_plan(tmp_path: Path) -> None:
    out, path = tmp_path / "out", write_recipe(tmp_path, [PAINT], ["a", "b"])
    listed = tmp_path / "candidates.csv"
    listed.write_text("clip_id,url,age_limit\nc000,0.mp4,18+\nc001,1.mp4,12\n")
    run(path, out, InProcessEngine())
    first = Dataset.open(str(out)).plan.notes
    listed.write_text("clip_id,url,age_limit,view_count\nc002,2.mp4,12,few\n")
    grown(out, f"list={listed}")
    listed.write_text("clip_id,url,title\nc003,3.mp4,c\n")
    grown(out, f"list={listed}")
    notes = Dataset.open(str(out)).plan.notes
    assert len(first) == 1 and notes[:1] == first and len(notes) == 2 and "view_count" in notes[1]


def test_growth_by_clips_that_all_fail_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [TROUBLE, PAINT], ["a", "raise", "reject"]), out, InProcessEngine())
    result = grown(out, f"list={write_list(tmp_path, ['a', 'raise', 'reject', 'raise', 'raise'])}")
    assert "2 of 2 in stage trouble with reason" in str(result.verdict())
    result = grown(out, f"list={write_list(tmp_path, ['a', 'raise', 'reject', 'raise', 'raise', 'b', 'raise'])}")
    assert result.verdict() is None
