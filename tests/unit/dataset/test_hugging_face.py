"""Hugging Face's `datasets` loads an export by its card, with the types of media and the bytes of the dataset."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.processes import command
from tests.runs import AUDIO, CAPTION, PAINT, SHADE, digests, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError
from vidal.export import huggingface
from vidal.export.export import write_hugging_face
from vidal.webdataset import depth_from_bytes

TITLES = ["mute", "a dog", "---\nlicense: mit", "", "a cat", "<script>"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("hub")
    run(write_recipe(folder, [PAINT, CAPTION, AUDIO, SHADE], TITLES), folder / "out", InProcessEngine())
    return Dataset.open(str(folder / "out"))


@pytest.fixture(scope="module")
def exported(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "toys"
    write_hugging_face(dataset, str(folder))
    return folder


@pytest.fixture(scope="module")
def loaded(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    return datasets.load_dataset(str(exported), split="train", cache_dir=str(tmp_path_factory.mktemp("cache")))


def undecoded(loaded: datasets.Dataset) -> datasets.Dataset:
    """Without decoders of video and audio, which are of a further package."""
    return loaded.cast_column("video", datasets.Video(decode=False)).cast_column("audio", datasets.Audio(decode=False))


def test_columns_of_media_have_their_types(loaded: datasets.Dataset) -> None:
    kinds = {name: loaded.features[name] for name in ("video", "audio", "frame", "depth", "caption", "frame_times")}
    assert kinds == {
        "video": datasets.Video(), "audio": datasets.Audio(), "frame": datasets.List(datasets.Image()),
        "depth": datasets.List(datasets.Image()), "caption": datasets.Value("string"),
        "frame_times": datasets.List(datasets.Value("float64")),
    }  # fmt: skip


def test_rows_are_the_clips_with_their_members(dataset: Dataset, loaded: datasets.Dataset) -> None:
    samples, rows = undecoded(loaded), list(dataset.rows())
    assert samples["clip_id"][:] == [row["clip_id"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        clip_id = row["clip_id"]
        assert sample["video"] == {"bytes": dataset.read_member(row, f"{clip_id}.mp4"), "path": f"{clip_id}.mp4"}
        assert (sample["audio"] is None) == (row["title"] == "mute")
        assert (sample["title"], sample["frame_times"]) == (row["title"], row["frame_times"])
        wanted = [depth_from_bytes(dataset.read_member(row, f"{clip_id}.depth.{k}.png")) for k in range(2)]
        assert all(
            np.array_equal(np.asarray(image), depth) for image, depth in zip(sample["depth"], wanted, strict=True)
        )


def test_the_card_is_of_the_dataset_alone(exported: Path) -> None:
    head, text = (exported / "README.md").read_text("utf-8").removeprefix("---\n").split("---\n", 1)
    said = yaml.safe_load(head)
    assert (said["pretty_name"], said["license"], said["size_categories"]) == ("toys", ["unknown"], ["n<1K"])
    assert "Made by models" in text and "| not stated | 6 |" in text


def test_an_export_again_writes_what_is_missing(dataset: Dataset, exported: Path) -> None:
    before = digests(exported)
    assert write_hugging_face(dataset, str(exported)).shards_written == 0
    (exported / "000001.parquet").unlink()
    assert write_hugging_face(dataset, str(exported)).shards_written == 1
    assert digests(exported) == before


def test_large_media_begin_a_row_group(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "ROW_GROUP_BYTES", 1)
    write_hugging_face(dataset, str(tmp_path / "toys"))
    assert pq.ParquetFile(tmp_path / "toys" / "000000.parquet").num_row_groups == 4


def test_the_command_takes_a_condition(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "toys"
    done = command("export", dataset.storage.address, "--format", "huggingface", "--out", out, "--where", "has_audio")
    assert (done.returncode, done.stdout) == (0, f"wrote 5 clips to {out}\n")
    with pytest.raises(OutputError, match="as huggingface where has_audio, not of"):
        write_hugging_face(dataset, str(out))


@pytest.mark.parametrize(
    ("label", "name"),
    [("cc-by 3.0", "cc-by-3.0"), ("cc-by-nd 2.0", "cc"), ("cc-by", "cc"), ("cc0", "cc0-1.0"), ("mine: [x]", "other"),
     ("public-domain", "other"), ("not stated", "unknown")],
)  # fmt: skip
def test_a_licence_has_the_name_that_the_hub_knows(label: str, name: str) -> None:
    assert huggingface.hub_licence(label) == name
