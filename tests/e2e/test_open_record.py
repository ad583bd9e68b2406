"""A stage of somebody's own package stores a number of its own, and every door of a dataset knows it."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import vidal
from tests.conftest import ROOT
from tests.processes import command
from tests.runs import digests

PACKAGE = '''
from typing import ClassVar

import numpy as np
from pydantic import Field

from vidal.clip import Clip
from vidal.record import Column
from vidal.stage import Stage


class Colourfulness(Stage):
    """Measures how far the colours of the stored frames are from grey."""

    reads = ("video",)
    columns = {"colourfulness": Column(float, "mean distance of the colours from grey, 0 = grey")}

    def process(self, clip: Clip) -> None:
        clip["colourfulness"] = np.mean([np.ptp(frame, axis=2).mean() for frame in clip.work.frames()])


class TooGrey(Stage):
    """Rejects clips less colourful than ``min``."""

    reads = ("colourfulness",)
    min: float = Field(5.0, ge=0)

    def process(self, clip: Clip) -> None:
        if (value := clip["colourfulness"]) < self.min:
            clip.reject("too_grey", f"{value:.1f} < {self.min:g}", value=value, limit=self.min)
'''
CLIPS = ("dark-forest", "sintel-dunes")
LIMIT = 5.0


def run(folder: Path, *arguments: str | Path) -> str:
    """What a command prints, where the user's package is on the path."""
    done = command(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, recipe: dict[str, Any], out: str, workers: int) -> Path:
    (folder / f"{out}.yaml").write_text(json.dumps(recipe))
    run(folder, "build", f"{out}.yaml", "--out", out, "--engine", "local", "--workers", str(workers))
    return folder / out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package, and the dataset ``out`` of two clips of which one is too grey."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "stages.py").write_text(PACKAGE)
    lines = [f"{ROOT}/samples/clips/{name}.mp4,{name}" for name in CLIPS]
    (folder / "clips.csv").write_text("\n".join(["url,clip_id", *lines]) + "\n")
    sys.path.insert(0, str(folder))
    build(folder, recipe(), "out", workers=0)
    yield folder
    sys.path.remove(str(folder))
    for name in ("my_package", "my_package.stages"):
        sys.modules.pop(name, None)


def recipe() -> dict[str, Any]:
    mine = ["my_package.stages:Colourfulness", {"my_package.stages:TooGrey": {"min": LIMIT}}]
    return {"source": {"list": "clips.csv"}, "stages": ["fetch", "probe", "media", *mine], "name": "mine"}


@pytest.fixture(scope="module")
def manifest(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out" / "manifest").set_index("clip_id")


def test_the_number_is_in_the_manifest_and_the_filter_decides_on_it(manifest: pd.DataFrame) -> None:
    assert manifest["colourfulness"].dtype == "float64"
    grey, colourful = (manifest.loc[name] for name in CLIPS)
    assert grey["colourfulness"] < LIMIT < colourful["colourfulness"]
    assert (grey["status"], grey["stage"], grey["reason"]) == ("rejected", "too_grey", "too_grey")
    assert (grey["decided_value"], grey["decided_limit"]) == (grey["colourfulness"], LIMIT)
    assert colourful["status"] == "kept"


def test_a_worker_process_gives_the_same_bytes(folder: Path) -> None:
    pooled = build(folder, recipe(), "pooled", workers=1)
    assert digests(pooled) == digests(folder / "out")


def test_it_is_in_the_json_of_every_layer_and_in_a_joint_export(folder: Path, manifest: pd.DataFrame) -> None:
    run(folder, "export", "out", "--out", "joint", "--where", "colourfulness > 5")
    tars = [*sorted((folder / "out").glob("*/000000.tar")), folder / "joint" / "000000.tar"]
    assert len(tars) == 3
    for path in tars:
        with tarfile.open(path) as tar:
            member = tar.extractfile(f"{CLIPS[1]}.json")
            assert member is not None
            assert json.load(member)["colourfulness"] == manifest.loc[CLIPS[1], "colourfulness"]
    card = (folder / "joint" / "README.md").read_text()
    assert "name: colourfulness\n" in card.replace("  ", "")


def test_commands_know_it(folder: Path, manifest: pd.DataFrame) -> None:
    value = manifest.loc[CLIPS[1], "colourfulness"]
    assert f"colourfulness: {value}" in run(folder, "why", "out", CLIPS[1])
    assert json.loads(run(folder, "why", "out", CLIPS[0], "--json"))["colourfulness"] < LIMIT
    dropped = json.loads(run(folder, "status", "out", "--json"))["dropped"]
    assert dropped == [{"stage": "too_grey", "status": "rejected", "reason": "too_grey", "clips": 1}]
    assert json.loads(run(folder, "verify", "out", "--json"))["ok"] is True
    run(folder, "report", "out")
    page = (folder / "report.html").read_text()
    assert f"<dt>colourfulness</dt><dd><bdi>{value:.4g}</bdi></dd>" in page
    none = command("export", "out", "--out", "none", "--where", "colourfulness > 1000", cwd=folder)
    assert none.returncode == 2 and "selects none of 1 samples" in none.stderr


def test_readers_know_it(folder: Path) -> None:
    from vidal.webdataset import features

    assert features(folder / "out")["json"]["colourfulness"].dtype == "float64"
    samples = vidal.open(folder / "out", where="colourfulness > 5")
    assert samples[0]["row"]["colourfulness"] > LIMIT


def test_it_travels_to_a_dataset_built_from_this_one(folder: Path, manifest: pd.DataFrame) -> None:
    again = {"source": {"dataset": "out"}, "stages": [{"my_package.stages:TooGrey": {"min": 1}}, "fingerprints"]}
    build(folder, again, "again", workers=0)
    table = pq.read_table(folder / "again" / "manifest")
    assert table.select(["clip_id", "colourfulness"]).to_pylist() == [
        {"clip_id": CLIPS[1], "colourfulness": manifest.loc[CLIPS[1], "colourfulness"]}
    ]
    assert table.schema.field("colourfulness").metadata == {b"group": b"scores"}
    assert json.loads(run(folder, "verify", "again", "--json"))["ok"] is True
