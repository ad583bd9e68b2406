"""The sample dataset, built once for a run of the tests through the public door, for every test that looks at it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.processes import vidal


@pytest.fixture(scope="session")
def sample_dataset(shared: Path, converted_models: Path) -> Path:
    """`pipelines/sample.yaml`, built by one local worker, as each loads every model; the test processes of one run share
    it and only read it.
    """
    folder = shared / "sample"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "is_built").exists():
            build = ["build", "pipelines/sample.yaml", "--out", folder / "data", "--engine", "local", "--workers", "1"]
            done = vidal(*build, env={"VIDAL_CACHE": str(converted_models)}, timeout=900)
            assert done.returncode == 0, done.stderr
            (folder / "is_built").touch()
    return folder / "data"


@pytest.fixture(scope="session")
def manifest(sample_dataset: Path) -> pd.DataFrame:
    """Its manifest as pandas reads it, with a row per clip id."""
    return pd.read_parquet(sample_dataset / "manifest").set_index("clip_id", drop=False)


@pytest.fixture(scope="session")
def truth() -> pd.DataFrame:
    """What is known of the sample clips."""
    table = pd.read_csv(ROOT / "manifests" / "sample.csv", dtype=str, keep_default_na=False)
    return table.set_index("clip_id", drop=False)
