"""The Ray of a run is the run's own: it asks everybody for its token, and no other cluster of the machine is joined."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.nodes import cluster, workers
from tests.processes import descendants, start_vidal
from tests.runs import PAINT, digests, run, write_recipe
from vidal.engine.local import InProcessEngine

DEADLINE_S = 100.0

_JOIN = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.cluster_resources()["CPU"])
"""


def join(address: str, token: Path | None, within_s: float) -> tuple[str, str]:
    """What a process prints that asks a cluster for its resources, with a token or without; Ray asks again for minutes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)} if token else {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", _JOIN, address]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            return process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def option(process: psutil.Process, name: str) -> str:
    return next(word.partition("=")[2] for word in process.cmdline() if word.startswith(f"--{name}="))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_of_its_own_asks_for_a_token_and_leaves_another_cluster_alone(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    recipe = write_recipe(tmp_path, [{PAINT: {"wait_s": 3.0, "marks": str(tmp_path / "marks")}}], 24)
    with cluster(tmp_path / "of others") as nodes:
        others = nodes.head()
        with start_vidal("build", recipe, "--out", tmp_path / "out", "--workers", "1") as build:
            wait_for(lambda: list((tmp_path / "marks").iterdir()))
            raylet = next(process for process in descendants(build.pid) if process.name() == "raylet")
            address = option(raylet, "gcs-address")
            token = Path(raylet.environ()["RAY_AUTH_TOKEN_PATH"])
            # Ray opens the folder between them to everybody.
            assert [stat.S_IMODE(path.stat().st_mode) for path in (token, token.parent.parent)] == [0o600, 0o700]
            assert float(join(address, token, DEADLINE_S)[0]) > 0
            for stranger in (None, tmp_path / "of others"):
                stdout, stderr = join(address, stranger, 30.0)
                assert (stdout, "InvalidAuthToken" in stderr) == ("", True), stderr
            assert address != nodes.address and [p for p in workers(others) if "Agent" not in p.name()] == []
            _, stderr = build.communicate(timeout=DEADLINE_S)
    assert build.returncode == 0, stderr
    run(recipe, tmp_path / "local", InProcessEngine())
    assert digests(tmp_path / "out") == digests(tmp_path / "local")
