"""Supervised processes: limited from outside, killed with their group, never outliving their parent.

    limits = {resource.RLIMIT_AS: (2 << 30, 2 << 30)}
    with Child(["ffmpeg", *options], folder, {"LC_ALL": "C"}, limits, output="stderr") as child:
        while data := child.read(deadline):
            log.feed(data)
        end = child.wait(deadline)    # end.cause: "exit", "cpu", "deadline", "file_size" or "signal"

A process that is no `Child`, such as a worker of a pool, calls `die_with` itself. Each keeps its files in a
`private_folder`, which the next process removes if this one is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from vidal.errors import StorageError

Cause = Literal["exit", "cpu", "deadline", "file_size", "signal"]

_PR_SET_PDEATHSIG = 1
_LIMITS = {
    resource.RLIMIT_AS: "as", resource.RLIMIT_CORE: "core", resource.RLIMIT_CPU: "cpu", resource.RLIMIT_FSIZE: "fsize",
}  # fmt: skip
_NO_LIMITS: Mapping[int, tuple[int, int]] = {}
_FOLDER_PREFIX = "vidal-private-"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Loaded here, because nothing may be loaded between fork and exec.
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a process ended."""

    cause: Cause
    """``cpu``, ``file_size``: it exceeded that limit · ``deadline``: it was late and was killed · ``signal``: any other
    signal killed it · ``exit``: it ended by itself, with any exit code."""
    returncode: int
    """The exit code, or minus the number of the signal."""

    def __str__(self) -> str:
        return exit_text(self.returncode)


class Supervised:
    """What can be done to a running process by its pid."""

    pid: int

    def limit(self, kind: int, soft: int, hard: int) -> None:
        """Change a limit of the running process from outside."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.pid, kind, _lowered(kind, (soft, hard)))

    def cpu_s(self) -> float:
        """User and system time of the process so far, in seconds; 0 if it is gone."""
        try:
            # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Child(Supervised):
    """A process in a session of its own, with only the environment that is given and one output that is read.

    ``limits`` are pairs of a soft and a hard one, by ``resource.RLIMIT_AS``, ``CPU`` or ``FSIZE``; core files are off.
    ``output`` names the stream for `read`; the other one and, unless ``has_input``, stdin are ``/dev/null``. The kernel
    kills the process when the *thread* that started it ends. One thread at a time may use a `Child`.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        limits: Mapping[int, tuple[int, int]] = _NO_LIMITS,
        *,
        output: Literal["stdout", "stderr"],
        has_input: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        # prlimit and setpriv (util-linux) set limits and parent-death signal before the command's first instruction.
        # They keep Python out of the fork: `subprocess` then uses vfork, which copies no page tables and runs no atfork
        # handler, so it is quick and safe in a worker full of threads, gRPC and CUDA.
        prlimit, setpriv = (shutil.which(name, path="/usr/bin:/bin:/usr/local/bin") for name in ("prlimit", "setpriv"))
        launcher = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        limits = {kind: _lowered(kind, limit) for kind, limit in {resource.RLIMIT_CORE: (0, 0), **limits}.items()}
        if prlimit:
            options = (f"--{_LIMITS[kind]}={soft}:{hard}" for kind, (soft, hard) in limits.items())
            launcher = [prlimit, *options, "--", *launcher]
        self._selector = selectors.DefaultSelector()
        self._process = subprocess.Popen(
            [*launcher, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if has_input else stdin,
            stdout=subprocess.PIPE if output == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if output == "stderr" else subprocess.DEVNULL,
            # What is written reaches the process at once, as it may be a request that the writer waits for.
            bufsize=0,
            start_new_session=True,
            preexec_fn=None if setpriv else lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
        self.pid = self._process.pid
        self._end: End | None = None
        self._cpu_limit_s = limits.get(resource.RLIMIT_CPU, (float("inf"),))[0]
        stream = self._process.stdout or self._process.stderr
        assert stream is not None
        self._output_fd = stream.fileno()
        self._selector.register(self._output_fd, selectors.EVENT_READ)
        for kind, (soft, hard) in {} if prlimit else limits.items():
            self.limit(kind, soft, hard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Write to stdin; raises `OSError` where the process has closed it."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def end_input(self) -> None:
        """Close stdin, so that the process reads its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def read(self, deadline: float) -> bytes | None:
        """The next bytes of the output: ``b""`` at its end, None if none came by ``deadline`` (`time.monotonic`)."""
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not self._selector.select(left_s):
            return None
        # 64 KiB is what a pipe of Linux holds.
        return os.read(self._output_fd, 1 << 16)

    def poll(self, *, is_late: bool = False) -> End | None:
        """How the process ended, or None while it runs; one that is late is killed first, with its group."""
        if self._end is not None:
            return self._end
        if is_late:
            # The process is not reaped yet, so its number cannot have become another's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        pid, status, usage = os.wait4(self.pid, 0 if is_late else os.WNOHANG)
        if not pid:
            return None
        # Reaped here, for its CPU time; `Popen` has to know, or it would wait for a process that is gone.
        returncode = self._process.returncode = os.waitstatus_to_exitcode(status)
        has_used_up = usage.ru_utime + usage.ru_stime >= 0.98 * self._cpu_limit_s
        cause: Cause = "exit" if returncode >= 0 else "signal"
        if returncode == -signal.SIGXCPU or (returncode != 0 and has_used_up):
            cause = "cpu"
        elif returncode != 0 and is_late:
            cause = "deadline"
        elif returncode == -signal.SIGXFSZ:
            cause = "file_size"
        self._end = End(cause=cause, returncode=returncode)
        return self._end

    def wait(self, deadline: float) -> End:
        """Wait for the end of the process, which is killed at ``deadline`` (`time.monotonic`)."""
        pause_s = 0.001
        while (end := self.poll(is_late=time.monotonic() >= deadline)) is None:
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        return end

    def close(self) -> End:
        """Kill the process if it still runs, and release its pipes."""
        end = self.wait(0.0)
        with self._process, self._selector:
            return end


def _lowered(kind: int, limit: tuple[int, int]) -> tuple[int, int]:
    """The limit, or our own hard one where that is lower: nobody may exceed his own."""
    _, own = resource.getrlimit(kind)
    soft, hard = (own if own != resource.RLIM_INFINITY and not 0 <= value < own else value for value in limit)
    return soft, hard


def exit_text(returncode: int) -> str:
    """``SIGKILL`` or ``exit code 3``."""
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process at the death of its parent, which may have died before it could be asked to."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def private_folder(kind: str, parent: Path | None = None) -> Path:
    """Make a folder that only this user can read; those of processes that were killed are removed first.

    ``parent`` is the system's temporary folder by default. Raises `StorageError` where no folder can be made.
    """
    sweep_folders(parent)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-{kind}-", dir=parent))
    except OSError as error:
        raise StorageError(
            f"no temporary folder can be made ({error.strerror}); free some space, or set TMPDIR to a folder with room"
        ) from error


def sweep_folders(parent: Path | None = None) -> None:
    """Remove the private folders of processes that no longer exist."""
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        # Where a later process has got the number, the folder stays until that one has ended.
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
