"""Runs FFmpeg under limits on CPU time, wall-clock time, memory, file size and log size, and tells why it failed."""

from __future__ import annotations

import os
import re
import resource
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidal.errors import ClipError, machine_error
from vidal.media import log_lines
from vidal.media.limits import Limits
from vidal.process import Child

STDERR_KEPT_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 4096

# The environment is cleared so that none of the user's variables (proxies, FFREPORT, LD_PRELOAD) reaches a decoder.
# Each arena of glibc's malloc reserves 64 MB of the address space that `Limits.memory_bytes` bounds.
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
    deadline = time.monotonic() + limits.wall_s
    # The kernel's limit is in whole seconds.
    whole_cpu_s = max(1, round(cpu_limit_s))
    bounds = {
        resource.RLIMIT_AS: (limits.memory_bytes, limits.memory_bytes),
        resource.RLIMIT_FSIZE: (limits.output_bytes, limits.output_bytes),
        # SIGXCPU at the soft limit tells the cause; SIGKILL at the hard one ends a process that ignores it.
        resource.RLIMIT_CPU: (whole_cpu_s, whole_cpu_s + 2),
    }
    with Child(command, folder, _ENVIRONMENT, bounds, output="stderr") as child:
        while data := child.read(deadline):
            log.feed(data)
        end = child.wait(deadline)
    finished = Finished(
        returncode=end.returncode,
        log=log.text(),
        first_error=log.first_error or f"exit code {end.returncode}",
        counts=dict(log.counts),
    )
    if end.returncode != 0:
        # A full disk looks like a damaged clip in FFmpeg's log, so it is ruled out before the clip is blamed.
        _raise_for_machine(folder)
        if end.cause == "cpu":
            raise ClipError("timeout", f"used more than {cpu_limit_s:g} CPU seconds")
        if end.cause == "deadline":
            # Unlike CPU time, wall-clock time depends on the load of the machine: a retry may succeed.
            raise ClipError("timeout", f"still running after {limits.wall_s:g} s", transient=True)
        if end.cause == "file_size" or log_lines.find_error(finished.log, ".*: File too large"):
            raise ClipError("too_much_output", "FFmpeg wrote a file larger than output_bytes")
        if log_lines.find_error(finished.log, "Number of streams exceeds max_streams"):
            raise ClipError("too_many_streams", "more streams than max_streams")
        if log_lines.find_error(finished.log, ".*Cannot allocate memory"):
            raise ClipError("out_of_memory", finished.first_error)
        if end.cause == "signal":
            # The limits above never send SIGKILL here: the machine is out of memory or is being shut down.
            raise ClipError("decoder_died", str(end), transient=end.returncode == -signal.SIGKILL)
    return finished


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


def _raise_for_machine(folder: Path) -> None:
    """Test whether a full or read-only disk made the child fail, by writing to ``folder`` rather than by its log."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * (1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise machine_error(error, str(folder)) or error from None
