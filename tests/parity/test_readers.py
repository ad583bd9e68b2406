"""What we write is read by readers that have never heard of vidal, and their values are those of `vidal.open`."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas
import pytest
import torch
import webdataset
from PIL import Image

from tests.conftest import ROOT
from tests.parity.stock_readers import audio_of, same, samples, samples_by_key
from tests.runs import AUDIO, CAPTION, PAINT, SHADE, TROUBLE, rows, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.engine.local import InProcessEngine
from vidal.errors import ClipError, OutputError, SourceError, ToolError
from vidal.export.export import write_joint, write_open_clip
from vidal.webdataset import decode_depth, depth_from_bytes, features

TITLES = ["reject", "raise", *[f"clip {n}" for n in range(8)]]
KEPT = [f"c{n:03d}" for n in range(2, 10)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run(write_recipe(folder, [PAINT, TROUBLE, SHADE], TITLES), folder / "out", InProcessEngine())
    return folder / "out"


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


@pytest.fixture(scope="module")
def some_mute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, the first nine, in the order of the tar, without a title; two of the last have no audio."""
    folder = tmp_path_factory.mktemp("mute")
    titles = ["mute" if n in (1, 6) else "" for n in range(12)]
    titles[10] = "only one title"
    stages = [PAINT, CAPTION, SHADE, AUDIO]
    run(write_recipe(folder, stages, titles, shards={"size": 12}), folder / "out", InProcessEngine())
    return folder / "out"


def hugging_face(tars: Path, **keys: Any) -> dict[str, dict[str, Any]]:
    from datasets import load_dataset

    table = load_dataset("webdataset", data_files=str(tars), split="train", **keys)
    return {row["__key__"]: row for row in table}


@pytest.mark.parametrize("layer", ["video", "depth", "audio", "joint"])
def test_hugging_face_datasets_gives_every_value_of_a_layer(
    layer: str, some_mute: Path, no_cache: None, tmp_path: Path
) -> None:
    tars = some_mute / layer
    if layer == "joint":
        tars = tmp_path / "joint"
        write_joint(Dataset.open(str(some_mute)), str(tars))
    ours, manifest = samples_by_key(some_mute), rows(some_mute)
    theirs = hugging_face(tars / "*.tar", features=features(some_mute, layer))
    assert sorted(theirs) == sorted(key for key in ours if layer in ("joint", *ours[key]))
    for key, row in theirs.items():
        sample = ours[key]
        if layer in ("depth", "joint"):
            assert all(same(sample["depth"][k], np.asarray(row[f"depth.{k}.png"])) for k in range(2))
        if layer in ("video", "joint"):
            assert row["mp4"] == manifest[key]["url"].encode() * 50
            assert all(same(sample["video"][k], np.asarray(row[f"frame.{k}.jpg"])) for k in range(2))
        if layer in ("audio", "joint"):
            assert same(sample.get("audio"), audio_of(row["flac"]))
        told = {name: manifest[key][name] for name in row["json"]}
        assert row["json"] == told
    assert [row["json"]["title"] for row in theirs.values() if row["json"]["title"] not in (None, "mute")] == [
        "only one title"
    ]


@pytest.mark.parametrize("write", [write_joint, write_open_clip])
def test_hugging_face_datasets_opens_the_folder_of_an_export_by_its_card(
    write: Callable[..., Any], some_mute: Path, no_cache: None, tmp_path: Path
) -> None:
    from datasets import load_dataset

    write(Dataset.open(str(some_mute)), str(tmp_path / "out"))
    table = load_dataset(str(tmp_path / "out"), split="train")
    manifest, wanted = rows(some_mute), samples(tmp_path / "out" / "*.tar")
    assert sorted(table["__key__"]) == sorted(wanted)
    if write is write_joint:
        assert table.features == features(some_mute)
        assert {row["__key__"] for row in table if row["flac"] is None} == {"c001", "c006"}
    for row in table:
        told = manifest[row["__key__"]]
        assert row["json"] == {name: told[name] for name in row["json"]}
        for suffix, data in wanted[row["__key__"]].items():
            if suffix.endswith(("jpg", "png")):
                assert same(np.asarray(Image.open(io.BytesIO(data))), np.asarray(row[suffix]))
            elif suffix != "json":
                assert row[suffix] == (data.decode() if suffix == "txt" else data)


def test_hugging_face_datasets_never_drops_a_title_that_comes_late(some_mute: Path, no_cache: None) -> None:
    """Left to guess, it takes the column for one of nulls and says so, where a key left out would cost the title."""
    from datasets.exceptions import DatasetGenerationError

    late = rows(some_mute)["c010"]
    assert (late["title"], late["position"]) == ("only one title", 9)
    with pytest.raises(DatasetGenerationError) as caught:
        hugging_face(some_mute / "depth" / "*.tar")
    assert "string to null" in str(caught.value.__cause__)
    told = hugging_face(some_mute / "depth" / "*.tar", features=features(some_mute, "depth"))
    assert told["c010"]["json"]["title"] == "only one title"


def test_the_joint_clips_of_a_condition_have_the_same_members(some_mute: Path, tmp_path: Path) -> None:
    write_joint(Dataset.open(str(some_mute)), str(tmp_path), "has_audio")
    joint = samples(tmp_path / "*.tar")
    assert len(joint) == 10 and {"flac" in sample for sample in joint.values()} == {True}
    assert len({tuple(sorted(sample)) for sample in joint.values()}) == 1


