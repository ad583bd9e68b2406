"""`ForkServer`: a process that has imported what a fetching child needs, and forks the children.

Starting Python and importing take 0.3 s of CPU time, a fork a few milliseconds. The server itself fetches nothing and
sees no data: every child is a copy of a process that has done nothing but import. It has one thread and no guard, which
each child installs for itself; it dies with the thread that started it, and the children die with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidal.process import Child, End, Supervised, die_with

_IMPORTS = ("vidal.crawl.child_main",)
_MESSAGE_BYTES = 64 * 1024
_ROOT = str(Path(__file__).resolve().parent.parent.parent)


class ForkServer:
    """The server as its parent sees it; safe to use from many threads."""

    def __init__(self, environment: Mapping[str, str], limits: Mapping[int, tuple[int, int]]) -> None:
        """Start it with the environment and the limits that its children have, too."""
        self._lock = threading.Lock()
        # Of this type, a message is one `recv`, and descriptors travel with it.
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Isolated: neither the user's site packages nor PYTHON* variables. The vidal that runs there is this one,
        # in front of another that may be installed.
        is_installed = Path(_ROOT).name in ("site-packages", "dist-packages")
        path = "" if is_installed else f"import sys; sys.path.insert(0, {_ROOT!r}); "
        code = f"{path}from vidal.crawl import fork_server; fork_server.main()"
        command = [sys.executable, "-I", "-B", "-c", code, str(os.getpid())]
        with theirs:
            self._process = Child(command, Path("/"), environment, limits, output="stdout", stdin=theirs.fileno())

    def is_running(self) -> bool:
        with self._lock:
            return self._process.poll() is None

    def fork(self, module: str, function: str, folder: Path, environment: Mapping[str, str],
             arguments: Sequence[str]) -> ForkedChild:  # fmt: skip
        """Have a child call a function of a module, in a session of its own; raises `OSError` without a server.

        ``environment`` is added to the server's; ``arguments`` follow the pid of the server in ``sys.argv``.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            message = {"fork": [module, function], "folder": str(folder), "environment": dict(environment),
                       "arguments": list(arguments)}  # fmt: skip
            try:
                return ForkedChild(self, int(self.call(message, theirs.fileno())), ours)
            except BaseException:
                ours.close()
                raise

    def call(self, message: dict[str, Any], *descriptors: int) -> Any:
        """Send a message and return the answer; raises `OSError` where the server has died."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(message).encode()], descriptors)
            answer = self._channel.recv(_MESSAGE_BYTES)
        if not answer:
            raise BrokenPipeError("the fork server has ended")
        return json.loads(answer)

    def close(self) -> None:
        """End the server, and with it its children."""
        self._channel.close()
        self._process.close()


class ForkedChild(Supervised):
    """A child of a `ForkServer`, which reaps it; its stdin and stdout are one socket. For one thread at a time."""

    def __init__(self, server: ForkServer, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._server, self._channel = server, channel
        self._end: End | None = None

    def write(self, data: bytes) -> None:
        """Write to its stdin; raises `OSError` where the process has ended."""
        self._channel.settimeout(None)
        self._channel.sendall(data)

    def read(self, deadline: float) -> bytes | None:
        """The next bytes of its stdout: ``b""`` at its end, None if none came by ``deadline`` (`time.monotonic`)."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        self._channel.settimeout(left_s)
        try:
            return self._channel.recv(_MESSAGE_BYTES)
        except TimeoutError:
            return None
        except ConnectionResetError:
            return b""

    def poll(self) -> End | None:
        """How the process ended, or None while it runs; one that has closed its end of the socket is ended."""
        try:
            # Of the socket and not of the server, which would have to wake up for each clip.
            self._channel.settimeout(0)
            if self._channel.recv(1, socket.MSG_PEEK):
                return None
        except BlockingIOError:
            return None
        except OSError:
            # Closed here, or reset by a process that left something unread.
            pass
        return self.close()

    def close(self) -> End:
        """Kill the process with its group if it still runs, and release the socket."""
        self._channel.close()
        if self._end is None:
            try:
                code = self._server.call({"kill": self.pid})
            except OSError:
                # The kernel kills the children with their server.
                code = -signal.SIGKILL
            self._end = End(cause="exit" if code >= 0 else "signal", returncode=code)
        return self._end


def main() -> None:
    """Serve until stdin, a socket, ends; the argument is the parent's pid."""
    die_with(int(sys.argv[1]))
    for name in _IMPORTS:
        importlib.import_module(name)
    # What is imported lasts: a child's collections would look through it, and copy its pages.
    gc.freeze()
    with socket.socket(fileno=os.dup(0)) as channel:
        while True:
            data, descriptors, *_ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
            if not data:
                return
            message = json.loads(data)
            if "fork" not in message:
                answer = _end_of(message["kill"])
            elif (answer := os.fork()) == 0:
                # A child that kept it could answer the parent in the server's name.
                channel.close()
                _become(message, descriptors[0])
            for descriptor in descriptors:
                os.close(descriptor)
            channel.send(json.dumps(answer).encode())


def _end_of(pid: int) -> int:
    """Kill a child with its group; returns its exit code, or minus the number of the signal that ended it."""
    # It is not reaped yet, so its number cannot have become another's.
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            # It has not made its group yet.
            continue
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(message: dict[str, Any], channel: int) -> None:
    """Turn the fork into the child that was asked for; does not return."""
    code = 1
    try:
        parent_pid = os.getppid()
        # A group of its own, so that a kill reaches what it has started, too.
        os.setsid()
        os.chdir(message["folder"])
        for descriptor in (0, 1):
            os.dup2(channel, descriptor)
        os.close(channel)
        os.environ.update(message["environment"])
        module, function = message["fork"]
        sys.argv = [module, str(parent_pid), *message["arguments"]]
        getattr(importlib.import_module(module), function)()
        code = 0
    finally:
        # Not sys.exit: below the fork is the server's stack, whose handlers are none of the child's.
        os._exit(code)
