"""A Ray cluster of several nodes on this machine, each a raylet of its own, for tests of what becomes of its runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from vidal.engine.ray_cluster import kill_processes_of

RAY = str(Path(sys.executable).parent / "ray")
Node = subprocess.Popen[str]


@dataclass(slots=True)
class Nodes:
    """The nodes by the processes that started them; the driver joins at the first."""

    address: str
    home: Path
    nodes: list[Node] = field(default_factory=list)

    def head(self, *, cpus: int = 1, gpus: int = 0) -> Node:
        port = self.address.split(":")[1]
        return self._start(
            ["--head", f"--port={port}", f"--temp-dir={self.home}", "--include-dashboard=false"], cpus, gpus
        )

    def add(self, *, cpus: int = 1, gpus: int = 0, **env: str) -> Node:
        return self._start([f"--address={self.address}"], cpus, gpus, **env)

    def _start(self, options: list[str], cpus: int, gpus: int, **env: str) -> Node:
        size = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--object-store-memory=80000000"]
        node = subprocess.Popen(
            [RAY, "start", *options, *size, "--node-ip-address=127.0.0.1", "--block"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env},
        )  # fmt: skip
        self.nodes.append(node)
        assert node.stdout is not None and any("--block" in line for line in node.stdout), "the node came up"
        return node


def kill(node: Node) -> None:
    """SIGKILL for the raylet, its agents and its workers at once, as a machine that loses power."""
    processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in processes:
        # Some end meanwhile.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def raylet(node: Node) -> psutil.Process:
    return next(process for process, name, _ in _alive(node) if name == "raylet")


def workers(node: Node) -> list[psutil.Process]:
    """The node's worker processes that are an actor or a task at the moment."""
    return [process for process, _, words in _alive(node) if any(word.startswith("ray::") for word in words)]


def _alive(node: Node) -> Iterator[tuple[psutil.Process, str, list[str]]]:
    """The processes below a node's, each with its name and its command line; some end meanwhile."""
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.Error):
            yield process, process.name(), process.cmdline()


@contextmanager
def cluster(token: Path) -> Iterator[Nodes]:
    """An address and a folder for nodes that ask for a token; each that was started is ended."""
    token.write_text("a-token-of-the-cluster")
    environment = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        # A dead node is noticed in five seconds instead of twenty.
        "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="ray-") as home:
        nodes = Nodes(address=address, home=Path(home))
        try:
            yield nodes
        finally:
            for node in reversed(nodes.nodes):
                node.kill()
                node.wait()
            kill_processes_of(Path(home))
            for name, value in before.items():
                os.environ.pop(name)
                os.environ.update({name: value} if value is not None else {})
