"""A build on a Ray cluster that somebody else started."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.hub import COMMIT, hub
from tests.nodes import cluster
from tests.processes import command, vidal
from tests.runs import PAINT, SAME_TITLE, SHADE, WEIGH, digests, outcomes, run, write_recipe
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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_is_sent_vidal_and_fetches_models_once_and_has_those_of_the_driver_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("repository", "marks"):
        (tmp_path / name).mkdir()
    (tmp_path / "repository" / "model.safetensors").write_bytes(b"weights")
    stages = [PAINT, {WEIGH: {"model": "acme/tiny", "marks": str(tmp_path / "marks")}}]
    recipe = write_recipe(tmp_path, stages, 12, shards={"size": 2})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "driver"))
    with hub("acme/tiny", tmp_path / "repository") as server, cluster(tmp_path / "token") as nodes:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        pulled = vidal("models", "pull", recipe)
        assert (pulled.returncode, server.asked) == (0, ["model.safetensors"]), pulled.stderr
        nodes.head(cpus=0)
        nodes.add(cpus=2, HF_HOME=str(tmp_path / "node"), VIDAL_CACHE=str(tmp_path / "cache"))
        words = ["--ray-address", nodes.address]
        # From elsewhere, as Ray's workers look into the driver's folder first.
        done = vidal("build", recipe, "--out", tmp_path / "out", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.asked == ["model.safetensors"] * 2
        from_where = [Path(mark.read_text()) for mark in (tmp_path / "marks").iterdir()]
        assert len(from_where) == 2 and {folder.parts[-3] for folder in from_where} == {"py_modules_files"}
        # The hub's main branch is another commit on the node by now.
        snapshots = next((tmp_path / "node").rglob("snapshots"))
        (snapshots / COMMIT).rename(snapshots / ("f" * 40))
        (snapshots.parent / "refs" / "main").write_text("f" * 40)
        other = vidal("build", recipe, "--out", tmp_path / "other", *words)
    assert (other.returncode, other.stderr.count("the driver acme/tiny@" + COMMIT)) == (1, 1), other.stderr
    assert outcomes(tmp_path / "out") == {f"c{n:03d}": ("kept", None) for n in range(12)}


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT])
    rejected = vidal("build", recipe, "--out", tmp_path / "out", env={"RAY_ADDRESS": "127.0.0.1:9"})
    assert rejected.returncode == 2
    assert rejected.stderr.startswith("vidal: --ray-address 127.0.0.1:9: no Ray cluster can be joined there")


def test_a_folder_that_nodes_would_look_for_elsewhere_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT])
    refused = command("build", recipe, "--out", "data/out", "--ray-address", "127.0.0.1:9", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "data/out: a cluster's nodes have working folders of their own" in refused.stderr
    assert not (tmp_path / "data").exists()
