"""A node of the cluster dies while it works: its shards are made again elsewhere. The driver's own node ends the run."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import psutil
import pytest

from tests.runs import PAINT, SAME_TITLE, SHADE, descendants, start_vidal, still_alive, vidal, write_recipe
from tests.store import s3_server
from vidal.engine.ray_cluster import kill_processes_of

BUCKET = "nodes"
CLIPS = 24
DEADLINE_S = 150.0


@dataclass(frozen=True)
class Cluster:
    """Two nodes, each a raylet of its own with one core, on this machine; the driver joins at the first."""

    address: str
    second: subprocess.Popen[str]

    def kill_second(self) -> None:
        """SIGKILL for the raylet, its agents and its workers at once, as a machine that loses power."""
        processes = [psutil.Process(self.second.pid), *psutil.Process(self.second.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)


@pytest.fixture
def store() -> Iterator[str]:
    with s3_server(BUCKET):
        yield f"s3://{BUCKET}"


@pytest.fixture
def cluster(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    token = tmp_path / "token"
    token.write_text("a-token-of-the-cluster")
    environment = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        # A dead node is noticed in five seconds instead of twenty.
        "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="ray-") as home:
        head = _start(["--head", f"--port={address.split(':')[1]}", f"--temp-dir={home}", "--include-dashboard=false"])
        second = _start([f"--address={address}"])
        try:
            yield Cluster(address=address, second=second)
        finally:
            for node in (second, head):
                node.kill()
                node.wait()
            kill_processes_of(Path(home))


def _start(options: list[str]) -> subprocess.Popen[str]:
    ray = str(Path(sys.executable).parent / "ray")
    common = ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--block"]
    node = subprocess.Popen(
        [ray, "start", *options, *common], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert node.stdout is not None and any("--block" in line for line in node.stdout), "the node came up"
    return node


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _names(address: str) -> list[str]:
    return list(fsspec.filesystem("s3", skip_instance_cache=True).find(address))


def _stored(address: str) -> dict[str, bytes]:
    fs, root = fsspec.filesystem("s3", skip_instance_cache=True), address.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in _names(address)}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_dies_while_it_works_costs_nothing_but_time(store: str, cluster: Cluster, tmp_path: Path) -> None:
    slow = {PAINT: {"cost_s": 0.4}}
    titles = [f"title {n % 20}" for n in range(CLIPS)]
    recipe = write_recipe(tmp_path, [slow, SAME_TITLE, SHADE], titles, shards={"size": 2})
    out = f"{store}/out"
    with start_vidal("build", recipe, "--out", out, "--ray-address", cluster.address) as build:
        _wait_for(lambda: any("phases/1/manifest/" in name for name in _names(out)))
        cluster.kill_second()
        stdout, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode == 0, stderr
    assert "Traceback" not in stdout + stderr
    local = tmp_path / "local"
    assert vidal("build", recipe, "--out", local, "--engine", "local").returncode == 0
    made = {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    assert sorted(_stored(out)) == sorted(made)
    # With the lock, which counts the runs: one each.
    assert _stored(out) == made


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("process", ["ray::DashboardAgent", "raylet"])
def test_the_death_of_rays_own_processes_is_one_line(process: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [{PAINT: {"cost_s": 0.4}}], CLIPS)
    with start_vidal("build", recipe, "--out", tmp_path / "out", "--workers", "1") as build:
        _wait_for(lambda: any((tmp_path / "out").glob("manifest/*.parquet")))
        below = descendants(build.pid)
        victim = next(one for one in below if one.name() == process or " ".join(one.cmdline()).startswith(process))
        victim.kill()
        _, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode == 1
    assert stderr.splitlines()[-1].startswith("vidal: Ray's node process or its agent died")
    # What Ray left running is ended by the next run, which then does what is left.
    assert vidal("build", recipe, "--out", tmp_path / "out", "--workers", "1").returncode == 0
    assert still_alive(below) == []
