"""A data set in another shape holds the same clips, and VIDAL's JSON comes back as it went out."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.runs import PAINT, SHADE, TROUBLE, digests, rows, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.export import vidal_annotation, write_joint, write_vidal_json
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError
from vidal.recipe import check


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("built")
    titles = ["reject", *[f"clip {n}" for n in range(9)]]
    run(write_recipe(folder, [PAINT, TROUBLE, SHADE], titles), folder / "out", InProcessEngine())
    return Dataset.open(str(folder / "out"))


def test_a_joint_tar_has_every_member_of_a_kept_clip_once(built: Dataset, tmp_path: Path) -> None:
    assert write_joint(built, str(tmp_path / "joint")) == 9
    kept = {clip_id: row for clip_id, row in rows(built.storage.address).items() if row["status"] == "kept"}
    suffixes = ["mp4", "depth.0.png", "depth.1.png", "frame.0.jpg", "frame.1.jpg", "json"]
    names = []
    for path in sorted((tmp_path / "joint").iterdir()):
        with tarfile.open(path) as tar:
            for member in tar:
                row = kept[member.name.partition(".")[0]]
                assert f"{row['shard']:06d}.tar" == path.name
                assert tar.extractfile(member).read() == built.read_member(row, member.name)
                names.append(member.name)
    order = sorted(kept, key=lambda clip_id: kept[clip_id]["position"])
    assert names == [f"{clip_id}.{suffix}" for clip_id in order for suffix in suffixes]


def test_joint_tars_written_again_are_the_same_bytes(built: Dataset, tmp_path: Path) -> None:
    for name in ("a", "b", "b"):
        write_joint(built, str(tmp_path / name))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_vidals_json_comes_back_as_candidates(built: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "vidal.json"
    assert write_vidal_json(built, path) == 9
    back = check({"source": {"vidal_json": str(path)}, "stages": [PAINT]}, "r").source.candidates().to_pylist()
    kept = [row for row in rows(built.storage.address).values() if row["status"] == "kept"]
    assert [(r["clip_id"], r["url"], r["title"], r["hashtags"]) for r in back] == sorted(
        (r["clip_id"], f"{r['shard']:06d}/{r['clip_id']}.mp4", r["title"], r["hashtags"]) for r in kept
    )


def test_an_annotation_has_vidals_keys() -> None:
    row = {"shard": 12, "title": "A title", "hashtags": ["cat", "fun"], "frame_captions": ["f0", "f1"],
           "video_caption": "v", "caption": "c", "sound_caption": None}  # fmt: skip
    assert vidal_annotation(row) == {
        "folder": "000012",
        "raw": "A title#cat#fun",
        "ofa": ["f0", "f1"],
        "mplug": "v",
        "polish_mplug": "c",
        "sound_mplug": "",
    }
    assert vidal_annotation({**row, "title": None, "hashtags": []})["raw"] == ""


def test_a_folder_is_no_place_for_one_file(built: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; --out names a file for this format"):
        write_vidal_json(built, tmp_path)


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, [PAINT], ["猫 “cats” \U0001f408"]), tmp_path / "out", InProcessEngine())
    write_vidal_json(Dataset.open(str(tmp_path / "out")), tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["c000"]["raw"] == "猫 “cats” \U0001f408"