def strict_json(data: bytes) -> dict[str, Any]:
    def reject(word: str) -> Any:
        raise ValueError(word)

    value: dict[str, Any] = json.loads(data, parse_constant=reject)
    return value


def test_every_json_member_has_every_key_in_layers_and_exports(some_mute: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(str(some_mute))
    write_joint(dataset, str(tmp_path / "joint"))
    write_open_clip(dataset, str(tmp_path / "pairs"))
    keys = set(features(some_mute)["json"])
    for folder in (*(some_mute / layer for layer in dataset.info.layers), tmp_path / "joint", tmp_path / "pairs"):
        found = [strict_json(sample["json"]) for sample in samples(folder / "*.tar").values()]
        assert found and all(set(member) == keys for member in found), folder


def test_features_name_what_cannot_be_told(some_mute: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no layer infrared; there is video, depth, audio, joint"):
        features(some_mute, "infrared")
    from vidal.reader.index import write_index

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        tar.write({"__key__": "0", "jpg": cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()})
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    with pytest.raises(OutputError, match="whose members are not vidal's"):
        features(tmp_path / "index")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ToolError, match="pip install datasets"):
        features(some_mute)


def png(depth: np.ndarray) -> bytes:
    return cv2.imencode(".png", depth)[1].tobytes()


DEPTH = np.asarray([[0, 255, 256], [1021, 3349, 65535]], np.uint16)

DECODED: dict[str, tuple[str, bytes, np.ndarray | None]] = {
    "vidal's depth": (".depth.3.png", png(DEPTH), DEPTH),
    "languagebind's depth": ("dep3.png", png(DEPTH), DEPTH),
    "a frame": (".frame.0.jpg", b"x", None),
    "a png of colours": (".frame.0.png", b"x", None),
    "infrared": (".infrared.0.jpg", b"x", None),
    "text": (".json", b"{}", None),
    "audio": (".flac", b"x", None),
}


@pytest.mark.parametrize(("key", "data", "wanted"), DECODED.values(), ids=DECODED)
def test_depth_is_decoded_to_millimetres_and_nothing_else_is_touched(
    key: str, data: bytes, wanted: np.ndarray | None
) -> None:
    found = decode_depth(key, data)
    assert same(wanted, found) and (found is None or found.dtype == np.uint16)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", png(DEPTH)[:-20], png(DEPTH.astype(np.uint8))])
def test_a_damaged_depth_image_is_an_error_and_no_guess(data: bytes) -> None:
    with pytest.raises(ClipError, match="undecodable"):
        depth_from_bytes(data)


def test_the_decoder_comes_without_torch() -> None:
    code = "import sys; from vidal.webdataset import decode_depth; decode_depth('json', b''); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_open_clip_trains_on_the_pairs(some_mute: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip_train.data as open_clip_data

    # open_clip 3.3 trains with webdataset up to 0.2, whose tars end without a mark.
    expand = functools.partial(open_clip_data.tar_file_expander, eof_value=None)
    monkeypatch.setattr(open_clip_data, "tar_file_expander", expand)
    exported = write_open_clip(Dataset.open(str(some_mute)), str(tmp_path))
    assert (exported.clips, exported.left_out) == (3, 9)
    assert list(exported.lines()) == [f"wrote 3 clips to {tmp_path}; 9 clips left out: no caption or no frame"]
    ours = samples_by_key(some_mute)
    pairs = samples(tmp_path / "*.tar")
    assert all(open_clip_data.filter_no_caption_or_no_image(sample) for sample in pairs.values())
    args = types.SimpleNamespace(
        train_data=str(tmp_path / "000000.tar"), val_data=str(tmp_path / "000000.tar"), train_num_samples=None,
        val_num_samples=None, dataset_resampled=False, train_data_upsampling_factors=None, seed=0, workers=0,
        world_size=1, batch_size=3,
    )  # fmt: skip
    assert open_clip_data.get_dataset_size(args.train_data) == (3, 1)
    words = [ours[key]["row"]["caption"] for key in pairs]
    for is_train in (False, True):
        info = open_clip_data.get_wds_dataset(
            args, lambda image: torch.from_numpy(np.array(image)), is_train, tokenizer=lambda text: [words.index(text)]
        )
        (batch,) = info.dataloader
        wanted = {key: torch.from_numpy(ours[key]["video"][1]) for key in pairs}
        assert sorted(batch[1]) == sorted(words.index(ours[key]["row"]["caption"]) for key in pairs)
        for image, number in zip(*batch, strict=True):
            assert any(torch.equal(image, wanted[key]) for key in pairs if ours[key]["row"]["caption"] == words[number])


def test_pandas_reads_the_whole_story_and_the_counts_reconcile(out: Path) -> None:
    table = pandas.read_parquet(out / "manifest")
    assert table.status.value_counts().to_dict() == {"kept": 8, "rejected": 1, "failed": 1}
    assert set(table.clip_id) == {f"c{n:03d}" for n in range(10)}
    dropped = table[table.status != "kept"].set_index("clip_id")
    assert dropped.reason.to_dict() == {"c000": "unwanted", "c001": "value_error"}
    assert dropped.stage.to_dict() == {"c000": "trouble", "c001": "trouble"}


def test_plain_tar_lists_what_the_manifest_says(out: Path) -> None:
    for path in sorted((out / "video").glob("*.tar")):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
        of_shard = sorted((r for r in rows(out).values() if r["shard"] == int(path.stem)), key=lambda r: r["position"])
        assert listed == [m["name"] for row in of_shard for m in row["members"] if m["layer"] == "video"]
