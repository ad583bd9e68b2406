"""One FFmpeg process under supervision: bounded in CPU, time, memory, output and log, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidal.errors import ClipError, machine_error
from vidal.media import log_lines
from vidal.media.limits import Limits

STDERR_KEPT_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 4096
_PR_SET_PDEATHSIG = 1

# The environment is cleared: nothing of the user's (proxies, FFREPORT, LD_PRELOAD) reaches a decoder.
_ENVIRONMENT = {"LC_ALL": "C", "MALLOC_ARENA_MAX": "2", **log_lines.ENVIRONMENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a child ended; ``log`` is the end of its stderr, ``counts`` how many log lines matched each mark.

    Both see the lines as `log_lines.plain` gives them.
    """

    returncode: int
    log: str
    first_error: str
    """The first line logged as an error, without addresses: for a row's ``detail``, so the same in every run."""
    counts: Mapping[bytes, int]
    cpu_s: float
    peak_rss_bytes: int
    out_of_time: str | None


def run(
    command: Sequence[str], folder: Path, limits: Limits, *, marks: Sequence[bytes] = (), cpu_s: float | None = None
) -> Finished:
    """Run ``command`` in ``folder``; raises `ClipError` for a limit and `MachineError` for a broken output folder.

    A plain failure of the program is returned, as its meaning is the caller's to say.
    """
    log = _Log(marks)
    started = time.monotonic()
    with _spawn(command, folder) as child:
        try:
            _limit(child.pid, limits, cpu_s or limits.cpu_s)
            in_time = _read_until(child, log, started + limits.wall_s)
            usage = _reap(child, started + limits.wall_s if in_time else 0.0)
        except BaseException:
            _kill_group(child)
            child.wait()
            raise
    cpu = usage.ru_utime + usage.ru_stime
    finished = Finished(
        returncode=child.returncode,
        log=log.text(),
        first_error=log.first_error or f"exit code {child.returncode}",
        counts=dict(log.counts),
        cpu_s=cpu,
        peak_rss_bytes=usage.ru_maxrss * 1024,
        out_of_time=_out_of_time(child.returncode, cpu, cpu_s or limits.cpu_s, time.monotonic() - started, limits),
    )
    if finished.returncode != 0:
        _raise_for_machine(folder)
        _raise_for_limit(finished)
    return finished


def _spawn(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    launcher, before_exec = _die_with_parent()
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


def _die_with_parent() -> tuple[list[str], Callable[[], Any] | None]:
    """How the child comes to get SIGKILL when this thread dies.

    ``setpriv`` (util-linux) keeps Python out of the fork: `subprocess` then uses vfork, which copies no page
    tables and runs no atfork handler, so it is quick and safe in a worker full of threads, gRPC and CUDA.
    """
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/local/bin")
    if setpriv is not None:
        return [setpriv, "--pdeathsig", "KILL", "--"], None
    prctl = ctypes.CDLL(None).prctl
    return [], lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _limit(pid: int, limits: Limits, cpu_s: float) -> None:
    """Set the limits from outside, right after the start: they hold for all that the child does with the file."""
    cpu = max(1, round(cpu_s))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limits.output_bytes, limits.output_bytes))
        resource.prlimit(pid, resource.RLIMIT_CPU, (cpu, cpu + 2))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


class _Log:
    """The end of a stream of lines, and how often some marks stood in it, in bounded memory."""

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
        # The beginning of a line says whose it is.
        self._line = rest[:_LONGEST_LINE_BYTES]

    def text(self) -> str:
        return (self._tail + log_lines.plain(self._line)).decode("utf-8", "replace")


def _read_until(child: subprocess.Popen[bytes], log: _Log, deadline: float) -> bool:
    """Drain stderr to its end; False if the deadline came first."""
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
    """Wait for the child's end, by force at the deadline, and give what it used."""
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


def _out_of_time(returncode: int, used_s: float, cpu_s: float, wall_s: float, limits: Limits) -> str | None:
    if returncode == 0:
        return None
    if returncode == -signal.SIGXCPU or used_s >= max(1, round(cpu_s)) * 0.98:
        return f"more than {cpu_s:g} CPU seconds"
    if wall_s >= limits.wall_s:
        return f"no end after {limits.wall_s:g} s"
    return None


def _raise_for_machine(folder: Path) -> None:
    """A failed child may have met a full or read-only disk: try the folder itself, rather than trust a log line."""
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
    if finished.out_of_time is not None:
        raise ClipError("timeout", finished.out_of_time, transient=finished.out_of_time.startswith("no end"))
    if finished.returncode == -signal.SIGXFSZ or log_lines.says(finished.log, ".*: File too large"):
        raise ClipError("too_much_output", "FFmpeg wrote more than output_bytes into one file")
    if log_lines.says(finished.log, "Number of streams exceeds max_streams"):
        raise ClipError("too_many_streams", "more streams than max_streams")
    if log_lines.says(finished.log, ".*Cannot allocate memory"):
        raise ClipError("out_of_memory", finished.first_error)
    if finished.returncode < 0:
        # SIGKILL comes from the machine, which ran out of memory or is being shut down.
        name = signal.Signals(-finished.returncode).name
        raise ClipError("decoder_died", name, transient=finished.returncode == -signal.SIGKILL)
