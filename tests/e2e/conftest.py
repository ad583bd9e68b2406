"""The sample data set, built once through the public door, for every test that looks at it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.runs import vidal


def run_vidal(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    done = vidal(*arguments, timeout=900)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def sample_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pipelines/sample.yaml`, built by two local workers."""
    out = tmp_path_factory.mktemp("sample") / "data"
    run_vidal("build", "pipelines/sample.yaml", "--out", out, "--engine", "local", "--workers", "2")
    return out


@pytest.fixture(scope="session")
def manifest(sample_dataset: Path) -> pd.DataFrame:
    """Its manifest as pandas reads it, with a row per clip id."""
    return pd.read_parquet(sample_dataset / "manifest").set_index("clip_id", drop=False)


@pytest.fixture(scope="session")
def truth() -> pd.DataFrame:
    """What is known of the sample clips."""
    table = pd.read_csv(ROOT / "manifests" / "sample.csv", dtype=str, keep_default_na=False)
    return table.set_index("clip_id", drop=False)
