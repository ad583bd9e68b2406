"""What we write is read by readers that have never heard of vidal: webdataset, datasets, pandas, tar."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import webdataset
from PIL import Image

from tests.runs import PAINT, SHADE, TROUBLE, rows, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.export import write_joint
from vidal.engine.local import InProcessEngine

TITLES = ["reject", "raise", *[f"clip {n}" for n in range(8)]]
KEPT = [f"c{n:03d}" for n in range(2, 10)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run(write_recipe(folder, [PAINT, TROUBLE, SHADE], TITLES), folder / "out", InProcessEngine())
    return folder / "out"


def samples(pattern: Path) -> dict[str, dict[str, bytes]]:
    urls = sorted(str(path) for path in pattern.parent.glob(pattern.name))
    return {
        sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")}
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    }


def test_webdataset_reads_each_layer_and_the_layers_have_the_same_keys(out: Path) -> None:
    video, depth = samples(out / "video" / "*.tar"), samples(out / "depth" / "*.tar")
    assert sorted(video) == sorted(depth) == KEPT
    assert list(video) == list(depth)
    assert {tuple(sorted(sample)) for sample in video.values()} == {("frame.0.jpg", "frame.1.jpg", "json", "mp4")}
    assert {tuple(sorted(sample)) for sample in depth.values()} == {("depth.0.png", "depth.1.png", "json")}
    assert video["c004"]["mp4"] == b"4.mp4" * 50
    assert json.loads(video["c004"]["json"])["title"] == "clip 2"
    assert {key: sample["json"] for key, sample in video.items()} == {k: s["json"] for k, s in depth.items()}


def test_webdataset_reads_a_joint_tar_as_one_sample(out: Path, tmp_path: Path) -> None:
    write_joint(Dataset.open(str(out)), str(tmp_path))
    joint = samples(tmp_path / "*.tar")
    assert sorted(joint) == KEPT
    assert sorted(joint["c004"]) == ["depth.0.png", "depth.1.png", "frame.0.jpg", "frame.1.jpg", "json", "mp4"]


def test_hugging_face_datasets_reads_a_layer(out: Path, tmp_path: Path) -> None:
    files = sorted(str(path) for path in (out / "depth").glob("*.tar"))
    table = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path))
    assert sorted(table["__key__"]) == KEPT
    by_key = {row["__key__"]: row for row in table}
    ours = Dataset.open(str(out))
    wanted = Image.open(io.BytesIO(ours.read_member(ours.find("c004") or {}, "c004.depth.1.png")))
    assert np.array_equal(np.asarray(by_key["c004"]["depth.1.png"]), np.asarray(wanted))
    assert by_key["c004"]["json"]["title"] == "clip 2"


def test_pandas_reads_the_whole_story_and_the_counts_reconcile(out: Path) -> None:
    table = pandas.read_parquet(out / "manifest")
    assert table.status.value_counts().to_dict() == {"kept": 8, "rejected": 1, "failed": 1}
    assert set(table.clip_id) == {f"c{n:03d}" for n in range(10)}
    turned_away = table[table.status != "kept"].set_index("clip_id")
    assert turned_away.reason.to_dict() == {"c000": "unwanted", "c001": "value_error"}
    assert turned_away.stage.to_dict() == {"c000": "trouble", "c001": "trouble"}


def test_plain_tar_lists_what_the_manifest_says(out: Path) -> None:
    for path in sorted((out / "video").glob("*.tar")):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
        of_shard = sorted((r for r in rows(out).values() if r["shard"] == int(path.stem)), key=lambda r: r["position"])
        assert listed == [m["name"] for row in of_shard for m in row["members"] if m["layer"] == "video"]
