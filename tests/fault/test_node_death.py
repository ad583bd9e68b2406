"""A node of the cluster dies while it works: its shards are made again elsewhere. The driver's own node ends the run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tests.nodes import cluster, kill
from tests.processes import descendants, start_vidal, still_alive, vidal
from tests.runs import PAINT, SAME_TITLE, SHADE, digests, write_recipe
from tests.store import s3_server
from vidal.dataset import lock
from vidal.engine.ray_cluster import sweep_leftovers

BUCKET = "nodes"
CLIPS = 24
DEADLINE_S = 150.0


@pytest.fixture
def store() -> Iterator[str]:
    with s3_server(BUCKET):
        yield f"s3://{BUCKET}"


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _names(address: str) -> list[str]:
    return list(fsspec.filesystem("s3", skip_instance_cache=True).find(address))


def _stored(address: str) -> dict[str, str]:
    """As `digests` of a folder."""
    fs, root = fsspec.filesystem("s3", skip_instance_cache=True), address.removeprefix("s3://")
    names = (path for path in _names(address) if f"/{lock.FOLDER}/" not in path)
    return {path.removeprefix(f"{root}/"): hashlib.sha256(fs.cat_file(path)).hexdigest() for path in names}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_dies_while_it_works_costs_nothing_but_time(store: str, tmp_path: Path) -> None:
    slow = {PAINT: {"cost_s": 0.4}}
    titles = [f"title {n % 20}" for n in range(CLIPS)]
    recipe = write_recipe(tmp_path, [slow, SAME_TITLE, SHADE], titles, shards={"size": 2})
    out = f"{store}/out"
    with cluster(tmp_path / "token") as nodes:
        nodes.head()
        second = nodes.add()
        with start_vidal("build", recipe, "--out", out, "--ray-address", nodes.address) as build:
            _wait_for(lambda: any("phases/1/manifest/" in name for name in _names(out)))
            kill(second)
            stdout, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode == 0, stderr
    assert "Traceback" not in stdout + stderr
    local = tmp_path / "local"
    assert vidal("build", recipe, "--out", local, "--engine", "local").returncode == 0
    assert _stored(out) == digests(local)


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


_DIES_IN_THE_SHUTDOWN = """
import os
import psutil
from vidal.engine.ray_cluster import RayCluster
cluster = RayCluster(address=None, workers=1, dashboard=False, object_store_bytes=80_000_000)
cluster.start()
import ray
raylet = next(one for one in psutil.Process().children() if one.name() == "raylet")
raylet.kill()
raylet.wait(10)
print(cluster.error(RuntimeError("unavailable")))
# As native code does, some ten seconds after the death.
ray.shutdown = lambda: os._exit(1)
cluster.stop()
"""


@pytest.mark.slow
def test_it_is_the_same_line_where_ray_reports_it_or_ends_the_driver_within_the_shutdown() -> None:
    died = subprocess.run([sys.executable, "-c", _DIES_IN_THE_SHUTDOWN], capture_output=True, text=True, timeout=120)
    sweep_leftovers()
    assert died.returncode == 1
    assert died.stdout.startswith("Ray's node process or its agent died")
    assert died.stderr == f"vidal: {died.stdout}"
