"""Commands in copies of a process that has imported what most of them do, which takes each seconds of CPU.

The process that is copied has used none of what it imported. A plain fork of this one would have no autograd threads
after a backward pass.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# Not the commands, whose console keeps the width that it found.
FORKS.set_forkserver_preload([
    "torch.distributed", "torch.distributed.fsdp", "vidal.train.run", "vidal.engine.driver", "vidal.dataset.verify",
    "transformers.models.bert.modeling_bert", "transformers.models.clip.modeling_clip", "open_clip", "timm.optim",
    "webdataset", "pytest",
])  # fmt: skip


class Fork:
    """A Python command under way, a process group of its own: ``[script, …]`` or ``["-m", module, …]``.

    Whoever tests what a command does at its imports starts a process of its own. Whoever looks at it while it runs
    enters it: what still runs at the end of a test is waited for at that of all tests.
    """

    def __init__(self, *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = [str(word) for word in command]
        self._said = tempfile.TemporaryDirectory()
        for name in ("out", "err"):
            Path(self._said.name, name).touch()
        environment = {**os.environ, **(env or {})}
        self._process = FORKS.Process(target=_run, args=(self.command, str(cwd), environment, self._said.name))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill its group, or it alone where it has none yet."""
        self._process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()
        self._said.cleanup()

    def ended(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """How it ended and what it had said."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.command, timeout)
        with self:
            out, err = ((Path(self._said.name) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(self.command, code, out, err)


def _run(command: list[str], cwd: str, environment: dict[str, str], said: str) -> None:
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        with open(f"{said}/{name}", "wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
    finally:
        # As an interpreter does at its end, and a process of multiprocessing's does not.
        atexit._run_exitfuncs()
