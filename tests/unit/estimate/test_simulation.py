"""The simulated build: its limits are those of a formula, and more machines never make it slower."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vidal.engine.ray import shards_per_execution
from vidal.errors import UserError
from vidal.estimate.cluster import Cluster
from vidal.estimate.forecast import forecast
from vidal.estimate.profile import HostCost, PhaseCost, Profile, StageCost
from vidal.estimate.simulation import Simulated, simulate
from vidal.estimate.work import work_of

SHARD, START_S, SETUP_S = 10, 3.0, 7.0


def stage(name: str, seconds: Sequence[float], group: int = 0, gpus: float = 0.0) -> StageCost:
    return StageCost(
        name=name, group=group, gpus=gpus, setup_s=SETUP_S, clips=len(seconds), rejected=0, failed=0,
        seconds=list(seconds), cpu_s=sum(seconds),
    )  # fmt: skip


def profile_of(stages: Sequence[StageCost], **fields: Any) -> Profile:
    count = len(stages[0].seconds)
    phase = PhaseCost(start_s=START_S, stages=list(stages), bytes={"video": [1e6] * count, "manifest": [1e3] * count})
    given = {
        "recipe": "toys", "made_by": "test", "engine": "ray", "workers": 1, "candidates": count, "kept": count,
        "has_gpu": any(each.gpus for each in stages), "shard_size": SHARD, "gpu_workers": None,
        "source_bytes": [1e6] * count, "peak_bytes": 10**9, "phases": [phase], "hosts": [],
    }  # fmt: skip
    return Profile(**given | fields)


def simulated(profile: Profile, cluster: Cluster, clips: int) -> Simulated:
    rng = np.random.default_rng(0)
    return simulate(work_of(profile, cluster), cluster.machines(), clips, profile.shard_size, rng)


UNEVEN = np.random.default_rng(1).lognormal(size=32).tolist()


@pytest.mark.parametrize("cpus", [1, 3, 16])
@pytest.mark.parametrize("shards", [1, 7, 100, shards_per_execution(1) + 5])
def test_clips_alike_on_one_machine_take_what_the_formula_says(cpus: int, shards: int) -> None:
    found = simulated(profile_of([stage("burn", [2.0] * 4)]), Cluster.parse(f"1xcpu{cpus}"), SHARD * shards)
    at_once = shards_per_execution(cpus)
    executions = [at_once] * (shards // at_once) + [shards % at_once]
    rounds = [math.ceil(count / cpus) for count in executions if count]
    assert found.wall_s == pytest.approx(sum(START_S + SETUP_S + 2.0 * SHARD * each for each in rounds))
    assert found.busy_s == {"cpu": pytest.approx(2.0 * SHARD * shards)}


def test_a_group_on_gpus_starts_with_the_first_shard_and_not_after_the_last() -> None:
    profile = profile_of([stage("media", [1.0] * 4), stage("depth", [1.0] * 4, group=1, gpus=1.0)])
    # Nine workers of eight cores and a GPU: those of the first group run at 8/9, and are eight to the GPU's one.
    assert simulated(profile, Cluster.parse("1xgpu1"), SHARD * 40).wall_s == pytest.approx(
        START_S + SETUP_S + SHARD / 0.888 + 40 * SHARD, rel=1e-3
    )


@pytest.mark.parametrize("clips", [SHARD, 500, 5_000])
@pytest.mark.parametrize("spec", ["{}xcpu2", "{}xgpu1", "{}xcpu4,{}xgpu2"])
def test_twice_the_machines_are_never_slower(spec: str, clips: int) -> None:
    groups = [stage("media", UNEVEN)]
    if "gpu" in spec:
        groups.append(stage("depth", UNEVEN[::-1], group=1, gpus=1.0))
    walls = [
        simulated(profile_of(groups), Cluster.parse(spec.format(number, number)), clips).wall_s
        for number in (1, 2, 4, 8)
    ]
    assert walls == sorted(walls, reverse=True)


def test_a_host_with_a_rate_is_the_bottleneck_whatever_the_machines() -> None:
    host = HostCost(name="example.org", visits=32, requests=64, per_s=0.5)
    profile = profile_of([stage("fetch", UNEVEN)], hosts=[host])
    few, many = (forecast(profile, Cluster.parse(spec), 2_000) for spec in ("10xcpu16", "20xcpu16"))
    assert few.bottleneck == many.bottleneck == "host example.org"
    # Two requests a clip, one every two seconds.
    assert few.wall_s.median == pytest.approx(2_000 * 2 / 0.5, rel=0.01)
    assert few.one_more[0].saved_s == pytest.approx(0, abs=1)
    assert few.requests == {"example.org": 4_000}


def test_a_host_met_once_limits_nothing_and_is_named_as_unknown() -> None:
    hosts = [HostCost(name="rare.example", visits=1, requests=3, per_s=0.01)]
    told = forecast(profile_of([stage("fetch", UNEVEN)], hosts=hosts), Cluster.parse("1xcpu16"), 2_000)
    assert told.bottleneck == "CPU workers"
    assert any("hosts met once" in note for note in told.notes)


def test_lost_machines_cost_time_and_no_shard() -> None:
    profile = profile_of([stage("media", UNEVEN)])
    node = {"kind": "spot", "count": 8, "cpus": 2, "recover_s": 60.0}
    calm, stormy = (
        simulated(profile, Cluster.model_validate({"nodes": [{**node, "failures_per_h": rate}]}), 20_000)
        for rate in (0.0, 10.0)
    )
    assert (calm.machines_lost, calm.shards_again) == (0, 0)
    assert stormy.machines_lost > 0 < stormy.shards_again
    assert stormy.wall_s > calm.wall_s
    assert len(stormy.committed_at[0]) == len(calm.committed_at[0]) == 20_000 // SHARD


def test_a_cluster_that_dies_faster_than_a_shard_is_made_is_an_error() -> None:
    profile = profile_of([stage("media", [3600.0] * 4)])
    node = {"kind": "spot", "cpus": 1, "failures_per_h": 100.0}
    with pytest.raises(UserError, match="make shards smaller"):
        simulated(profile, Cluster.model_validate({"nodes": [node]}), SHARD)


@pytest.mark.parametrize("clips", [100, 100_000])
def test_an_interval_holds_its_median_and_is_wide_where_clips_differ(clips: int) -> None:
    same, uneven = (
        forecast(profile_of([stage("media", seconds)]), Cluster.parse("2xcpu4"), clips)
        for seconds in ([2.0] * 32, UNEVEN)
    )
    assert same.wall_s.low == pytest.approx(same.wall_s.high)
    assert uneven.wall_s.low < uneven.wall_s.median < uneven.wall_s.high
    assert uneven.storage_bytes["video"].median == pytest.approx(1e6 * clips)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("10cpu16", "`10cpu16` is no NxcpuC or NxgpuG"),
        ("1xcpu0", "`1xcpu0` is no NxcpuC"),
        ("0xcpu4", "no machine with a `count` above 0"),
        ("1xcpu4,2xcpu4", "the same `kind`"),
        ("absent.yaml", "absent.yaml: no such file; it holds"),
    ],
)
def test_a_cluster_that_is_none_is_told_in_one_line(spec: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        Cluster.parse(spec)


def test_a_profile_with_a_gpu_needs_a_cluster_with_one() -> None:
    with pytest.raises(UserError, match="was profiled with a GPU, and the cluster has none"):
        work_of(profile_of([stage("depth", UNEVEN, gpus=1.0)]), Cluster.parse("4xcpu16"))
