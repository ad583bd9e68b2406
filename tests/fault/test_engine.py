"""Whatever a clip does to its worker, it costs one row; and the bytes are the same whoever made them.

One private Ray serves all tests of this module; it has one logical GPU, so that groups can be cut.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.runs import BROKEN_SETUP, PAINT, SAME_TITLE, SHADE, TROUBLE, digests, outcomes, rows, run, write_recipe
from vidal import recipe as recipes
from vidal.crawl.governor import Governor
from vidal.crawl.settings import HostRules
from vidal.dataset import lock
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.driver import OpenShardsError
from vidal.engine.job import Assignment, Engine, Job, Progress, UnderWay
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.engine.ray import RayEngine
from vidal.engine.ray_cluster import RayCluster
from vidal.errors import MachineError, ModelError, NotNowError, StorageError
from vidal.stage import Shared

KEPT = ("kept", None)

# What the title says, and what the row must say.
FAILURES = [
    ("clip 0", KEPT),
    ("raise", ("failed", "value_error")),
    ("gone", ("failed", "rate_limited")),
    ("reject", ("rejected", "unwanted")),
    ("clip 4", KEPT),
    ("segfault", ("failed", "worker_died")),
    ("kill", ("failed", "worker_died")),
    ("clip 7", KEPT),
    ("exit", ("failed", "worker_died")),
    ("leave", ("failed", "system_exit")),
    ("memory", ("failed", "out_of_memory")),
    ("clip 11", KEPT),
    ("sleep", ("failed", "worker_died")),
    ("hold the lock", ("failed", "worker_died")),
    ("misalign", ("failed", "misaligned")),
    ("clip 15", KEPT),
    ("clip 16", KEPT),
]

LAYERS_OF_A_SHARD = (("video", "tar"), ("depth", "tar"), ("manifest", "parquet"))

TRANSIENT = {"rate_limited", "worker_died", "out_of_memory"}


class Backwards:
    """An engine that is given its shards in the wrong order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        return self._engine.run(job, list(reversed(assignments)), progress)

    def has_gpu(self) -> bool:
        return False

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        return self._engine.share(objects)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(address=None, workers=2, dashboard=False, object_store_bytes=100 * 1024**2, gpus=1)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def ray_engine(cluster: RayCluster) -> RayEngine:
    return RayEngine(cluster, 2, None)


@pytest.fixture(scope="module")
def ray_worker(cluster: RayCluster) -> RayEngine:
    """One worker on the same Ray, where a second would only do the same."""
    return RayEngine(cluster, 1, None)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe of all failures, and what the pool made of it."""
    folder = tmp_path_factory.mktemp("failing")
    titles = [title for title, _ in FAILURES]
    recipe = write_recipe(folder, [PAINT, TROUBLE, SHADE], titles, shards={"size": 2})
    run(recipe, folder / "pool", PoolEngine(2))
    return folder


def test_every_failure_is_one_row_with_its_reason_and_its_neighbours_are_kept(failing: Path) -> None:
    wanted = {f"c{n:03d}": outcome for n, (_, outcome) in enumerate(FAILURES)}
    assert outcomes(failing / "pool") == wanted
    for row in rows(failing / "pool").values():
        if row["status"] != "kept":
            stage = "pack" if row["reason"] == "misaligned" else "trouble"
            assert (row["stage"], bool(row["is_transient"])) == (stage, row["reason"] in TRANSIENT)
            assert len(row["detail"]) <= 501
            assert row["detail"].isprintable()
        assert row["attempts"] == (2 if row["reason"] == "worker_died" else 1)
    assert list(verify(Dataset.open(str(failing / "pool")))) == []


@pytest.mark.slow
def test_ray_makes_the_same_bytes_of_every_failure(failing: Path, ray_engine: RayEngine) -> None:
    run(failing / "toys.yaml", failing / "ray", ray_engine, have_gpu=True)
    assert digests(failing / "ray") == digests(failing / "pool")


@pytest.mark.parametrize("engine", ["process", "pool", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_shard_that_cannot_be_built_now_stays_open_and_the_same_run_again_builds_it(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def again(name: str) -> list[int]:
        engines = {"process": InProcessEngine, "pool": lambda: PoolEngine(1)}
        runner = engines[engine]() if engine in engines else request.getfixturevalue("ray_engine")
        return run(recipe, tmp_path / name, runner, have_gpu=engine == "ray").done_shards

    (tmp_path / "marks").mkdir()
    fault = "raise" if engine == "process" else "segfault"
    titles = ["once later", "clip 1", fault, "clip 3", "clip 4", "once later", "clip 6", fault, "clip 8", "clip 9"]
    trouble = {TROUBLE: {"marks": str(tmp_path / "marks")}}
    recipe = write_recipe(tmp_path, [PAINT, trouble, SHADE], titles, shards={"size": 2})
    with pytest.raises(OpenShardsError) as error:
        again("out")
    again("reference")
    waited = {row["shard"] for row in rows(tmp_path / "reference").values() if row["title"] == "once later"}
    counts = f"{len(waited)} of 5 shards stay open, {5 - len(waited)} are committed"
    line = f"{tmp_path}/out: {counts}; held up by example.org "
    assert str(error.value) == line + "(rate_limited) until 2096-10-02 07:06:40 UTC; run the same command again then"
    left = {name for name in digests(tmp_path / "reference") if name not in digests(tmp_path / "out")}
    assert left == {f"{kind}/{n:06d}.{end}" for n in waited for kind, end in LAYERS_OF_A_SHARD}
    assert sorted(again("out")) == sorted(waited)
    assert digests(tmp_path / "out") == digests(tmp_path / "reference")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of three groups and a global decision, and what this process made of it."""
    folder = tmp_path_factory.mktemp("calm")
    titles = [f"title {n % 7}" for n in range(18)]
    recipe = write_recipe(folder, [PAINT, SAME_TITLE, SHADE, TROUBLE], titles)
    run(recipe, folder / "reference", InProcessEngine())
    assert sum(status == "kept" for status, _ in outcomes(folder / "reference").values()) == 7
    return folder


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pool_of_any_size_makes_the_same_bytes(calm: Path, workers: int, tmp_path: Path) -> None:
    run(calm / "toys.yaml", tmp_path / "out", PoolEngine(workers))
    assert digests(tmp_path / "out") == digests(calm / "reference")


