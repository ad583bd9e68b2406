"""A long video becomes clips at its cuts, by two recipes; a short one stays whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.films import ffmpeg
from tests.processes import command
from tests.runs import digests, rows
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify

DIVIDE: list[Any] = ["fetch", "probe", {"segments": {"max_s": 3, "min_s": 1}}, "keep_source"]
BUILD: list[Any] = [
    "fetch",
    "cut_segment",
    "probe",
    {"too_short": {"min_s": 0.5}},
    {"media": {"frames": 2, "short_side": 64}},
]


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two scenes, 2 and 5 s long, and one of 1 s, each divided."""
    folder = tmp_path_factory.mktemp("films")
    long, short = folder / "long.mp4", folder / "short.mp4"
    scenes = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=2", "-f", "lavfi", "-i", "mandelbrot=s=128x96:r=25"]
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=7"]
    graph = ["-filter_complex", "[0][1]concat=n=2:v=1:a=0,format=yuv420p[v]", "-map", "[v]", "-map", "2"]
    ffmpeg(*scenes, *sound, *graph, "-t", "7", "-g", "25", long)
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=128x96:r=25:d=1", "-pix_fmt", "yuv420p", short)
    (folder / "list.csv").write_text(f"clip_id,url,title,licence\nlong,{long},A film,CC0\nshort,{short},Bars,CC0\n")
    build(folder / "divided", {"list": str(folder / "list.csv")}, DIVIDE)
    return folder / "divided"


def build(out: Path, source: dict[str, str], stages: list[Any], code: int = 0) -> str:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"name": "films", "source": source, "stages": stages, "shards": {"size": 2}}))
    done = command("build", recipe, "--out", out, "--engine", "local", "--workers", "1")
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def built(divided: Path) -> Path:
    build(divided.parent / "built", {"segments": str(divided)}, BUILD)
    return divided.parent / "built"


def test_each_segment_is_a_clip_with_its_parent_its_exact_times_and_a_cluster(divided: Path, built: Path) -> None:
    parent = rows(divided)["long"]
    assert parent["scene_cuts_s"] == [2.0] and parent["segment_bounds_s"] == [0.0, 2.0, 4.48, 7.0]
    assert rows(divided)["short"]["segment_bounds_s"] == [0.0, 1.0]

    clips = rows(built)
    assert {clip_id: row["status"] for clip_id, row in clips.items()} == dict.fromkeys(
        ["long-000", "long-001", "long-002", "short"], "kept"
    )
    for number, (start_s, end_s) in enumerate([(0.0, 2.0), (2.0, 4.48), (4.48, 7.0)]):
        row = clips[f"long-{number:03d}"]
        assert (row["parent_id"], row["segment_start_s"], row["segment_end_s"]) == ("long", start_s, end_s)
        assert row["duration_s"] == pytest.approx(end_s - start_s) and row["damage"] == []
        assert row["audio_duration_s"] == pytest.approx(end_s - start_s, abs=0.03)
        assert (row["cluster"], row["title"], row["parent_sha256"]) == ("long-000", "A film", parent["source_sha256"])
        # The first two begin with a key frame, and the second does not end before one.
        assert row["is_copy"] == (number == 0)
    assert len({row["source_sha256"] for row in clips.values()}) == 4
    whole = clips["short"]
    assert whole["parent_id"] is whole["segment_start_s"] is whole["is_copy"] is whole["cluster"] is None
    assert Dataset.open(str(built)).info.layers == ["video", "audio"]
    assert list(verify(Dataset.open(str(built)))) == []


def test_segments_are_cut_to_the_same_bytes_again(divided: Path, built: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", {"segments": str(divided)}, BUILD)
    assert digests(tmp_path / "again") == digests(built)


@pytest.mark.parametrize(
    ("source", "stages", "line"),
    [
        ("segments", ["fetch", "probe"], "this source needs the stage `cut_segment`; add it behind `fetch`"),
        ("dataset", BUILD, "cut_segment reads `parent_id`, which nothing before it writes; no stage writes it"),
    ],
)
def test_a_recipe_that_would_not_cut_or_has_nothing_to_cut_is_refused(
    source: str, stages: list[Any], line: str, divided: Path, tmp_path: Path
) -> None:
    assert line in build(tmp_path / "out", {source: str(divided)}, stages, code=2)


def test_a_dataset_without_segments_says_which_stages_it_lacks(divided: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", {"list": str(divided.parent / "list.csv")}, ["fetch", "probe", "keep_source"])
    line = build(tmp_path / "again", {"segments": str(tmp_path / "out")}, BUILD, code=2)
    assert "has no segments; build it with the stages `segments` and `keep_source`" in line
