"""`FetchChild`: one long-lived process that fetches, bounded from outside in time, CPU, memory and bytes on disk.

    with FetchChild(scratch) as child:
        answer = child.ask(Ask(op="direct", url=url, folder=str(folder), wall_s=60, max_bytes=50_000_000))

What it cannot be trusted to keep, the parent keeps: it is killed at the deadline, or when the clip's folder grows
too large, and the next ask gets a fresh one. A child serves one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import vidal
from vidal.crawl.ask import MIB, Answer, Ask
from vidal.errors import ToolError

MEMORY_BYTES = 2048 * MIB
_START_WALL_S = 60.0
_GRACE_S = 1.0
"""The child keeps the deadline itself where it can, which spares a new start; the parent waits so much longer."""
_TICK_S = 0.05
_ANSWER_BYTES = 32 * MIB
_SLACK_BYTES = 8 * MIB
"""Metadata, subtitles and fragments beside the media itself."""
_ROOT = str(Path(vidal.__file__).parent.parent)
_MODULE = "vidal.crawl.child_main"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Starter:
    """Starts children from a thread that lives as long as the process.

    A child is killed with the *thread* that started it, and the threads that use it come and go.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._pool: ThreadPoolExecutor | None = None

    def start(self, command: list[str], home: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool, self._pid = ThreadPoolExecutor(1, "fetch-starter"), os.getpid()
            pool = self._pool
        return pool.submit(
            subprocess.Popen, command, cwd=home, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True,
        ).result()  # fmt: skip


_starter = _Starter()


class FetchChild:
    """See the module's text; ``robots_folder`` is shared by the children of one worker."""

    def __init__(
        self,
        scratch: Path | None = None,
        *,
        robots_folder: Path | None = None,
        cpu_s: float = 120.0,
        memory_bytes: int = MEMORY_BYTES,
        module: str = _MODULE,
        function: str = "main",
    ) -> None:
        self._home = tempfile.mkdtemp(prefix="fetch-", dir=scratch)
        self._robots_folder = str(robots_folder) if robots_folder else ""
        self._cpu_s = cpu_s
        self._memory_bytes = memory_bytes
        self._module = module
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        self._selector: selectors.BaseSelector | None = None
        self._unread = b""
        self.starts = 0
        self.start_s = 0.0
        """How long the last start took."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process if none runs; an ask does so by itself."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        started = time.perf_counter()
        self._process = _starter.start(self._command(), self._home, self._environment())
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._unread = b""
        if self._read_line(time.monotonic() + _START_WALL_S) is None:
            self._end()
            raise ToolError(f"the fetching process does not start: {sys.executable} -m {self._module}")
        self.starts += 1
        self.start_s = time.perf_counter() - started

    def ask(self, ask: Ask) -> Answer:
        """The answer, which is always one: a child that dies or oversteps is answered for."""
        self.start()
        assert self._process is not None and self._process.stdin is not None
        folder = Path(ask.folder) if ask.folder else None
        most = ask.max_bytes + _SLACK_BYTES
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        cpu_before_s = _cpu_s(self._process.pid)
        try:
            self._process.stdin.write(ask.to_line())
        except OSError:
            return self._died()
        deadline = time.monotonic() + ask.wall_s + _GRACE_S
        while (line := self._read_line(min(deadline, time.monotonic() + _TICK_S))) is None:
            if self._process.poll() is not None:
                return self._died()
            if folder is not None and (size := folder_bytes(folder)) > most:
                return self._kill(Answer.failed("too_large", f"{size} bytes written, {ask.max_bytes} are allowed"))
            if time.monotonic() >= deadline:
                return self._kill(Answer.failed("timeout", f"no end after {ask.wall_s:g} s"))
            if _cpu_s(self._process.pid) - cpu_before_s > self._cpu_s:
                return self._kill(Answer.failed("timeout", f"more than {self._cpu_s:g} CPU seconds"))
        try:
            return Answer.from_line(line)
        except (ValueError, TypeError):
            return self._kill(Answer.failed("fetcher_died", "an answer that cannot be read"))

    def close(self) -> None:
        """End the process and remove its folder."""
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)

    def _command(self) -> list[str]:
        # Isolated: neither the user's site packages nor PYTHON* variables. The vidal that runs there is this one,
        # in front of another that may be installed.
        is_installed = Path(_ROOT).name in ("site-packages", "dist-packages")
        there = "" if is_installed else f"import sys; sys.path.insert(0, {_ROOT!r}); "
        run = f"{there}import {self._module} as child; child.{self._function}()"
        arguments = [str(os.getpid()), self._home, self._robots_folder, str(self._memory_bytes)]
        return [sys.executable, "-I", "-B", "-c", run, *arguments]

    def _environment(self) -> dict[str, str]:
        folders = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        return {
            **dict.fromkeys(folders, self._home), "PATH": "", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb",
            "YTDLP_NO_PLUGINS": "1", "MALLOC_ARENA_MAX": "2",
        }  # fmt: skip

    def _read_line(self, until: float) -> bytes | None:
        """The next line, or None if it did not come by then, or the pipe is closed."""
        assert self._process is not None and self._process.stdout is not None and self._selector is not None
        while b"\n" not in self._unread:
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._selector.select(left_s):
                return None
            data = self._process.stdout.read(1 << 20)
            if not data or len(self._unread) + len(data) > _ANSWER_BYTES:
                # At the end of the pipe `poll` tells in a moment; an endless answer ends here.
                self._signal()
                self._process.wait()
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _died(self) -> Answer:
        assert self._process is not None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._kill(Answer.failed("fetcher_died", how))

    def _kill(self, answer: Answer) -> Answer:
        self._end()
        return answer

    def _signal(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> None:
        if self._process is None:
            return
        self._signal()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._selector is not None:
            self._selector.close()
        self._process = self._selector = None


def folder_bytes(folder: Path) -> int:
    """Bytes of the regular files in a folder and those below it."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
