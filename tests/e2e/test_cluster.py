"""A build on a Ray cluster that somebody else started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import PAINT, SAME_TITLE, SHADE, digests, outcomes, run, vidal, write_recipe
from vidal.engine.local import InProcessEngine
from vidal.engine.ray_cluster import kill_processes_of


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a one-node cluster that asks for a token, and the environment that holds it."""
    token = tmp_path / "token"
    token.write_text("a-token-of-the-cluster")
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="ray-") as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        ray = [str(Path(sys.executable).parent / "ray")]
        start = ["start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false",
                 "--node-ip-address=127.0.0.1", f"--temp-dir={home}", "--object-store-memory=134217728", "--block"]  # fmt: skip
        head = subprocess.Popen(
            ray + start, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert head.stdout is not None
        assert any("--block" in line for line in head.stdout), "the head came up"
        try:
            yield f"127.0.0.1:{port}", env
        finally:
            head.kill()
            head.wait()
            kill_processes_of(Path(home))


def test_a_cluster_that_is_joined_gives_the_bytes_of_a_local_run(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, env = cluster
    listed = "".join(f"{n}.mp4,title {n % 10},{'ann' if n % 3 else 'bob'}\n" for n in range(12))
    (tmp_path / "list.csv").write_text(f"url,title,uploader\n{listed}")
    stages, source = (
        [PAINT, SAME_TITLE, {"per_uploader": {"max_clips": 3}}, SHADE],
        {"list": str(tmp_path / "list.csv")},
    )
    recipe = write_recipe(tmp_path, stages, source=source)
    joined = vidal("build", recipe, "--out", tmp_path / "joined", "--ray-address", address, "--workers", "1", env=env)
    assert joined.returncode == 0, joined.stderr
    run(recipe, tmp_path / "local", InProcessEngine())
    assert digests(tmp_path / "joined") == digests(tmp_path / "local")
    reasons = Counter(reason for _, reason in outcomes(tmp_path / "local").values())
    assert reasons == {None: 6, "duplicate": 2, "uploader_quota": 4}


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT])
    rejected = vidal("build", recipe, "--out", tmp_path / "out", env={"RAY_ADDRESS": "127.0.0.1:9"})
    assert rejected.returncode == 2
    assert rejected.stderr.startswith("vidal: --ray-address 127.0.0.1:9: no Ray cluster can be joined there")
