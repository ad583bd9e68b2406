"""What every worker process does to itself before it touches a clip."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil

from vidal.engine import isolate
from vidal.errors import StorageError

_PR_SET_PDEATHSIG = 1

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "RAYON_NUM_THREADS",
    )
}
"""One thread per worker: many workers on few cores lose more to switching than they win."""

QUIET_MODELS = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}


def environment(*, gpus: float) -> dict[str, str]:
    """What a worker has in its environment before its first import; without a GPU of its own it sees none.

    Ray hides no GPU from an actor that asked for none, and a library that chooses by itself would load a copy of its
    model there for each worker.
    """
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {**ONE_THREAD, **QUIET_MODELS, **hidden}


_SCRATCH_PREFIX = "vidal-worker-"


def make_scratch() -> Path:
    """A private folder of this process, after sweeping those of processes that were killed."""
    sweep_scratch()
    try:
        return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise StorageError(
            f"no temporary folder can be made ({error.strerror}); free some space, or set TMPDIR to a folder with room"
        ) from error


def sweep_scratch() -> None:
    """Remove the private folders of processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*"):
        pid = folder.name.removeprefix(_SCRATCH_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def become_worker(*, gpus: float, die_with_parent: bool) -> None:
    """Arm the watchdog, leave Ctrl-C to the driver, and die when the driver dies."""
    isolate.watchdog_may_exit = True
    os.environ.update(environment(gpus=gpus))
    if die_with_parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
