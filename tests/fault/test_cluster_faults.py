"""What happens to the nodes of a cluster while a run works: its bytes are those of a local run, and no clip is blamed.

Every node is a raylet on this machine. Each wait has a deadline, so that a hang fails.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.nodes import RAY, Nodes, cluster, kill, raylet, workers
from tests.processes import start_vidal, vidal
from tests.runs import PAINT, ROOT, SAME_TITLE, SHADE, TROUBLE, digests, outcomes, run, write_recipe
from vidal.engine.local import PoolEngine

DEADLINE_S = 150.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with cluster(tmp_path / "token") as nodes:
        yield nodes


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def started(recipe: Path, out: Path, nodes: Nodes) -> subprocess.Popen[str]:
    return start_vidal("build", recipe, "--out", out, "--ray-address", nodes.address)


def finished(build: subprocess.Popen[str]) -> None:
    stdout, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode == 0, stderr
    assert "Traceback" not in stdout + stderr


def made_locally(recipe: Path, folder: Path) -> dict[str, str]:
    run(recipe, folder / "local", PoolEngine(4))
    return digests(folder / "local")


def any_committed(out: Path) -> Callable[[], bool]:
    return lambda: any(out.rglob("manifest/*.parquet"))


def slow_paint(folder: Path, wait_s: float) -> dict[str, object]:
    """A stage that sleeps, as nodes of one machine share its cores, and leaves marks for `at_work`."""
    (folder / "marks").mkdir()
    return {PAINT: {"wait_s": wait_s, "marks": str(folder / "marks")}}


def at_work(node: subprocess.Popen[str], folder: Path, clips: int = 1) -> Callable[[], bool]:
    """Whether a worker of the node has begun so many clips."""

    def begun() -> bool:
        marks = [path.name.partition("-")[0] for path in (folder / "marks").iterdir()]
        return any(marks.count(str(worker.pid)) >= clips for worker in workers(node))

    return begun


def test_two_deaths_of_a_node_are_not_the_clips_that_were_under_way(nodes: Nodes, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [slow_paint(tmp_path, 5.0), SHADE], 2, shards={"size": 2})
    nodes.head(cpus=0)
    with started(recipe, tmp_path / "out", nodes) as build:
        for _ in range(2):
            node = nodes.add()
            wait_for(at_work(node, tmp_path))
            kill(node)
        nodes.add()
        finished(build)
    assert digests(tmp_path / "out") == made_locally(recipe, tmp_path)


def test_a_node_that_joins_is_used(nodes: Nodes, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [slow_paint(tmp_path, 1.0), SHADE], 40, shards={"size": 2})
    nodes.head()
    with started(recipe, tmp_path / "out", nodes) as build:
        wait_for(any_committed(tmp_path / "out"))
        late = nodes.add()
        wait_for(at_work(late, tmp_path, 3))
        finished(build)
    assert digests(tmp_path / "out") == made_locally(recipe, tmp_path)


def test_a_node_that_is_to_go_finishes_its_shard_and_takes_no_other(nodes: Nodes, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [slow_paint(tmp_path, 1.0), SHADE], 80, shards={"size": 2})
    out = tmp_path / "out"
    nodes.head()
    spot = nodes.add()
    with started(recipe, out, nodes) as build:
        wait_for(at_work(spot, tmp_path, 3))
        path = f"{Path(RAY).parent}:{os.environ['PATH']}"
        notice = [ROOT / "deploy" / "drain.sh", "60", str(raylet(spot).pid)]
        subprocess.run(notice, env={**os.environ, "PATH": path}, check=True, timeout=60)
        wait_for(lambda: not workers(spot))
        assert len(list(out.rglob("manifest/*.parquet"))) < 36, "it left while there was more to do"
        kill(spot)
        finished(build)
    assert digests(out) == made_locally(recipe, tmp_path)


def test_a_node_out_of_reach_is_done_without_and_changes_nothing_when_it_is_back(nodes: Nodes, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [slow_paint(tmp_path, 0.5), SAME_TITLE, SHADE], 20, shards={"size": 2})
    nodes.head()
    paused = nodes.add()
    with started(recipe, tmp_path / "out", nodes) as build:
        wait_for(at_work(paused, tmp_path, 3))
        stopped = [*workers(paused), raylet(paused)]
        for process in stopped:
            process.suspend()
        finished(build)
    wanted = made_locally(recipe, tmp_path)
    assert digests(tmp_path / "out") == wanted
    # The workers first, with time to finish their shard: a raylet that learns that it was given up ends itself and them.
    for process in stopped[:-1]:
        process.resume()
    psutil.wait_procs(stopped[:-1], timeout=10)
    stopped[-1].resume()
    _, alive = psutil.wait_procs(stopped, timeout=DEADLINE_S)
    assert alive == []
    assert digests(tmp_path / "out") == wanted


def test_groups_on_nodes_too_small_for_one_worker_of_each_outlive_the_node_with_most_of_them(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Workers of the other groups wait for those that died, and hold the only core; what they made fills the store."""
    stages = [{PAINT: {"bulk_bytes": 12_000_000}}, SHADE, {TROUBLE: {}}]
    recipe = write_recipe(tmp_path, stages, 48, shards={"size": 4})
    nodes.head(cpus=1, gpus=1)
    other = nodes.add()
    with started(recipe, tmp_path / "out", nodes) as build:
        wait_for(any_committed(tmp_path / "out"))
        kill(other)
        finished(build)
    assert digests(tmp_path / "out") == made_locally(recipe, tmp_path)