def test_shards_in_the_wrong_order_make_the_same_bytes(calm: Path, tmp_path: Path) -> None:
    run(calm / "toys.yaml", tmp_path / "out", Backwards(InProcessEngine()))
    assert digests(tmp_path / "out") == digests(calm / "reference")


@pytest.mark.parametrize("window", [1, 3])
def test_windows_of_any_size_make_the_same_bytes(calm: Path, window: int, tmp_path: Path) -> None:
    recipe = recipes.load(calm / "toys.yaml", [f"engine.window={window}"])
    run(recipe, tmp_path / "out", InProcessEngine())
    assert digests(tmp_path / "out") == digests(calm / "reference")


@pytest.mark.parametrize("have_gpu", [False, True])
def test_ray_makes_the_same_bytes_with_one_group_and_with_three(
    calm: Path, ray_engine: RayEngine, have_gpu: bool, tmp_path: Path
) -> None:
    assert ray_engine.has_gpu()
    run(calm / "toys.yaml", tmp_path / "out", ray_engine, have_gpu=have_gpu)
    assert digests(tmp_path / "out") == digests(calm / "reference")


@pytest.mark.parametrize("where", ["pool", "ray"])
@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "0")])
def test_a_worker_whose_stages_want_no_gpu_sees_none(
    where: str, gpus: int, seen: str, ray_engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    recipe = write_recipe(tmp_path, [{"tests.engine_toys:Sight": {"resources": {"gpus": gpus}}}], 4)
    run(recipe, tmp_path / "out", PoolEngine(1) if where == "pool" else ray_engine, have_gpu=True)
    assert {row["detail"] for row in rows(tmp_path / "out").values()} == {seen}


BROKEN = [
    ("gone", StorageError, "the model's folder is gone; put it back"),
    ("broken", ModelError, "stage broken_setup could not be set up: RuntimeError: the weights are half a file"),
]


@pytest.mark.parametrize(("how", "kind", "text"), BROKEN)
@pytest.mark.parametrize("where", ["this process", "pool", "ray"])
def test_a_broken_setup_stops_the_run_at_once_and_blames_no_clip(
    where: str, how: str, kind: type[Exception], text: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine: Engine
    engine = request.getfixturevalue("ray_worker") if where == "ray" else InProcessEngine()
    engine = PoolEngine(2) if where == "pool" else engine
    recipe = write_recipe(tmp_path, [PAINT, {BROKEN_SETUP: {"how": how}}])
    with pytest.raises(kind, match=text):
        run(recipe, tmp_path / "out", engine)
    assert Dataset.open(str(tmp_path / "out")).committed() == []
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [lock.FOLDER]


def test_workers_that_die_while_they_load_stop_the_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT, {BROKEN_SETUP: {"how": "kill"}}])
    with pytest.raises(MachineError, match=r"workers die while they load their models \(SIGKILL\); is memory short"):
        run(recipe, tmp_path / "out", PoolEngine(1))


@pytest.mark.parametrize("where", ["this process", "pool"])
def test_an_environment_error_stops_the_run_and_a_second_run_resumes(where: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT, {TROUBLE: {"marks": str(tmp_path)}}], ["once disk full", *["well"] * 11])
    engine: Engine = PoolEngine(2) if where == "pool" else InProcessEngine()
    with pytest.raises(StorageError, match="stage trouble: the disk is full; free some space and run the same command"):
        run(recipe, tmp_path / "out", engine)
    run(recipe, tmp_path / "out", engine)
    assert set(outcomes(tmp_path / "out").values()) == {KEPT}


