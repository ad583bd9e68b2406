"""What every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of more threads than cores, each waits for the others in a loop: the same tests took up to three times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Several test processes on one machine: each has a temporary folder of its own, so that what one looks for in it
# (nothing left behind, a dead run's leftovers) is its own doing.
if os.environ.get("PYTEST_XDIST_WORKER") and not os.environ.get("VIDAL_TESTS_TMPDIR"):
    # Short, as the path of a socket of Ray's is below it and may have 107 bytes.
    os.environ["TMPDIR"] = os.environ["VIDAL_TESTS_TMPDIR"] = tempfile.mkdtemp(prefix="v")
    tempfile.tempdir = None

# The budgets of hosts and whatever else is kept for later runs.
os.environ["VIDAL_CACHE"] = tempfile.mkdtemp(prefix="vidal-cache-")

ROOT = Path(__file__).resolve().parent.parent


def pytest_unconfigure() -> None:
    for name in ("VIDAL_TESTS_TMPDIR", "VIDAL_CACHE"):
        if folder := os.environ.get(name):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def budgets() -> None:
    """Every test begins with unused budgets of hosts."""
    shutil.rmtree(Path(os.environ["VIDAL_CACHE"]) / "crawl", ignore_errors=True)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample clips."""
    return ROOT / "samples" / "clips"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the test processes of one run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def converted_models(shared: Path) -> Path:
    """A `VIDAL_CACHE` for whoever needs a GGUF model, whose conversion takes 17 s of CPU: once for a run of the tests."""
    return shared / "cache"
