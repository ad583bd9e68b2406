"""The snippets of README and docs/reading.md read what `vidal.open` reads, value by value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.parity.stock_readers import audio_of, same, samples_by_key
from tests.runs import rows
from tools.rendering import learning_set
from vidal.dataset.dataset import Dataset
from vidal.export.export import write_joint
from vidal.export.lance import write_lance


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which README's addresses are there: ``data/sample``, of four shards, and ``data/joint``."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_set, "SHARD_SIZE", 3)
        learning_set.write(str(folder / "data" / "sample"), clips=12, scenes=6, size=32, workers=1)
    for write, name in ((write_joint, "joint"), (write_lance, "lance")):
        write(Dataset.open(str(folder / "data" / "sample")), str(folder / "data" / name))
    return folder


PAGES = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/reading.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", PAGES, re.S)


def run_block(word: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the one block of the pages that has a word in it leaves behind."""
    (block,) = [block for block in BLOCKS if word in block]
    monkeypatch.chdir(folder)
    left: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), left)
    return left


def depth_by_key(folder: Path) -> dict[str, np.ndarray]:
    found = {key: sample["depth"] for key, sample in samples_by_key(folder / "data" / "sample").items()}
    assert all(depth.max() > 255 for depth in found.values())
    return found


def test_the_first_snippet_of_the_readme_gives_the_values(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = run_block("read_parquet", place, monkeypatch)
    sample = left["sample"]
    assert same(depth_by_key(place)[sample["__key__"]][0], sample["depth.0.png"])
    table, manifest = left["rows"], rows(place / "data" / "sample")
    assert sorted(table.clip_id) == sorted(manifest)
    row = table.set_index("clip_id").loc[sample["__key__"]]
    wanted = manifest[sample["__key__"]]
    assert {str(kind) for kind in table.dtypes[["view_count", "has_audio", "title"]]} == {
        "int64[pyarrow]", "bool[pyarrow]", "string[pyarrow]"
    }  # fmt: skip
    assert all(row[name] == wanted[name] for name in ("title", "caption", "has_audio", "duration_s", "depth_scale"))
    assert list(row["frame_times"]) == wanted["frame_times"] == sample["json"]["frame_times"]


def test_the_readmes_hugging_face_snippet_gives_the_values(
    place: Path, monkeypatch: pytest.MonkeyPatch, no_cache: None
) -> None:
    left, ours = run_block("load_dataset", place, monkeypatch), samples_by_key(place / "data" / "sample")
    for row in [*left["depth"], *left["joint"]]:
        sample = ours[row["__key__"]]
        assert all(same(sample["depth"][k], row[f"depth.{k}.png"]) for k in range(8))
    for row in left["joint"]:
        sample = ours[row["__key__"]]
        assert same(sample["audio"], audio_of(row["flac"]))
        assert all(same(sample["infrared"][k], row[f"infrared.{k}.jpg"]) for k in range(8))


def test_the_readmes_duckdb_snippet_gives_the_values(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run_block("duckdb", place, monkeypatch)["kept"]
    kept = {key: sample["row"]["caption"] for key, sample in samples_by_key(place / "data" / "sample").items()}
    assert dict(zip(table.clip_id, table.caption, strict=True)) == kept


def test_the_lance_snippet_gives_the_values(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, dataset = run_block("lance", place, monkeypatch), Dataset.open(str(place / "data" / "sample"))
    wanted = [row for row in dataset.rows() if row["status"] == "kept"]
    table = left["captions"]
    assert [*zip(table.clip_id, table.caption, strict=True)] == [(row["clip_id"], row["caption"]) for row in wanted]
    assert [[*times] for times in table.frame_times] == [row["frame_times"] for row in wanted]
    assert left["sound"].read() == dataset.read_member(wanted[-1], f"{wanted[-1]['clip_id']}.flac")


def test_the_readmes_torch_snippet_gives_the_values(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, wanted = run_block("DataLoader", place, monkeypatch), depth_by_key(place)
    by_shard = {
        sample["__key__"]: np.stack([sample[f"depth.{k}.png"] for k in range(8)]) for sample in left["by_shard"]
    }
    at_random = {sample["key"]: sample["depth"].numpy() for sample in left["at_random"]}
    for found in (by_shard, at_random):
        assert sorted(found) == sorted(wanted)
        assert all(same(wanted[key], depth) for key, depth in found.items())
