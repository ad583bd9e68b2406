"""A build on a Ray cluster that somebody else started."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.nodes import cluster
from tests.runs import PAINT, SAME_TITLE, SHADE, digests, outcomes, run, vidal, write_recipe
from vidal.engine.local import InProcessEngine


def test_a_cluster_that_is_joined_gives_the_bytes_of_a_local_run(tmp_path: Path) -> None:
    listed = "".join(f"{n}.mp4,title {n % 10},{'ann' if n % 3 else 'bob'}\n" for n in range(12))
    (tmp_path / "list.csv").write_text(f"url,title,uploader\n{listed}")
    stages, source = (
        [PAINT, SAME_TITLE, {"per_uploader": {"max_clips": 3}}, SHADE],
        {"list": str(tmp_path / "list.csv")},
    )
    recipe = write_recipe(tmp_path, stages, source=source)
    with cluster(tmp_path / "token") as nodes:
        nodes.head(cpus=2)
        words = ["--out", tmp_path / "joined", "--ray-address", nodes.address, "--workers", "1"]
        joined = vidal("build", recipe, *words)
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