def test_a_clip_that_killed_its_worker_once_is_kept_when_retried(tmp_path: Path) -> None:
    titles = ["clip 0", "once kill", "once sleep", "clip 3", "clip 4"]
    recipe = write_recipe(tmp_path, [PAINT, {TROUBLE: {"marks": str(tmp_path)}}], titles)
    run(recipe, tmp_path / "out", PoolEngine(2))
    assert outcomes(tmp_path / "out") == {f"c{n:03d}": KEPT for n in range(5)}


def test_a_stage_that_writes_into_a_layer_it_does_not_name_fails_its_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.load(write_recipe(tmp_path, [PAINT, SHADE], 2))
    monkeypatch.setattr(type(recipe.stages[1]), "layers", ())
    run(recipe, tmp_path / "out", InProcessEngine())
    assert set(outcomes(tmp_path / "out").values()) == {("failed", "undeclared_layer")}


def test_a_text_that_no_file_can_hold_fails_its_clip_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load(write_recipe(tmp_path, [PAINT], 5))
    paint = type(recipe.stages[0])
    process = paint.process

    def foul(self: Any, clip: Any) -> None:
        process(self, clip)
        clip.caption = "half an emoji \ud83d" if clip.clip_id == "c003" else "fine"

    monkeypatch.setattr(paint, "process", foul)
    run(recipe, tmp_path / "out", InProcessEngine())
    wanted = {f"c{n:03d}": KEPT for n in range(5)} | {"c003": ("failed", "unstorable")}
    assert outcomes(tmp_path / "out") == wanted
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


def times(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*") if lock.FOLDER not in path.parts}


def test_a_second_run_does_nothing(calm: Path, tmp_path: Path) -> None:
    run(calm / "toys.yaml", tmp_path / "out", InProcessEngine())
    before = times(tmp_path / "out")
    assert run(calm / "toys.yaml", tmp_path / "out", InProcessEngine()).done_shards == []
    after = times(tmp_path / "out")
    assert {path for path in after if after[path] != before.get(path)} <= {str(tmp_path / "out")}  # the lock's folder


def test_a_run_does_the_shards_that_are_missing_and_no_other(calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(calm / "toys.yaml", out, InProcessEngine())
    (out / "manifest" / "000002.parquet").unlink()
    (out / "depth" / "000002.tar").write_bytes(b"half")
    assert run(calm / "toys.yaml", out, InProcessEngine()).done_shards == [2]
    assert digests(out) == digests(calm / "reference")


def test_the_plan_and_the_rows_of_a_phase_are_the_whole_phases(calm: Path) -> None:
    phase = Dataset.open(str(calm / "reference" / "phases" / "1"))
    assert phase.info.layers == ["video"]
    assert len(list(phase.rows(["clip_id"]))) == 18
    assert list(verify(phase)) == []
    final = json.loads((calm / "reference" / "dataset.json").read_text())
    assert (final["candidates"], final["layers"]) == (18, ["video", "depth"])
    assert pq.read_table(calm / "reference" / "manifest").num_rows == 18


def test_nothing_of_a_run_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    titles = ["clip 0", "kill", "clip 2", "clip 3", "clip 4"]
    run(write_recipe(tmp_path, [PAINT, TROUBLE], titles), tmp_path / "out", PoolEngine(2))
    assert os.listdir(tmp_path / "scratch") == []


@pytest.mark.parametrize("kind", ["in process", "pool", "ray"])
def test_a_run_has_one_of_what_its_stages_share(kind: str, tmp_path: Path, ray_engine: RayEngine) -> None:
    engine = {"in process": InProcessEngine, "pool": lambda: PoolEngine(2), "ray": lambda: ray_engine}[kind]()
    run(write_recipe(tmp_path, ["tests.engine_toys:Numbered"], titles=12, shards={"size": 2}), tmp_path / "out", engine)
    numbers = sorted(int(row["detail"]) for row in rows(tmp_path / "out").values())
    assert numbers == list(range(1, 13))
    if kind != "ray":
        engine.close()


def test_runs_on_one_cluster_share_a_governor_and_those_on_one_machine_its_file(
    tmp_path: Path, ray_engine: RayEngine
) -> None:
    rules = HostRules(per_s=1, concurrent=1).model_dump()
    first, second = (ray_engine.share({"fetch": Governor(tmp_path / name)})["fetch"] for name in ("a", "b"))
    visit, _, _ = first.call("begin", "run", "example.org", rules)
    assert visit and first.call("admit", "run", visit, "example.org", rules)[0] == 0
    assert not second.call("begin", "another", "example.org", rules)[0], "the other run's governor, not its own"
    here = Governor(tmp_path / "a")
    assert not here.begin("third", "example.org", rules)[0] and here.counts("run")["example.org"]["requests"] == 1
