"""Stages are cut into groups by hardware, and the worker pools of all groups fit the cluster at once."""

from __future__ import annotations

import pytest

from tests.runs import PAINT, SHADE, TROUBLE
from vidal.engine.job import Group, cut_into_groups
from vidal.engine.local import own_gpus
from vidal.engine.ray import cut_into_pools
from vidal.recipe import check


def groups(*gpus: float) -> tuple[Group, ...]:
    return tuple(Group(stages=(), gpus=share) for share in gpus)


POOLS = [
    # groups by GPUs, CPU and GPU of the cluster, workers asked for; (size, cpus, gpus) of each pool
    ((0,), 8, 0, None, [(8, 1.0, 0)]),
    ((0,), 8, 0, 3, [(3, 1.0, 0)]),
    ((0, 1), 8, 2, None, [(8, 0.8, 0), (2, 0.8, 1.0)]),
    ((0, 1, 0), 8, 1, None, [(4, 0.888, 0), (1, 0.888, 1.0), (4, 0.888, 0)]),
    ((0, 1, 0), 2, 1, None, [(1, 0.666, 0), (1, 0.666, 1.0), (1, 0.666, 0)]),
    ((1, 0, 1), 8, 1, 2, [(1, 0.99, 0.5), (2, 0.99, 0), (1, 0.99, 0.5)]),
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


@pytest.mark.parametrize(
    ("workers", "gpu_workers", "most"), [(None, None, [None, None]), (3, None, [3, None]), (3, 1, [3, 1])]
)
def test_a_pool_grows_with_the_cluster_unless_its_size_is_said(
    workers: int | None, gpu_workers: int | None, most: list[int | None]
) -> None:
    pools = cut_into_pools(groups(0, 1), {"CPU": 8, "GPU": 2}, workers, gpu_workers)
    assert [pool.most for pool in pools] == most


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


@pytest.mark.parametrize(
    ("visible", "gpus", "of_workers"),
    [
        ("0,1", 1.0, ["0", "1", "0", "1"]),
        ("3", 1.0, ["3", "3"]),
        ("0,1", 0.5, ["0", "0", "1", "1", "0"]),
        ("0,1,2,3", 2.0, ["0,1", "2,3", "0,1"]),
        ("5", 2.0, ["5", "5"]),
        ("GPU-a,GPU-b", 1.0, ["GPU-a", "GPU-b"]),
        ("0,1", 0.0, [None]),
        ("", 1.0, [None]),
    ],
)
def test_workers_of_the_local_engine_take_the_gpus_in_turn(
    visible: str, gpus: float, of_workers: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [own_gpus(number, gpus).get("CUDA_VISIBLE_DEVICES") for number in range(len(of_workers))] == of_workers