def test_a_cluster_that_is_started_anew_finishes_the_run(nodes: Nodes, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [slow_paint(tmp_path, 0.3), SAME_TITLE, SHADE], 20, shards={"size": 2})
    head = nodes.head(cpus=2)
    with started(recipe, tmp_path / "out", nodes) as build:
        wait_for(any_committed(tmp_path / "out"))
        kill(head)
        _, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode != 0 and "Traceback" not in stderr, stderr
    nodes.head(cpus=2)
    again = vidal("build", recipe, "--out", tmp_path / "out", "--ray-address", nodes.address, timeout=DEADLINE_S)
    assert again.returncode == 0, again.stderr
    assert digests(tmp_path / "out") == made_locally(recipe, tmp_path)


def test_a_shard_larger_than_the_object_store_is_made(nodes: Nodes, tmp_path: Path) -> None:
    # A shard travels to the worker with the GPU, and back: 96 MB each time, in a store of 80 MB.
    stages = [{PAINT: {"bulk_bytes": 12_000_000}}, SHADE, {TROUBLE: {}}]
    recipe = write_recipe(tmp_path, stages, 24, shards={"size": 8})
    nodes.head(cpus=2, gpus=1)
    with started(recipe, tmp_path / "out", nodes) as build:
        finished(build)
    assert digests(tmp_path / "out") == made_locally(recipe, tmp_path)


def test_a_worker_that_takes_the_memory_of_its_node_costs_its_clip_alone(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 6 << 30:
        pytest.skip("needs 6 GB of free memory")
    limit = memory.total - memory.available + (2 << 30)
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit / memory.total:.4f}")
    (tmp_path / "marks").mkdir()
    trouble = {TROUBLE: {"marks": str(tmp_path / "marks"), "resources": {"timeout_s": 60}}}
    titles = ["clip 0", "once hog", "clip 2", "clip 3", "hog", "clip 5"]
    recipe = write_recipe(tmp_path, [PAINT, trouble, SHADE], titles, shards={"size": 2})
    nodes.head()
    with started(recipe, tmp_path / "out", nodes) as build:
        finished(build)
    kept = ("kept", None)
    assert outcomes(tmp_path / "out") == {f"c{n:03d}": kept for n in range(6)} | {"c004": ("failed", "worker_died")}
