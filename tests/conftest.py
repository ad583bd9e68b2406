"""What every test may use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from multiprocessing.util import Finalize
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
    # Removed at exit, after the folder within it that multiprocessing removes itself (priority -100) at a lower one.
    Finalize(None, shutil.rmtree, (os.environ["TMPDIR"],), {"ignore_errors": True}, exitpriority=-200)

# The budgets of hosts and whatever else is kept for later runs.
os.environ["VIDAL_CACHE"] = tempfile.mkdtemp(prefix="vidal-cache-")

ROOT = Path(__file__).resolve().parent.parent

LONGEST = (
    "e2e/test_pages.py", "e2e/test_benchmarks.py", "e2e/test_train.py", "e2e/test_models.py", "fault/test_engine.py",
    "e2e/test_crawl.py", "fault/test_kill.py", "unit/test_extras.py", "e2e/test_crawl_rates.py",
    "simulation/test_simulation.py", "e2e/test_open_shards.py", "fault/test_bad_training.py",
    "unit/caption/test_injections.py", "e2e/test_remote_run.py", "fault/test_hostile_media.py",
    "unit/benchmarks/test_train_benchmark.py", "fault/test_media_faults.py", "fault/test_kill_commands.py", "e2e/test_cluster.py", "e2e/test_s3.py", "e2e/test_model_recipes.py",
    "parity/test_world_sizes.py", "fault/test_loader_faults.py", "unit/train/test_distributed.py",
)  # fmt: skip
"""The files of more than ten seconds of CPU, the longest first; the first also builds the sample dataset for others."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """All that is collected lasts: collections of garbage, which would look through it, took a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that began last would keep one test process at work while the others are done."""
    rank = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in rank), "LONGEST names a file that is not there"
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["VIDAL_CACHE"], ignore_errors=True)


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
    """A `VIDAL_CACHE` for whoever needs a GGUF model, whose conversion takes 6 s of CPU: once for a run of the tests."""
    return shared / "cache"
