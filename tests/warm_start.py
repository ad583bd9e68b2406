"""The test processes of pytest-xdist as copies of one that has imported what all of them do: seconds of CPU for each.

A script with the standard library alone, which `tests/conftest.py` has xdist start in the place of Python. The process that
is copied has used none of what it imported and has one thread. Each copy's fork server (`tests.forks`) is a copy, too.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from multiprocessing import forkserver, process, resource_tracker, util
from pathlib import Path
from typing import Any, NoReturn

OF_FORKS = (
    "torch.distributed", "torch.distributed.fsdp", "vidal.train.run", "vidal.engine.driver", "vidal.dataset.verify",
    "transformers.models.bert.modeling_bert", "transformers.models.clip.modeling_clip", "open_clip", "timm.optim",
    "webdataset", "pytest",
)  # fmt: skip
"""What most commands under test import; not the commands, whose console keeps the width that it found."""
OF_TESTS = (
    "moto.server",
    "pandas",
    "pyarrow.parquet",
    "s3fs",
    "scipy.stats",
    "tensorboard",
    "torchvision.transforms.v2",
)
"""What the files of tests import besides, but for what starts a thread or minds a fork."""


class WarmStart:
    """The process that is copied, as the one that distributes the tests sees it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="v")
        self._address = f"{self._folder.name}/s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            command = [sys.executable, __file__, "serve", str(listener.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),))

    @property
    def python(self) -> str:
        """A command that does what ``python -c CODE`` does, in a copy."""
        return f"{sys.executable} -IS {Path(__file__)} {self._address}"

    def close(self) -> None:
        """Wait for the end of the copies, and end it."""
        self._process.communicate()
        self._folder.cleanup()


def ask(address: str, code: str) -> int:
    """Run ``code`` in a copy that has this process's standard streams; returns its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [code.encode()], [0, 1, 2])
        # Whoever reads from the copy is to see its end.
        os.closerange(0, 2)
        return int(server.recv(16) or 1)


def serve(listener: socket.socket) -> str:
    """Make copies until the standard input ends and they have ended; gives a copy's code, in the copy."""
    # Ctrl-C is for the tests, which end this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    # Arrow's second allocator starts a thread when it is loaded, which no copy would have.
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    for name in OF_FORKS + OF_TESTS:
        importlib.import_module(name)
    del os.environ["JE_ARROW_MALLOC_CONF"]
    assert (threads := len(os.listdir("/proc/self/task"))) == 1, f"an import has started {threads - 1} threads"
    gc.freeze()
    copies: dict[int, socket.socket] = {}
    doors: list[Any] = [driver, listener]
    while doors or copies:
        ready = select.select([*doors, *copies.values()], [], [], 0.2)[0]
        if listener in ready:
            asking = listener.accept()[0]
            message, streams, *_ = socket.recv_fds(asking, 4096, 3)
            if not (pid := os.fork()):
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                close_all_but(0, 1, 2)
                return message.decode()
            copies[pid] = asking
            for stream in streams:
                os.close(stream)
        if driver in ready:
            doors = []
        for pid, asked in [*copies.items()]:
            if asked in ready:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                if asked not in ready:
                    asked.send(str(os.waitstatus_to_exitcode(status)).encode())
                copies.pop(pid).close()
    os._exit(0)


def close_all_but(*kept: int) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                # That of the list itself.
                continue


def start_fork_server() -> None:
    """Make a copy of this process the fork server of multiprocessing, in the place of a new process that imports."""

    def fork(_path: str, arguments: list[str], fds: list[int]) -> int:
        if pid := os.fork():
            return pid
        _run_fork_server(arguments[-1], fds)

    # What they say of processes that tests kill is no part of pytest's report.
    errors = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    resource_tracker.ensure_running()
    own, util.spawnv_passfds = util.spawnv_passfds, fork  # type: ignore[assignment]
    forkserver.set_forkserver_preload([])
    forkserver.ensure_running()
    util.spawnv_passfds = own
    os.dup2(errors, 2)
    os.close(errors)
    forget_temporary_folder()


def _run_fork_server(code: str, fds: list[int]) -> NoReturn:
    try:
        for number in (0, 1):
            os.dup2(2, number)
        close_all_but(0, 1, 2, *fds)
        forget_temporary_folder()
        # As in a new process: the copy was made under the lock.
        forkserver.ForkServer.__init__(forkserver._forkserver)
        resource_tracker.ResourceTracker.__init__(resource_tracker._resource_tracker)
        exec(code, {})
    finally:
        os._exit(0)


def forget_temporary_folder() -> None:
    """The tests choose it later."""
    tempfile.tempdir = None
    process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        sys.exit(ask(sys.argv[1], sys.argv[-1]))
    sys.path[0] = ""
    to_run = serve(socket.socket(fileno=int(sys.argv[2])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start_fork_server()
    # As after `python -c`, and so that no process that multiprocessing starts takes this file for the main module.
    sys.argv, sys.modules["__main__"] = ["-c"], types.ModuleType("__main__")
    exec(to_run, sys.modules["__main__"].__dict__)
    # As at the end of an interpreter, without taking modules apart: Triton's would list what they think was leaked.
    atexit._run_exitfuncs()
    os._exit(0)
