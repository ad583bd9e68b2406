"""`WorkerServer`: a process that has imported what every worker of a pool needs, and forks the workers.

It sees no job and no clip: each worker is a copy of a process that has one thread and has done nothing but import. It
is killed with the thread of the driver that started it, and the workers with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from multiprocessing import spawn
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from vidal.errors import MachineError
from vidal.process import die_with

# What starts no thread and reads no variable that workers differ in; so neither torch nor a stage that may import it.
_IMPORTS = ("vidal.engine.local", "vidal.recipe", "pyarrow.parquet")
# Arrow's second allocator starts a thread when it is loaded, which no fork would have.
_NO_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


class WorkerServer:
    """The server as the driver sees it; for one thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it; ``environment`` is what it has at its imports."""
        self._channel, theirs = multiprocessing.Pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from vidal.engine import worker_server as server; "
        command = [sys.executable, "-c", code + f"server.main({theirs.fileno()}, {os.getpid()})"]
        # Inherited: Ctrl-C is for the driver alone, from the first instruction on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, env={**environment, **_NO_THREADS}, pass_fds=(theirs.fileno(),)
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def fork(self, pipe: Connection, environment: Mapping[str, str]) -> int:
        """Fork a worker that serves ``pipe`` and has this environment and no other; returns its pid.

        Raises `MachineError` where there is no memory or no process left for it.
        """
        preparation = spawn.get_preparation_data("worker")
        # The pipe is the driver's and the server's alone.
        preparation["authkey"] = bytes(preparation["authkey"])
        try:
            return self._call((dict(environment), preparation), pipe)
        except (EOFError, OSError) as error:
            raise MachineError(
                "no worker can be started; is memory short, or the number of processes limited?"
            ) from error

    def end(self, pid: int) -> int:
        """Kill a worker if it still runs; returns its exit code, or minus the number of the signal that ended it."""
        try:
            return self._call(pid)
        except (EOFError, OSError):
            # The kernel kills the workers with their server.
            return -signal.SIGKILL

    def _call(self, message: object, *pipes: Connection) -> int:
        try:
            self._channel.send(message)
            for pipe in pipes:
                send_handle(self._channel, pipe.fileno(), self.pid)
            return int(self._channel.recv())
        except BaseException:
            # After a Ctrl-C in here its next answer would be this one's.
            self._process.kill()
            raise

    def close(self) -> None:
        """End the server, and with it its workers."""
        self._process.kill()
        self._channel.close()
        self._process.wait()


def main(channel_fd: int, parent_pid: int) -> None:
    """Serve until the channel ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent_pid)
    for name in _IMPORTS:
        importlib.import_module(name)
    # Arrow imports pandas, where there is one, at its first conversion.
    importlib.import_module("pyarrow").array([None])
    # What is imported lasts: a worker's collections would look through it, and copy its pages.
    gc.freeze()
    own_pid = os.getpid()
    # An interrupted driver may be gone at any of its requests and answers.
    with Connection(channel_fd) as channel, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message = channel.recv()
            if isinstance(message, int):
                # It is not reaped yet, so its number cannot have become another's.
                os.kill(message, signal.SIGKILL)
                channel.send(os.waitstatus_to_exitcode(os.waitpid(message, 0)[1]))
                continue
            pipe_fd = recv_handle(channel)
            if (pid := os.fork()) == 0:
                channel.close()
                _become(own_pid, pipe_fd, *message)
            # While the server holds it, a worker's death would not end the pipe.
            os.close(pipe_fd)
            channel.send(pid)


def _become(server_pid: int, pipe_fd: int, environment: dict[str, str], preparation: dict[str, Any]) -> None:
    """Turn the fork into a worker; does not return."""
    code = 1
    try:
        die_with(server_pid)
        os.environ.clear()
        os.environ.update(environment)
        # As in a spawned process: the driver's arguments and import path, and its main module, which may have stages.
        spawn.prepare(preparation)
        # Forks would all draw the same numbers.
        importlib.import_module("numpy.random").seed()
        importlib.import_module("vidal.engine.local").serve(Connection(pipe_fd))
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
