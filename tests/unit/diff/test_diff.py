"""Two datasets side by side: clips that came and went and why, numbers that shifted, texts that changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from typer.testing import CliRunner

from tests.runs import CAPTION, FEW_LETTERS, LETTERS, PAINT, SHADE, TROUBLE, run, write_recipe
from vidal.clip import SCHEMA_VERSION, Clip, MatchScore
from vidal.commands import app
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset, DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.diff import shifts
from vidal.diff.comparison import Comparison
from vidal.diff.pairs import Pairs
from vidal.diff.shifts import distance_of
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.revisions.refilter import refilter

EVIL = "[red]<b>markup</b>[/red]"


def dataset_of(folder: Path, rows: Sequence[Mapping[str, Any]], *, extra: Sequence[pa.Field] = ()) -> Dataset:
    """A dataset of manifests alone, in shards of 1,000 rows; a row is kept unless it says otherwise."""
    storage, size = Storage(str(folder)), 1000
    for shard, first in enumerate(range(0, len(rows), size)):
        clips = [Clip(**{"status": "kept", **row}, shard=shard) for row in rows[first : first + size]]
        storage.write(manifest.name_of(shard), manifest.to_parquet(clips, pa.schema(extra), {}))
    info = DatasetInfo(
        name="rows", schema_version=SCHEMA_VERSION, fingerprint=folder.name, candidates=len(rows), layers=[],
        shards=-(-len(rows) // size), definition={}, recipe={"stages": []}, created_by="test",
    )  # fmt: skip
    write_info(storage, info)
    return Dataset.open(str(folder))


def compared(tmp_path: Path, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Comparison:
    return Comparison.of(dataset_of(tmp_path / "before", before), dataset_of(tmp_path / "after", after))


def moves(pairs: Pairs | Comparison) -> set[tuple[str, str, str, int]]:
    found = pairs.moves() if isinstance(pairs, Pairs) else pairs.moves
    return {(move.kind, str(move.before), str(move.after), move.clips) for move in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two builds of one list: the second rejects short titles, and its list has one clip more."""
    folder = tmp_path_factory.mktemp("diff")
    titles = ["one dog", "reject", "gone", "raise", "no", "two"]
    run(write_recipe(folder, [PAINT, TROUBLE, LETTERS, CAPTION, SHADE], titles), folder / "a", InProcessEngine())
    stages = [PAINT, TROUBLE, LETTERS, {FEW_LETTERS: {"min": 3}}, CAPTION, SHADE]
    run(write_recipe(folder, stages, [*titles, "seven"]), folder / "b", InProcessEngine())
    return folder / "a", folder / "b"


def test_each_outcome_before_has_one_after(built: tuple[Path, Path]) -> None:
    comparison = Comparison.of(*(Dataset.open(str(path)) for path in built))
    assert moves(comparison) == {
        ("went", "kept", "rejected by few_letters", 1),
        ("came", "not a candidate", "kept", 1),
        ("kept", "kept", "kept", 2),
        ("same", "rejected by trouble: unwanted", "rejected by trouble: unwanted", 1),
        ("same", "failed in trouble: rate_limited", "failed in trouble: rate_limited", 1),
        ("same", "failed in trouble: value_error", "failed in trouble: value_error", 1),
    }
    assert comparison.kept() == (3, 3)
    assert comparison.matched == {"clip_id": 6}
    assert comparison.settings[-1] == "stages.few_letters: absent → present"


def test_what_is_not_built_yet_is_said_to_be_so(built: tuple[Path, Path], tmp_path: Path) -> None:
    half = Path(shutil.copytree(built[1], tmp_path / "half"))
    (half / "manifest" / "000001.parquet").unlink()
    found = Comparison.of(Dataset.open(str(built[1])), Dataset.open(str(half)))
    waiting = Dataset.open(str(half)).plan.clip_ids(1)
    assert {example for move in found.moves if str(move.after) == "not built yet" for example in move.examples} == {
        *waiting
    }
    (half / "manifest" / "000000.parquet").unlink()
    with pytest.raises(SourceError, match="no shard is committed yet"):
        Pairs(Dataset.open(str(built[1])), Dataset.open(str(half)))


