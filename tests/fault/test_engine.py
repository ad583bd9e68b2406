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
from rich.console import Console

from tests.runs import (
    BROKEN_SETUP,
    PAINT,
    SAME_TITLE,
    SHADE,
    TROUBLE,
    digests,
    outcomes,
    rows,
    run,
    write_recipe,
)
from vidal import recipe as recipes
from vidal.build import How, retry
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.job import Assignment, Engine, Group, Job, Progress, UnderWay, cut_into_groups
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.engine.ray import RayEngine, cut_into_pools
from vidal.engine.ray_cluster import RayCluster
from vidal.errors import MachineError, ModelError, StorageError, UserError
from vidal.recipe import check
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
TRANSIENT = {"rate_limited", "worker_died", "out_of_memory"}


class Backwards:
    """An engine that is given its shards in the wrong order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay]:
        return self._engine.run(job, list(reversed(assignments)), progress)

    def has_gpu(self) -> bool:
        return False

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        return self._engine.share(objects)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayEngine]:
    cluster = RayCluster(address=None, workers=2, dashboard=False, object_store_bytes=100 * 1024**2, gpus=1)
    engine = RayEngine(cluster, 2, None)
    yield engine
    engine.close()


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


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of three groups and a global decision, and what this process made of it."""
    folder = tmp_path_factory.mktemp("calm")
    titles = [f"title {n % 7}" for n in range(18)]
    recipe = write_recipe(folder, [PAINT, SAME_TITLE, SHADE, TROUBLE], titles)
    run(recipe, folder / "reference", InProcessEngine())
    assert sum(status == "kept" for status, _ in outcomes(folder / "reference").values()) == 7
    return folder


@pytest.mark.parametrize("workers", [1, 4])
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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    recipe = write_recipe(tmp_path, [{"tests.engine_toys:Sight": {"resources": {"gpus": gpus}}}], 4)
    run(recipe, tmp_path / "out", PoolEngine(1) if where == "pool" else ray_engine, have_gpu=True)
    assert {row["detail"] for row in rows(tmp_path / "out").values()} == {seen}


def groups(*gpus: float) -> tuple[Group, ...]:
    return tuple(Group(stages=(), gpus=share) for share in gpus)


POOLS = [
    # groups by GPUs, CPU and GPU of the cluster, workers asked for; (size, cpus, gpus) of each pool
    ((0,), 8, 0, None, [(8, 1.0, 0)]),
    ((0,), 8, 0, 3, [(3, 1.0, 0)]),
    ((0, 1), 8, 2, None, [(8, 0.8, 0), (2, 0.8, 1.0)]),
    ((0, 1, 0), 8, 1, None, [(4, 0.888, 0), (1, 0.888, 1.0), (4, 0.888, 0)]),
    ((0, 1, 0), 2, 1, None, [(1, 0.666, 0), (1, 0.666, 1.0), (1, 0.666, 0)]),
    ((1, 0, 1), 8, 1, 2, [(1, 1.0, 0.5), (2, 1.0, 0), (1, 1.0, 0.5)]),
    ((0, 0.5), 8, 2, None, [(8, 0.666, 0), (4, 0.666, 0.5)]),
    ((0, 1), 1, 1, 1, [(1, 0.5, 0), (1, 0.5, 1.0)]),
]


@pytest.mark.parametrize(("shares", "cpu", "gpu", "workers", "wanted"), POOLS)
def test_pools_all_fit_at_once(
    shares: tuple[float, ...], cpu: int, gpu: int, workers: int | None, wanted: list[tuple[int, float, float]]
) -> None:
    pools = cut_into_pools(groups(*shares), {"CPU": cpu, "GPU": gpu}, workers, None)
    assert [(pool.size, pool.cpus, pool.gpus) for pool in pools] == wanted
    assert sum(pool.size * pool.cpus for pool in pools) <= cpu
    assert sum(pool.size * pool.gpus for pool in pools) <= gpu


def test_stages_are_cut_where_the_hardware_changes() -> None:
    stages = check({"source": {"list": "x.csv"}, "stages": [PAINT, SHADE, TROUBLE]}, "r").stages
    cut = cut_into_groups(stages, have_gpu=True)
    assert [([s.step_name() for s in g.stages], g.gpus) for g in cut] == [
        (["paint"], 0.0), (["shade"], 1.0), (["trouble"], 0.0)
    ]  # fmt: skip
    assert [[s.step_name() for s in g.stages] for g in cut_into_groups(stages, have_gpu=False)] == [
        ["paint", "shade", "trouble"]
    ]
    assert [g.stages for g in cut_into_groups([], have_gpu=True)] == [()]


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
    engine = request.getfixturevalue("ray_engine") if where == "ray" else InProcessEngine()
    engine = PoolEngine(2) if where == "pool" else engine
    recipe = write_recipe(tmp_path, [PAINT, {BROKEN_SETUP: {"how": how}}])
    with pytest.raises(kind, match=text):
        run(recipe, tmp_path / "out", engine)
    assert Dataset.open(str(tmp_path / "out")).committed() == []
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == []


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
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*")}


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


