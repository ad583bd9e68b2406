"""Supervised FFmpeg processes, with limits on CPU time, wall-clock time, memory, file size and log size.

A process never outlives the thread that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
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

from vidal.errors import ClipError, machine_error
from vidal.media import log_lines
from vidal.media.limits import Limits

STDERR_KEPT_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 4096
_PR_SET_PDEATHSIG = 1

# The environment is cleared so that none of the user's variables (proxies, FFREPORT, LD_PRELOAD) reaches a decoder.
_ENVIRONMENT = {"LC_ALL": "C", "MALLOC_ARENA_MAX": "2", **log_lines.ENVIRONMENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The result of a child process that has ended."""

    returncode: int
    """Exit code, or the negated number of the signal that ended the process."""
    log: str
    """The last `STDERR_KEPT_BYTES` of stderr, each line as returned by `log_lines.plain`."""
    first_error: str
    """The first line logged as an error, without memory addresses, so that a row's ``detail`` is reproducible."""
    counts: Mapping[bytes, int]
    """Number of log lines that matched each of the patterns passed as ``marks``."""


def run(
    command: Sequence[str], folder: Path, limits: Limits, *, marks: Sequence[bytes] = (), cpu_s: float | None = None
) -> Finished:
    """Run ``command`` in ``folder`` under ``limits`` and return its result, whatever its exit code.

    ``marks`` are regular expressions whose matching log lines are counted; ``cpu_s`` overrides ``limits.cpu_s``.
    Raises `ClipError` if a limit was exceeded and `MachineError` if ``folder`` cannot be written to.
    """
    log, cpu_limit_s = _Log(marks), cpu_s or limits.cpu_s
    started = time.monotonic()
    with _spawn(command, folder) as child:
        try:
            _limit(child.pid, limits, cpu_limit_s)
            is_in_time = _read_until(child, log, started + limits.wall_s)
            usage = _reap(child, started + limits.wall_s if is_in_time else 0.0)
        except BaseException:
            _kill_group(child)
            child.wait()
            raise
    finished = Finished(
        returncode=child.returncode,
        log=log.text(),
        first_error=log.first_error or f"exit code {child.returncode}",
        counts=dict(log.counts),
    )
    if finished.returncode != 0:
        elapsed_s = time.monotonic() - started
        _raise_for_machine(folder)
        used_s = usage.ru_utime + usage.ru_stime
        if finished.returncode == -signal.SIGXCPU or used_s >= max(1, round(cpu_limit_s)) * 0.98:
            raise ClipError("timeout", f"used more than {cpu_limit_s:g} CPU seconds")
        if elapsed_s >= limits.wall_s:
            raise ClipError("timeout", f"still running after {limits.wall_s:g} s", transient=True)
        _raise_for_limit(finished)
    return finished


def _spawn(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` so that it receives SIGKILL when this thread ends.

    ``setpriv`` (util-linux) avoids running Python between fork and exec: `subprocess` can then use vfork, which copies
    no page tables and runs no atfork handlers, so it is fast and safe in a worker with threads, gRPC and CUDA.
    """
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/local/bin")
    launcher, before_exec = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else [], None
    if setpriv is None:
        before_exec = functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return subprocess.Popen(
        [*launcher, *command],
        cwd=folder,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        preexec_fn=before_exec,
    )


def _limit(pid: int, limits: Limits, cpu_s: float) -> None:
    """Set the resource limits from outside, right after the start and before the child reads its input."""
    cpu = max(1, round(cpu_s))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limits.output_bytes, limits.output_bytes))
        resource.prlimit(pid, resource.RLIMIT_CPU, (cpu, cpu + 2))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


class _Log:
    """Keeps the end of a log and counts the lines that match ``marks``, in bounded memory."""

    def __init__(self, marks: Sequence[bytes]) -> None:
        self.counts = dict.fromkeys(marks, 0)
        self.first_error = ""
        self._tail = bytearray()
        self._line = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        for line in map(log_lines.plain, lines):
            self._tail += line + b"\n"
            if not self.first_error and line.startswith(b"[") and (b"[error] " in line or b"[fatal] " in line):
                self.first_error = re.sub(r" @ 0x[0-9a-f]+", "", line.decode("utf-8", "replace"))[:300]
            for mark in self.counts:
                self.counts[mark] += re.search(mark, line) is not None
        del self._tail[:-STDERR_KEPT_BYTES]
        # An unfinished line is cut at the end: its beginning identifies the component that logged it.
        self._line = rest[:_LONGEST_LINE_BYTES]

    def text(self) -> str:
        return (self._tail + log_lines.plain(self._line)).decode("utf-8", "replace")


def _read_until(child: subprocess.Popen[bytes], log: _Log, deadline: float) -> bool:
    """Read stderr to its end; return False if the deadline came first."""
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stderr, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            data = os.read(child.stderr.fileno(), 1 << 16)
            if not data:
                return True
            log.feed(data)
    return False


def _reap(child: subprocess.Popen[bytes], deadline: float) -> resource.struct_rusage:
    """Wait for the child to end, kill its process group at the deadline, and return its resource usage."""
    pause = 0.001
    while True:
        if time.monotonic() >= deadline:
            _kill_group(child)
        pid, status, usage = os.wait4(child.pid, 0 if time.monotonic() >= deadline else os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _raise_for_machine(folder: Path) -> None:
    """Test whether a full or read-only disk made the child fail, by writing to ``folder`` rather than by its log."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * (1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if (fault := machine_error(error, str(folder))) is not None:
            raise fault from error
        raise


def _raise_for_limit(finished: Finished) -> None:
    if finished.returncode == -signal.SIGXFSZ or log_lines.find_error(finished.log, ".*: File too large"):
        raise ClipError("too_much_output", "FFmpeg wrote a file larger than output_bytes")
    if log_lines.find_error(finished.log, "Number of streams exceeds max_streams"):
        raise ClipError("too_many_streams", "more streams than max_streams")
    if log_lines.find_error(finished.log, ".*Cannot allocate memory"):
        raise ClipError("out_of_memory", finished.first_error)
    if finished.returncode < 0:
        # The limits above never send SIGKILL here: the machine is out of memory or is being shut down.
        name = signal.Signals(-finished.returncode).name
        raise ClipError("decoder_died", name, transient=finished.returncode == -signal.SIGKILL)
