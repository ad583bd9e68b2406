"""`FetchChild`: one long-lived process that fetches, bounded from outside in time, CPU, memory and bytes on disk.

    with FetchChild(scratch) as child:
        answer = child.ask(Ask(op="direct", url=url, folder=str(folder), wall_s=60, max_bytes=50_000_000))

Limits that the child cannot be trusted to keep are enforced by the parent: it kills the child at the deadline, or when
the clip's folder grows too large, and starts a new one for the next ask. A child serves one thread at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any, Self

from vidal.crawl.admission import Admission
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.fork_server import ForkedChild, ForkServer
from vidal.errors import ToolError
from vidal.media.limits import MIB
from vidal.process import private_folder

# Only the soft limit holds for the child itself: deno needs more (`vidal.crawl.javascript`).
_LIMITS = {resource.RLIMIT_AS: (2048 * MIB, 64 * 1024 * MIB)}
_START_WALL_S = 60.0
_GRACE_S = 1.0
"""The child keeps the deadline itself where it can, which spares a new start; the parent waits so much longer."""
_TICK_S = 0.05
_ANSWER_BYTES = 32 * MIB
# The longest name in DNS; what the child says of hosts and origins is cut, as it comes from a stranger's page.
_HOST_CHARACTERS = 253
_ORIGIN_CHARACTERS = 300
_SLACK_BYTES = 8 * MIB
"""Metadata, subtitles and fragments beside the media itself."""
_FOLDERS = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
# No PATH, so that nothing is found by name. Each arena of glibc's malloc reserves 64 MB of the bounded address space.
_ENVIRONMENT = {
    "PATH": "", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb", "YTDLP_NO_PLUGINS": "1", "MALLOC_ARENA_MAX": "2",
}  # fmt: skip
_MODULE = "vidal.crawl.child_main"


_server: ForkServer | None = None
"""That of this process."""


def _renew_starter() -> None:
    """Make the thread that starts the fork server of this process; a fork inherits neither.

    The server is killed with the thread that started it, and the threads that use it come and go.
    """
    global _starter, _server
    _starter, _server = ThreadPoolExecutor(1, "fetch-starter"), None


_starter: ThreadPoolExecutor
_renew_starter()
os.register_at_fork(after_in_child=_renew_starter)


def _running_server() -> ForkServer:
    """The server of this process, started if it does not run; called in the one thread of `_starter`."""
    global _server
    if _server is None or not _server.is_running():
        _server = ForkServer({**dict.fromkeys(_FOLDERS, "/nonexistent"), **_ENVIRONMENT}, _LIMITS)
    return _server


class FetchChild:
    """A fetching process and its private folder; ``robots_folder`` is shared by the children of one worker.

    ``cpu_s`` is the CPU time that one ask may take.
    """

    def __init__(
        self,
        scratch: Path | None = None,
        *,
        robots_folder: Path | None = None,
        cpu_s: float = 120.0,
        module: str = _MODULE,
        function: str = "main",
    ) -> None:
        self._home = private_folder("fetch", scratch)
        self._robots_folder = str(robots_folder) if robots_folder else ""
        self._cpu_s = cpu_s
        self._module = module
        self._function = function
        self._child: ForkedChild | None = None
        self._unread = b""
        self._file_bytes = -1
        """The limit of a file of the running process."""
        self.starts = 0
        self.start_s = 0.0
        """How long the last start took."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> ForkedChild:
        """Start the process if none runs; `ask` does so by itself. Raises `ToolError` where it does not start."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        started = time.perf_counter()
        server, home = _starter.submit(_running_server).result(), str(self._home)
        try:
            child = self._child = server.fork(
                self._module, self._function, self._home, dict.fromkeys(_FOLDERS, home), [home, self._robots_folder]
            )
        except OSError as error:
            raise ToolError(f"the fetching process does not start: {error}") from error
        self._unread, self._file_bytes = b"", -1
        if self._read_line(child, time.monotonic() + _START_WALL_S) is None:
            self._kill()
            raise ToolError(f"the fetching process does not start: {sys.executable} -m {self._module}")
        self.starts += 1
        self.start_s = time.perf_counter() - started
        return child

    def ask(self, ask: Ask, admission: Admission | None = None) -> Answer:
        """The answer to one ask; a child that dies or exceeds a limit gives a failed one.

        Each request is admitted by ``admission``, if given; the time that it waits for that does not count.
        """
        child = self.start()
        folder = Path(ask.folder) if ask.folder else None
        max_bytes = ask.max_bytes + _SLACK_BYTES
        if max_bytes != self._file_bytes:
            # Only the soft limit, as the next ask may allow more.
            child.limit(resource.RLIMIT_FSIZE, max_bytes, resource.RLIM_INFINITY)
            self._file_bytes = max_bytes
        # From the first look at it, as most visits end before that.
        cpu_before_s: float | None = None
        deadline = time.monotonic() + ask.wall_s + _GRACE_S
        try:
            child.write(ask.to_line())
            while True:
                if line := self._read_line(child, min(deadline, time.monotonic() + _TICK_S)):
                    message = json.loads(line)
                    if "ok" in message:
                        return Answer.from_line(line)
                    deadline += self._serve(child, message, admission)
                    continue
                if admission is not None:
                    admission.renew()
                if (end := child.poll()) is not None:
                    return self._failed("fetcher_died", str(end))
                if folder is not None and (size := folder_bytes(folder)) > max_bytes:
                    return self._failed("too_large", f"{size} bytes written, {ask.max_bytes} are allowed")
                if time.monotonic() >= deadline:
                    return self._failed("timeout", f"no end after {ask.wall_s:g} s")
                if cpu_before_s is None:
                    cpu_before_s = child.cpu_s()
                elif child.cpu_s() - cpu_before_s > self._cpu_s:
                    return self._failed("timeout", f"more than {self._cpu_s:g} CPU seconds")
        except OSError:
            return self._failed("fetcher_died", str(child.close()))
        except (ValueError, TypeError, KeyError):
            return self._failed("fetcher_died", "an answer that cannot be read")
        except BaseException:
            # Another ask must not get the answer to this one.
            self._kill()
            raise

    @staticmethod
    def _serve(child: ForkedChild, message: dict[str, Any], admission: Admission | None) -> float:
        """Answer the child, which is about to send a request or has learned something; returns the seconds waited."""
        if "answered" in message:
            if admission is not None:
                admission.answered(int(message["answered"]))
            return 0.0
        if "delay_s" in message:
            if admission is not None:
                admission.delay(str(message["origin"])[:_ORIGIN_CHARACTERS], float(message["delay_s"]))
            return 0.0
        host, kind = str(message["admit"])[:_HOST_CHARACTERS], str(message["kind"])
        is_again = bool(message["is_again"])
        go: dict[str, Any] = {"waited_s": 0.0, "send_by": inf, "is_probe": False}
        if admission is not None:
            go = admission.admit(host, kind, is_again=is_again)
        child.write(json.dumps(go).encode() + b"\n")
        return float(go["waited_s"])

    def close(self) -> None:
        """End the process and remove its folder."""
        self._kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _failed(self, reason: str, detail: str) -> Answer:
        self._kill()
        return Answer.failed(reason, detail)

    def _kill(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _read_line(self, child: ForkedChild, deadline: float) -> bytes | None:
        """The next line, or None if it did not come by ``deadline`` or the pipe is closed."""
        while b"\n" not in self._unread:
            data = child.read(deadline)
            if data is None:
                return None
            self._unread += data
            if not data or len(self._unread) > _ANSWER_BYTES:
                # The end of the pipe, or an endless answer: `poll` then says how the process ended.
                child.close()
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def folder_bytes(folder: Path) -> int:
    """Bytes of the regular files in a folder and those below it."""
    total = 0
    # The child writes meanwhile: what has gone since it was listed counts nothing. Links may lead anywhere.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