MATCHING = [
    ("the id", {"clip_id": "x", "url": "b"}, "clip_id"),
    ("the platform's id", {"platform": "p", "platform_id": "1", "url": "c"}, "platform_id"),
    ("the url", {"url": "a", "source_sha256": "00"}, "url"),
    ("the file", {"url": "c", "source_sha256": "ff"}, "source_sha256"),
    ("nothing", {"url": "c", "platform": "q", "platform_id": "1", "source_sha256": "00"}, None),
]


@pytest.mark.parametrize(("name", "row", "by"), MATCHING, ids=lambda value: str(value)[:12])
def test_a_clip_of_another_id_is_found_by_what_is_its_own(
    name: str, row: dict[str, Any], by: str | None, tmp_path: Path
) -> None:
    first = {"clip_id": "x", "url": "a", "platform": "p", "platform_id": "1", "source_sha256": "ff"}
    found = compared(tmp_path, [first], [{"clip_id": "y", **row}])
    assert found.matched == ({by: 1} if by else {})
    assert len(found.moves) == (1 if by else 2)


def test_a_key_of_two_clips_matches_none(tmp_path: Path) -> None:
    segments = [{"clip_id": f"{n}", "url": "film"} for n in range(2)]
    found = compared(tmp_path, segments, [{"clip_id": "x", "url": "film"}])
    assert found.matched == {}
    assert moves(found) == {("went", "kept", "not a candidate", 2), ("came", "not a candidate", "kept", 1)}


def test_ids_that_name_other_files_are_counted(tmp_path: Path) -> None:
    before = [{"clip_id": f"{n}", "url": "", "source_sha256": f"{n}"} for n in range(3)]
    after = [{"clip_id": f"{n}", "url": "", "source_sha256": f"{n if n else 9}"} for n in range(3)]
    found = compared(tmp_path, before, after)
    assert found.other_files == 1
    assert any(line.startswith("1 candidates of the same id have another file") for line in found.lines())


def test_a_repeated_id_is_paired_kept_with_kept(tmp_path: Path) -> None:
    rejected = {"status": "rejected", "stage": "plan", "reason": "repeated"}
    twice = [{"clip_id": "x", "url": "a"}, {"clip_id": "x", "url": "b", **rejected}]
    found = compared(tmp_path, twice, twice[::-1])
    again = "rejected by plan: repeated"
    assert moves(found) == {("kept", "kept", "kept", 1), ("same", again, again, 1)}


