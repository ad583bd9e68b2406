"""A discrete simulation of a build: one event for each shard and group, machine lost, and worker started.

It follows the engine on Ray: executions of a bounded number of shards, each with new pools of workers; a shard whose
worker dies is made again in the next pass, after all others.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vidal.engine.ray import shards_per_execution
from vidal.errors import UserError
from vidal.estimate.cluster import NodeKind
from vidal.estimate.profile import Floats
from vidal.estimate.work import PhaseWork

_MOST_PASSES = 100


class _Kind(IntEnum):
    ready = 0
    done = 1
    lost = 2


@dataclass(slots=True, kw_only=True)
class Simulated:
    """What happened in a simulated build."""

    wall_s: float = 0.0
    committed_at: list[list[float]] = field(default_factory=list)
    """Of each phase, when its shards were committed, in order."""
    machines_lost: int = 0
    shards_again: int = 0
    """Shards that were made again, as their worker died."""
    busy_s: dict[str, float] = field(default_factory=dict)
    """Seconds that workers of a kind had a shard, those of lost shards included."""


def simulate(
    phases: Sequence[PhaseWork], machines: Sequence[NodeKind], clips: int, shard_size: int, rng: np.random.Generator
) -> Simulated:
    """Simulate a build of ``clips`` candidates, each of which costs what one of the profiled ones does, at random.

    Raises `UserError` where machines are lost sooner than a shard is made.
    """
    cluster = _Cluster(machines, rng)
    sizes = np.full(-(-clips // shard_size), shard_size)
    sizes[-1] = clips - shard_size * (len(sizes) - 1)
    for phase in phases:
        cluster.out.committed_at.append([])
        candidates = len(phase.seconds)
        drawn = rng.multinomial(sizes, np.full(candidates, 1 / candidates))
        run = _Phase(cluster, phase, drawn @ phase.seconds + phase.shard_s, drawn)
        todo, passes = list(range(len(sizes))), 0
        while todo:
            left: list[int] = []
            at_once = shards_per_execution(max(len(pool.speeds) for pool in phase.pools))
            for start in range(0, len(todo), at_once):
                left += run.execute(todo[start : start + at_once])
            cluster.out.shards_again += len(left)
            todo, passes = left, passes + 1
            if passes > _MOST_PASSES:
                raise UserError("the cluster loses its machines faster than it makes shards; make shards smaller")
    cluster.out.wall_s = cluster.now
    return cluster.out


class _Cluster:
    """The machines over the whole build: when each is lost, and when it is back."""

    def __init__(self, machines: Sequence[NodeKind], rng: np.random.Generator) -> None:
        self.machines = machines
        self.now = 0.0
        self.out = Simulated()
        self._rng = rng
        self.back_at = [0.0] * len(machines)
        self.lost_at = [self._lifetime(number) for number in range(len(machines))]

    def lose(self, number: int) -> None:
        self.out.machines_lost += 1
        self.back_at[number] = self.now + self.machines[number].recover_s
        self.lost_at[number] = self.back_at[number] + self._lifetime(number)

    def _lifetime(self, number: int) -> float:
        per_h = self.machines[number].failures_per_h
        # At a constant rate of losses the time until the next one is exponential.
        return float(self._rng.exponential(3600 / per_h)) if per_h else float("inf")


class _Phase:
    """The executions of a phase."""

    def __init__(self, cluster: _Cluster, work: PhaseWork, seconds: Floats, drawn: npt.NDArray[np.int64]) -> None:
        self._cluster, self._work = cluster, work
        self._seconds: list[list[float]] = seconds.tolist()
        """Worker seconds of each shard in each group, at speed 1."""
        self._limits = [
            [
                (number, (drawn @ limit.units / limit.per_s).tolist())
                for number, limit in enumerate(work.limits)
                if limit.group == group
            ]
            for group in range(len(work.pools))
        ]
        """Of each group, the limits that it waits for, with the seconds that each shard takes of them."""
        self._free_at = [0.0] * len(work.limits)

    def execute(self, shards: Sequence[int]) -> list[int]:
        """Make shards with new workers; returns those whose worker died."""
        self._start(shards)
        cluster, lost = self._cluster, list[int]()
        open_shards = len(shards)
        while open_shards:
            cluster.now, _, kind, who, epoch = heapq.heappop(self._events)
            if kind is _Kind.lost:
                dropped = self._lose(who)
                lost += dropped
                open_shards -= len(dropped)
            # Of an earlier epoch is what a worker would have done whose machine was lost before.
            elif epoch == self._epochs[who]:
                if kind is _Kind.done:
                    open_shards -= self._finish(who)
                self._idle[self._group_of[who]].append((who, epoch))
                self._dispatch(self._group_of[who])
        return lost

    def _start(self, shards: Sequence[int]) -> None:
        pools = self._work.pools
        self._events: list[tuple[float, int, _Kind, int, int]] = []
        self._number = 0
        self._waiting = [deque(shards), *(deque[int]() for _ in pools[1:])]
        self._idle = [deque[tuple[int, int]]() for _ in pools]
        self._group_of: list[int] = []
        self._workers_of: dict[int, list[int]] = {}
        self._speeds: list[float] = []
        for group, pool in enumerate(pools):
            # As the engine does: no more workers than shards.
            for machine, speed in list(zip(pool.machines, pool.speeds, strict=True))[: len(shards)]:
                self._workers_of.setdefault(machine, []).append(len(self._speeds))
                self._group_of.append(group)
                self._speeds.append(speed)
        self._epochs = [0] * len(self._speeds)
        self._making: list[int | None] = [None] * len(self._speeds)
        cluster = self._cluster
        for machine, workers in self._workers_of.items():
            for worker in workers:
                self._begin(worker, max(cluster.now, cluster.back_at[machine]))
            if cluster.lost_at[machine] < float("inf"):
                # One that was lost between two executions is found lost as this one starts.
                self._push(max(cluster.now, cluster.lost_at[machine]), _Kind.lost, machine, 0)

    def _push(self, at: float, kind: _Kind, who: int, epoch: int) -> None:
        # Numbered, so that events of one moment stay in order.
        self._number += 1
        heapq.heappush(self._events, (at, self._number, kind, who, epoch))

    def _begin(self, worker: int, at: float) -> None:
        start_s = self._work.pools[self._group_of[worker]].start_s
        self._push(at + start_s, _Kind.ready, worker, self._epochs[worker])

    def _dispatch(self, group: int) -> None:
        idle, waiting, now = self._idle[group], self._waiting[group], self._cluster.now
        while idle and waiting:
            worker, epoch = idle.popleft()
            if epoch != self._epochs[worker]:
                continue
            shard = waiting.popleft()
            done = now + self._seconds[shard][group] / self._speeds[worker]
            for limit, takes_s in self._limits[group]:
                self._free_at[limit] = max(self._free_at[limit], now) + takes_s[shard]
                done = max(done, self._free_at[limit])
            self._making[worker] = shard
            kind = "gpu" if self._work.pools[group].gpus else "cpu"
            self._cluster.out.busy_s[kind] = self._cluster.out.busy_s.get(kind, 0.0) + (done - now)
            self._push(done, _Kind.done, worker, epoch)

    def _finish(self, worker: int) -> bool:
        """Hand a shard to the next group; returns whether it is committed."""
        shard, group = self._making[worker], self._group_of[worker]
        assert shard is not None
        self._making[worker] = None
        if group + 1 < len(self._waiting):
            self._waiting[group + 1].append(shard)
            self._dispatch(group + 1)
            return False
        self._cluster.out.committed_at[-1].append(self._cluster.now)
        return True

    def _lose(self, machine: int) -> list[int]:
        """End the workers of a machine, start them anew once it is back, and return the shards that they had."""
        self._cluster.lose(machine)
        dropped = []
        for worker in self._workers_of[machine]:
            self._epochs[worker] += 1
            if (shard := self._making[worker]) is not None:
                dropped.append(shard)
                self._making[worker] = None
            self._begin(worker, self._cluster.back_at[machine])
        self._push(self._cluster.lost_at[machine], _Kind.lost, machine, 0)
        return dropped
