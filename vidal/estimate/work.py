"""The work of a build as the engine would share it out: pools of workers, and limits that all workers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidal.engine.job import Group
from vidal.engine.ray import cut_into_pools
from vidal.errors import UserError
from vidal.estimate.cluster import Cluster, NodeKind
from vidal.estimate.profile import Floats, PhaseCost, Profile

_BYTES_PER_GBIT = 1e9 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPool:
    """The workers of one group of stages."""

    gpus: float
    """GPUs of each worker."""
    machines: tuple[int, ...]
    """The machine that each worker is on."""
    speeds: tuple[float, ...]
    start_s: float
    """Seconds until a new worker computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What all workers share: the rate of a host, the network, the store."""

    name: str
    group: int
    """The group whose workers wait for it."""
    per_s: float
    units: Floats
    """What each profiled candidate takes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWork:
    """A phase: all its shards are built before the next one begins."""

    pools: tuple[WorkerPool, ...]
    seconds: Floats
    """Worker seconds, profiled candidates x groups, at speed 1."""
    shard_s: Floats
    """Worker seconds of each group on a shard as a whole."""
    limits: tuple[Limit, ...]

    def resampled(self, rows: npt.NDArray[np.int64]) -> PhaseWork:
        """Return the work as it would be, had the profile met the candidates ``rows``."""
        limits = tuple(replace(limit, units=limit.units[rows]) for limit in self.limits)
        return replace(self, seconds=self.seconds[rows], limits=limits)

    def busy_s(self, clips: int, shard_size: int) -> dict[str, float]:
        """Return how long each pool and limit is busy with so many clips, if nothing else holds it up."""
        shards = -(-clips // shard_size)
        per_group = clips * self.seconds.mean(axis=0) + shards * self.shard_s
        busy: dict[str, float] = {}
        for pool, seconds in zip(self.pools, per_group, strict=True):
            name = "GPU workers" if pool.gpus else "CPU workers"
            # Two pools of a kind are two groups; the longer one holds the phase up.
            busy[name] = max(busy.get(name, 0.0), float(seconds) / sum(pool.speeds))
        return busy | {limit.name: clips * float(limit.units.mean()) / limit.per_s for limit in self.limits}


def work_of(profile: Profile, cluster: Cluster) -> list[PhaseWork]:
    """Return the work of each phase on a cluster; raises `UserError` where its machines are not those profiled."""
    needs_gpu = any(stage.gpus for phase in profile.phases for stage in phase.stages)
    if needs_gpu and not cluster.gpus:
        raise UserError(
            f"{profile.recipe}: was profiled with a GPU, and the cluster has none; "
            "make a profile on a machine without one"
        )
    return [_phase(profile, number, phase, cluster) for number, phase in enumerate(profile.phases)]


def _phase(profile: Profile, number: int, phase: PhaseCost, cluster: Cluster) -> PhaseWork:
    count = 1 + max(stage.group for stage in phase.stages)
    seconds, shard_s, setup_s = np.zeros((profile.candidates, count)), np.zeros(count), np.zeros(count)
    gpus = [max(stage.gpus for stage in phase.stages if stage.group == group) for group in range(count)]
    for stage in phase.stages:
        seconds[:, stage.group] += stage.seconds
        shard_s[stage.group] += stage.shard_s
        setup_s[stage.group] += stage.setup_s
    groups = [Group(stages=(), gpus=each) for each in gpus]
    resources = {"CPU": float(cluster.cpus), "GPU": float(cluster.gpus)}
    # The engine's own division of a cluster.
    sizes = [(pool.size, pool.cpus) for pool in cut_into_pools(groups, resources, None, profile.gpu_workers)]
    machines = cluster.machines()
    pools = tuple(
        _pool(machines, size, cpu_share, gpus=each, start_s=phase.start_s + float(setup))
        for (size, cpu_share), each, setup in zip(sizes, gpus, setup_s, strict=True)
    )
    limits = _limits(profile, number, phase, cluster, last=count - 1)
    return PhaseWork(pools=pools, seconds=seconds, shard_s=shard_s, limits=limits)


def _pool(machines: Sequence[NodeKind], size: int, cpu_share: float, *, gpus: float, start_s: float) -> WorkerPool:
    """Place workers on machines, in proportion to their GPUs or cores."""
    share = np.cumsum([machine.gpus if gpus else machine.cpus for machine in machines], dtype=float)
    # By the middle of each worker's share of the whole, so that rounding favours no machine.
    places = np.searchsorted(share / share[-1], (np.arange(size) + 0.5) / size)
    # More workers than cores share the cores.
    speeds = tuple(machines[place].speed * (1.0 if gpus else cpu_share) for place in places)
    return WorkerPool(gpus=gpus, machines=tuple(places.tolist()), speeds=speeds, start_s=start_s)


def _limits(profile: Profile, number: int, phase: PhaseCost, cluster: Cluster, *, last: int) -> tuple[Limit, ...]:
    stored = np.sum(list(phase.bytes.values()), axis=0)
    # The first phase reads the sources, and every later one what the phase before it has stored.
    read = np.array(profile.source_bytes) if number == 0 else np.sum(list(profile.phases[number - 1].bytes.values()), 0)
    gbit_s = sum(node.count * node.gbit_s for node in cluster.nodes)
    # Between groups a clip's members travel, which are at most what is stored of it.
    moved = read + stored * (1 + last)
    limits = [Limit(name="network", group=last, per_s=gbit_s * _BYTES_PER_GBIT, units=moved)]
    if cluster.store.gbit_s:
        limits.append(Limit(name="store", group=last, per_s=cluster.store.gbit_s * _BYTES_PER_GBIT, units=stored))
    hosts = [host for host in profile.hosts if host.is_frequent] if any(s.name == "fetch" for s in phase.stages) else []
    for host in hosts:
        each = np.full(profile.candidates, host.requests / profile.candidates)
        limits.append(Limit(name=f"host {host.name}", group=0, per_s=host.per_s, units=each))
    return tuple(limits)