def test_a_number_that_shifted_is_told_with_its_interval(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    blur = random.normal(size=1100)
    before = [
        {"clip_id": f"{n}", "blur": value, "motion": 1.0, "has_audio": n % 2 == 0} for n, value in enumerate(blur)
    ]
    after = [{**row, "blur": row["blur"] + 0.5} for row in before]
    found = compared(tmp_path, before, after)
    (shift,) = [one for one in found.shifts.all if not one.is_none]
    truth = 2 * scipy.stats.norm.cdf(0.25) - 1
    assert shift.column == "blur" and shift.changed == shift.paired == 1100
    assert shift.distance == pytest.approx(scipy.stats.ks_2samp(blur, blur + 0.5).statistic)
    assert shift.distance_interval[0] <= truth <= shift.distance_interval[1]
    assert 0.3 < shift.distance_interval[0] / truth < 1
    assert shift.change == pytest.approx(0.5)
    assert {"motion", "has_audio"} < {one.column for one in found.shifts.all}


def test_scores_of_texts_are_numbers_whatever_their_names(tmp_path: Path) -> None:
    odd = 'it\'s "odd"'

    def rows(score: float) -> list[dict[str, Any]]:
        return [
            {"clip_id": "x", "text_match": [MatchScore(view="caption", score=0.5), MatchScore(view=odd, score=score)]}
        ]

    found = compared(tmp_path, rows(0.25), rows(0.75))
    (shift,) = [one for one in found.shifts.all if not one.is_none]
    assert (shift.column, shift.means, shift.change) == (f"text_match.{odd}", (0.25, 0.75), 0.5)


def test_a_number_that_one_side_lacks_is_named(tmp_path: Path) -> None:
    found = compared(tmp_path, [{"clip_id": "x", "blur": 1.0}], [{"clip_id": "x", "blur": None, "fps": float("nan")}])
    assert found.shifts.only == {"before": ["blur"], "after": []}


def resamples(clips: int) -> Any:
    return np.random.default_rng(0).poisson(1.0, (200, clips)).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_of_independent_samples_hold_the_true_distance(shift: float) -> None:
    random, clips, weights = np.random.default_rng(2), 150, resamples(300)
    truth, held = 2 * scipy.stats.norm.cdf(shift / 2) - 1, 0
    nothing = np.full(clips, np.nan)
    for _ in range(100):
        before, after = random.normal(size=clips), random.normal(loc=shift, size=clips)
        _, (low, high) = distance_of(np.r_[before, nothing], np.r_[nothing, after], weights)
        held += low <= truth <= high
    assert held >= 90


def test_of_many_clips_some_are_drawn_and_means_are_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, clips = 400, 1100
    monkeypatch.setattr(shifts, "DRAWN", drawn)
    before = [{"clip_id": f"{n}", "blur": float(n)} for n in range(clips)]
    found = compared(tmp_path, before, [{**row, "blur": row["blur"] + 1} for row in before])
    blur = next(one for one in found.shifts.all if one.column == "blur")
    assert (found.shifts.drawn, found.shifts.kept) == (drawn, clips)
    assert blur.means == pytest.approx(((clips - 1) / 2, (clips + 1) / 2)) and blur.changed == clips
    assert blur.distance == pytest.approx(1 / drawn, abs=1e-6)


def test_texts_stand_side_by_side_with_their_models_captions_first(tmp_path: Path) -> None:
    before = [
        {"clip_id": "a", "title": "one", "caption": "a dog", "caption_model": "m1"},
        {"clip_id": "b", "title": "two", "frame_captions": ["x", "y"], "caption": "same"},
        {"clip_id": "c", "title": "three", "status": "rejected", "stage": "s", "reason": "r"},
        {"clip_id": "d", "title": "", "caption": "same"},
    ]
    after = [
        {**before[1], "frame_captions": ["x", "z"]},
        {**before[0], "caption": EVIL, "caption_model": "m2"},
        {**before[2], "title": "rejected clips have no texts"},
        {**before[3], "title": None},
    ]
    found = compared(tmp_path, before, after)
    assert found.text_counts == {"clips": 2, "caption": 1, "frame_captions": 1}
    assert [(clip["clip_id"], text["column"], text["before"], text["after"], text["after_model"])
            for clip in found.texts for text in clip["texts"]] == [
        ("a", "caption", "a dog", EVIL, "m2"), ("b", "frame_captions", "x\ny", "x\nz", None),
    ]  # fmt: skip


def test_a_dataset_compared_with_itself_differs_in_nothing(built: tuple[Path, Path]) -> None:
    dataset = Dataset.open(str(built[0]))
    found = Comparison.of(dataset, dataset)
    assert {move.kind for move in found.moves} == {"kept", "same"}
    assert all(shift.is_none and shift.distance_interval == (0, 0) for shift in found.shifts.all)
    assert (found.texts, found.settings, found.other_files) == ([], [], 0)


def told(*words: str | Path) -> str:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["diff", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_two_revisions_are_compared_on_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "set"
    stages = [PAINT, LETTERS, {FEW_LETTERS: {"min": 1}}, CAPTION]
    run(write_recipe(tmp_path, stages, ["one", "three", EVIL]), out, InProcessEngine())
    refilter(str(out), [f"{FEW_LETTERS}.min=4"])
    lines = told(f"{out}@0", out).splitlines()
    assert lines[:2] == [f"{out}@0 → {out}@1: 3 → 2 clips kept", "candidates matched: 3 by clip_id"]
    assert lines[-1] == "  stages.few_letters.settings.min: 1 → 4"
    found = json.loads(told(out, f"{out}@0", "--json", "--limit", "0"))
    assert [(move["kind"], move["before"]["reason"], move["clips"], move["examples"]) for move in found["moves"]] == [
        ("came", "few_letters", 1, []), ("kept", None, 2, []),
    ]  # fmt: skip


def test_what_looks_like_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    for side, caption in (("a", "x"), ("b", EVIL)):
        dataset_of(tmp_path / side, [{"clip_id": "one", "caption": caption}])
    assert EVIL in told(tmp_path / "a", tmp_path / "b")