TITLES = ["clip 0", "once gone", "raise", "reject", *[f"clip {n}" for n in range(4, 12)]]


def again(out: Path, **keys: Any) -> bool:
    how = How(engine="local", workers=1)
    result = retry(str(out), how, Console(quiet=True), reasons=keys.get("reasons", ()), clip_ids=keys.get("clips", ()))
    return result.did_nothing


@pytest.mark.parametrize("chosen", [{}, {"reasons": ["rate_limited"]}, {"clips": ["c001"]}])
def test_a_retry_redoes_the_chosen_clips_and_no_other(chosen: dict[str, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, {TROUBLE: {"marks": str(tmp_path)}}, SHADE], TITLES), out, InProcessEngine())
    before, files = rows(out), digests(out)
    assert before["c001"]["reason"] == "rate_limited"
    assert again(out, **chosen) is False
    after = rows(out)
    assert (after["c001"]["status"], after["c001"]["attempts"], after["c001"]["layers"]) == (
        "kept",
        2,
        ["video", "depth"],
    )
    plain = [name for name in after["c001"] if name != "members"]
    for clip_id in set(after) - {"c001"}:
        assert {name: after[clip_id][name] for name in plain} == {name: before[clip_id][name] for name in plain}
        places = [[(m["layer"], m["name"], m["sha256"]) for m in row[clip_id]["members"]] for row in (before, after)]
        assert places[0] == places[1]
    changed = {name for name, digest in digests(out).items() if digest != files[name]}
    stem = f"{before['c001']['shard']:06d}"
    assert changed == {f"video/{stem}.tar", f"depth/{stem}.tar", f"manifest/{stem}.parquet"}
    assert list(verify(Dataset.open(str(out)))) == []
    assert again(out) is True


def test_a_retry_of_what_fails_again_says_so_and_counts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, TROUBLE], TITLES), out, InProcessEngine())
    for attempts in (2, 3):
        again(out, reasons=["value_error"])
        row = rows(out)["c002"]
        assert (row["status"], row["reason"], row["attempts"]) == ("failed", "value_error", attempts)


def test_a_retry_for_a_reason_that_nothing_failed_for_names_those_that_are_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, TROUBLE], TITLES), out, InProcessEngine())
    with pytest.raises(UserError, match="no clip failed with reason nonsense; reasons: value_error"):
        again(out, reasons=["nonsense"])


def twins(folder: Path) -> Path:
    """A recipe in which two clips of other shards have one title, and the one that fails first is first in order."""
    recipe = write_recipe(folder, [PAINT, {TROUBLE: {"marks": str(folder / "marks")}}, SAME_TITLE, SHADE], 16)
    (folder / "marks").mkdir()
    run(recipe, folder / "order", InProcessEngine())
    order = sorted(rows(folder / "order").values(), key=lambda row: row["position"])
    first, second = order[1], order[9]
    lines = ["clip_id,url,title,uploader"]
    for n in range(16):
        is_twin = f"c{n:03d}" in (first["clip_id"], second["clip_id"])
        trouble = "once gone" if f"c{n:03d}" == first["clip_id"] else ""
        lines.append(f"c{n:03d},{n}.mp4,{'twin' if is_twin else f'clip {n}'},{trouble}")
    (folder / "candidates.csv").write_text("\n".join(lines) + "\n")
    return recipe


def test_a_retry_across_a_global_decision_is_what_a_run_without_the_failure_would_have_been(tmp_path: Path) -> None:
    recipe = twins(tmp_path)
    out = tmp_path / "out"
    run(recipe, out, InProcessEngine())
    before = rows(out)
    first = next(row for row in before.values() if row["status"] == "failed")
    second = next(row for row in before.values() if row["title"] == "twin" and row is not first)
    assert (second["status"], second["cluster"]) == ("kept", second["clip_id"])

    assert again(out) is False
    after = rows(out)
    a, b = after[first["clip_id"]], after[second["clip_id"]]
    assert (a["status"], a["attempts"], a["cluster"]) == ("kept", 2, a["clip_id"])
    assert (b["status"], b["reason"], b["stage"], b["duplicate_of"]) == (
        "rejected", "duplicate", "same_title", a["clip_id"]
    )  # fmt: skip
    assert (b["duplicate_distance"], b["decided_value"], b["decided_limit"]) == (0.5, 0.5, 10)
    assert b["attempts"] == 1
    assert list(verify(Dataset.open(str(out)))) == []

    run(recipe, tmp_path / "undisturbed", InProcessEngine())  # the failure has had its one time
    wanted = rows(tmp_path / "undisturbed")
    wanted[a["clip_id"]]["attempts"] = 2
    assert after == wanted


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
