"""The candidates of a dataset or of VIDAL's annotations, and the identity of every source, which is its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import PAINT, SHADE, TROUBLE, rows, run, write_recipe
from tests.unit.sources.written import Row, write
from vidal.dataset.plan import UNUSABLE
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.recipe import check
from vidal.rows import whole
from vidal.sources.dataset import DatasetSource


def test_the_identity_of_a_source_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "l.csv", "url\na\n")
        write(tmp_path / name, "v.json", "{}")
        write(tmp_path / name, "m.mp4", "1")
    for kind, file in (("list", "l.csv"), ("folder", ""), ("vidal_json", "v.json")):
        recipe = [check({"source": {kind: str(tmp_path / n / file)}, "stages": [PAINT]}, "r") for n in ("x", "y")]
        assert recipe[0].source.identity() == recipe[1].source.identity()
        before = recipe[0].source.identity()
        write(tmp_path / "x", file or "m.mp4", "url\nanother\n")
        assert recipe[0].source.identity() != before


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of ten clips, of which one was rejected and one failed."""
    folder = tmp_path_factory.mktemp("painted")
    titles = ["reject", "raise", *[f"clip {n}" for n in range(8)]]
    run(write_recipe(folder, [PAINT, TROUBLE], titles), folder / "out", InProcessEngine())
    return folder / "out"


def test_a_dataset_gives_its_kept_clips_with_their_members(painted: Path, tmp_path: Path) -> None:
    recipe = check({"source": {"dataset": str(painted)}, "shards": {"size": 3}, "stages": [SHADE]}, "again")
    run(recipe, tmp_path / "out", InProcessEngine())
    before, after = rows(painted), rows(tmp_path / "out")
    assert sorted(after) == sorted(clip_id for clip_id, row in before.items() if row["status"] == "kept")
    for clip_id, row in after.items():
        carried = {m["name"]: m["sha256"] for m in before[clip_id]["members"] if not m["name"].endswith(".json")}
        now = {m["name"]: m["sha256"] for m in row["members"] if m["layer"] == "video"}
        assert {name: now[name] for name in carried} == carried
        assert (row["status"], row["layers"], row["title"]) == ("kept", ["video", "depth"], before[clip_id]["title"])


def test_a_dataset_that_cannot_be_a_source_says_why(painted: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"^{tmp_path}: no dataset there \(no dataset\.json\)"):
        DatasetSource(dataset=str(tmp_path)).candidates()
    run(write_recipe(tmp_path, [PAINT, TROUBLE], ["reject"] * 5), tmp_path / "none", InProcessEngine())
    with pytest.raises(SourceError, match="the dataset has no kept clip"):
        DatasetSource(dataset=str(tmp_path / "none")).candidates()
    (tmp_path / "none" / "manifest" / "000001.parquet").unlink()
    with pytest.raises(SourceError, match=r"1 shard\(s\) are not built yet; finish that run first"):
        DatasetSource(dataset=str(tmp_path / "none")).candidates()


def vidal_json(folder: Path, content: Any) -> list[Row]:
    path = write(folder, "vidal.json", content if isinstance(content, str) else json.dumps(content))
    return whole(check({"source": {"vidal_json": str(path)}, "stages": [PAINT]}, "r").source.candidates()).to_pylist()


def test_vidals_annotations_are_candidates(tmp_path: Path) -> None:
    annotations = {
        "abc": {"folder": "0001", "raw": "A title #cat#fun ", "ofa": ["f0"], "mplug": "m", "polish_mplug": "p", "sound_mplug": ""},
        "def": {"raw": "#only"},
    }  # fmt: skip
    nothing = {"vidal_ofa": [], "vidal_mplug": None, "vidal_polish_mplug": None, "vidal_sound_mplug": None}
    assert vidal_json(tmp_path, annotations) == [
        {"clip_id": "abc", "url": "0001/abc.mp4", "title": "A title", "hashtags": ["cat", "fun"], "vidal_ofa": ["f0"],
         "vidal_mplug": "m", "vidal_polish_mplug": "p", "vidal_sound_mplug": None},
        {"clip_id": "def", "url": "def.mp4", "title": None, "hashtags": ["only"], **nothing},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable JSON"), ("[" * 100_000, "not readable JSON"), ("[]", "not an object keyed by clip id"), ("{}", "no annotation in it"),
     ({"a": "x"}, "a is not an object with folder, raw, mplug")],
)  # fmt: skip
def test_annotations_that_are_none_say_what_is_wrong(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        vidal_json(tmp_path, content)


@pytest.mark.parametrize("folder", ["..", "a/../../b", "/etc", "~root", "s3://bucket", "file:/etc", "http://10.0.0.1"])
def test_annotations_lead_to_no_file_outside_the_media(folder: str, tmp_path: Path) -> None:
    evil, good = vidal_json(tmp_path, {"abc": {"folder": folder}, "def": {"folder": "0001"}})
    assert evil[UNUSABLE] == f"its file '{folder}/abc.mp4' is not in the folder of the media"
    assert (good["url"], good[UNUSABLE]) == ("0001/def.mp4", None)


def test_annotations_that_are_gone_are_missed_by_plan_and_fingerprint_alike(tmp_path: Path) -> None:
    recipe = check({"source": {"vidal_json": str(tmp_path / "no.json")}, "stages": [PAINT]}, "r")
    for ask in (recipe.source.candidates, recipe.source.identity):
        with pytest.raises(SourceError, match=r"no such file; source\.vidal_json names VIDAL's annotation JSON"):
            ask()
