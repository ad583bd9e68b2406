"""`forecast`: time, storage, requests, GPU hours and cost of a build of many clips on a cluster, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from vidal.estimate.cluster import Cluster
from vidal.estimate.profile import Floats, Profile
from vidal.estimate.simulation import Simulated, simulate
from vidal.estimate.work import PhaseWork, work_of

_BOOTSTRAPS = 200
_EVENTS = 1_500_000
"""Events to simulate for an interval, about ten seconds' worth: many small builds, or a few large ones."""
_FEWEST_RUNS, _MOST_RUNS = 3, 20
_QUANTILES = (0.5, 0.05, 0.95)
_TAIL_SHARE = 0.01
_BINS = 20
_GB = 1e9
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Range:
    """A median with the quantiles of 5 % and 95 %."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | Floats) -> Range:
        """Return the range of drawn values (n,)."""
        return cls(*(float(value) for value in np.quantile(values, _QUANTILES)))

    def times(self, factor: float) -> Range:
        """Return the range in other units, or of more of the same."""
        return Range(self.median * factor, self.low * factor, self.high * factor)

    def text(self) -> str:
        """Return it with three digits: ``2.5 (2.1 to 3.2)``."""
        return f"{self.median:,.3g} ({self.low:,.3g} to {self.high:,.3g})"

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "p5": self.low, "p95": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class OneMore:
    """What one more machine of a kind saves."""

    kind: str
    saved_s: float
    costs: float
    """Of the whole build, more than without it; negative where it is cheaper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a build of ``clips`` candidates takes."""

    clips: int
    wall_s: Range
    kept: Range
    storage_bytes: dict[str, Range]
    """By layer."""
    requests: dict[str, float]
    """By host."""
    gpu_h: Range
    """Hours of GPUs that are there, busy or not."""
    cost: Range
    storage_price_per_month: float
    busy: dict[str, float]
    """The share of the time that each pool and limit is busy, at least, in its busiest phase."""
    one_more: list[OneMore]
    shape: Shape
    notes: list[str]

    @property
    def bottleneck(self) -> str:
        """The pool or limit that is busy for the largest share of its phase."""
        return max(self.busy, key=lambda name: self.busy[name])

    def lines(self) -> Iterator[str | Table]:
        hours = self.wall_s.times(1 / _HOUR_S)
        yield f"{self.clips:,} clips: {hours.text()} hours; {self.kept.text()} kept"
        total = sum(each.median for each in self.storage_bytes.values())
        layers = ", ".join(f"{name} {each.times(1 / _GB).text()}" for name, each in self.storage_bytes.items())
        yield f"storage: {total / _GB:,.3g} GB, {self.storage_price_per_month:,.2f} a month; by layer: {layers}"
        if self.requests:
            yield "requests: " + ", ".join(f"{host} {count:,.0f}" for host, count in self.requests.items())
        yield f"GPU hours: {self.gpu_h.text()}; machines cost {self.cost.text()}"
        yield f"bottleneck: {self.bottleneck}, busy for {self.busy[self.bottleneck]:.0%} of its phase"
        for more in self.one_more:
            yield f"one more {more.kind}: {more.saved_s / _HOUR_S:,.3g} hours less, for {more.costs:+,.2f}"
        yield from self.shape.lines()
        yield from self.notes

    def as_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips, "wall_s": self.wall_s.as_json(), "kept": self.kept.as_json(),
            "storage_bytes": {name: each.as_json() for name, each in self.storage_bytes.items()},
            "requests": self.requests, "gpu_h": self.gpu_h.as_json(), "cost": self.cost.as_json(),
            "storage_price_per_month": self.storage_price_per_month, "bottleneck": self.bottleneck, "busy": self.busy,
            "one_more": {m.kind: {"saved_s": m.saved_s, "costs": m.costs} for m in self.one_more},
            "shape": self.shape.as_json(), "notes": self.notes,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One simulated build over time."""

    wall_s: float
    clips_per_s: list[float]
    """Clips that left the last phase, in as many equal parts of the build."""
    phase_ends: list[float]
    """The shares of the time at which each phase ended."""
    tail_share: float
    """The share of the time that the last 1 % of the shards took, over all phases."""
    machines_lost: int
    shards_again: int
    busy_share: dict[str, float]
    """How busy the workers of each kind were."""

    @classmethod
    def of(cls, run: Simulated, works: Sequence[PhaseWork], shard_size: int) -> Shape:
        counts, edges = np.histogram(run.committed_at[-1], bins=_BINS, range=(0.0, run.wall_s))
        ends = [at[-1] for at in run.committed_at]
        tails = [at[-1] - at[int((1 - _TAIL_SHARE) * (len(at) - 1))] for at in run.committed_at]
        pools = [pool for work in works for pool in work.pools]
        workers = {
            kind: max(len(pool.speeds) for pool in pools if bool(pool.gpus) == (kind == "gpu")) for kind in run.busy_s
        }
        return cls(
            wall_s=run.wall_s, clips_per_s=(counts * shard_size / np.diff(edges)).tolist(),
            phase_ends=[end / run.wall_s for end in ends], tail_share=sum(tails) / run.wall_s,
            machines_lost=run.machines_lost, shards_again=run.shards_again,
            busy_share={kind: busy / (workers[kind] * run.wall_s) for kind, busy in run.busy_s.items()},
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        bars = " ▁▂▃▄▅▆▇█"
        highest = max(self.clips_per_s)
        drawn = "".join(bars[round(8 * each / highest)] for each in self.clips_per_s)
        yield f"clips/s over the build: {drawn} of {highest:,.3g}; the last 1 % of shards take {self.tail_share:.1%}"
        busy = ", ".join(f"{kind.upper()} {share:.0%}" for kind, share in self.busy_share.items())
        yield f"workers busy: {busy}; machines lost: {self.machines_lost}; shards made again: {self.shards_again}"

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def forecast(profile: Profile, cluster: Cluster, clips: int, *, seed: int = 0) -> Forecast:
    """Return what a build of a profiled recipe with so many candidates takes on a cluster.

    The interval is that of 200 drawings, with replacement, of the profiled clips: the time that the busiest pool or
    limit of each phase needs for them, times what a simulated build, with other losses of machines, takes beyond that.
    Raises `UserError` where the cluster cannot run what was profiled.
    """
    works = work_of(profile, cluster)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(profile.candidates, size=profile.candidates) for _ in range(_BOOTSTRAPS)]
    least_s = [sum(max(w.resampled(rows).busy_s(clips, profile.shard_size).values()) for w in works) for rows in drawn]
    events = clips / profile.shard_size * sum(1 + len(work.pools) for work in works)
    count = int(np.clip(_EVENTS / events, _FEWEST_RUNS, _MOST_RUNS))
    machines = cluster.machines()
    runs = [
        simulate([work.resampled(rows) for work in works], machines, clips, profile.shard_size, rng)
        for rows in drawn[:count]
    ]
    beyond = [run.wall_s / least for run, least in zip(runs, least_s, strict=False)]
    wall_s = Range.of([least * beyond[number % count] for number, least in enumerate(least_s)])
    # What is shown over time is the simulated build of the most usual length.
    median = min(runs, key=lambda run: abs(run.wall_s - wall_s.median))
    sizes = {
        name: Range.of([each[rows].mean() for rows in drawn]).times(clips)
        for name, each in profile.bytes_by_layer().items()
    }
    kept_share = profile.kept / profile.candidates
    return Forecast(
        clips=clips, wall_s=wall_s,
        kept=Range.of(rng.binomial(profile.candidates, kept_share, _BOOTSTRAPS) / profile.candidates).times(clips),
        storage_bytes=sizes,
        requests={host.name: host.requests / profile.candidates * clips for host in profile.hosts},
        gpu_h=wall_s.times(cluster.gpus / _HOUR_S), cost=wall_s.times(cluster.price_per_h / _HOUR_S),
        storage_price_per_month=sum(s.median for s in sizes.values()) / _GB * cluster.store.price_per_gb_month,
        busy=_busy(works, clips, profile.shard_size, median),
        one_more=[_one_more(profile, cluster, clips, node.kind, wall_s.median) for node in cluster.nodes],
        shape=Shape.of(median, works, profile.shard_size), notes=list(_notes(profile, cluster, clips)),
    )  # fmt: skip


def _busy(works: Sequence[PhaseWork], clips: int, shard_size: int, run: Simulated) -> dict[str, float]:
    """Return the busy share of each pool and limit in the phase in which it is busy for longest."""
    ends = [at[-1] for at in run.committed_at]
    longest: dict[str, tuple[float, float]] = {}
    for work, began, end in zip(works, [0.0, *ends], ends, strict=False):
        for name, busy_s in work.busy_s(clips, shard_size).items():
            longest[name] = max(longest.get(name, (0.0, 0.0)), (busy_s, busy_s / (end - began)))
    return {name: min(1.0, share) for name, (_, share) in sorted(longest.items(), key=lambda item: -item[1][0])}


def _one_more(profile: Profile, cluster: Cluster, clips: int, kind: str, wall_s: float) -> OneMore:
    """Compare two builds of the same clips in which no machine is lost, so that chance hides no difference."""

    def without_losses(cluster: Cluster) -> float:
        machines = [machine.model_copy(update={"failures_per_h": 0.0}) for machine in cluster.machines()]
        rng = np.random.default_rng(0)
        return simulate(work_of(profile, cluster), machines, clips, profile.shard_size, rng).wall_s

    more = cluster.with_one_more(kind)
    share = without_losses(more) / without_losses(cluster)
    costs = wall_s * (share * more.price_per_h - cluster.price_per_h) / _HOUR_S
    return OneMore(kind=kind, saved_s=wall_s * (1 - share), costs=costs)


def _notes(profile: Profile, cluster: Cluster, clips: int) -> Iterator[str]:
    if not profile.has_gpu and cluster.gpus:
        yield "profiled without a GPU: the cluster's GPUs are taken to stand idle, as on the profiled machine"
    for node in cluster.nodes:
        needed_gb = node.cpus * profile.peak_bytes / _GB
        if node.memory_gb is not None and needed_gb > node.memory_gb:
            yield f"{node.kind}: {node.cpus} workers of the profiled size need {needed_gb:,.0f} GB of memory"
    if rare := [host.name for host in profile.hosts if not host.is_frequent]:
        yield f"hosts met once, whose rates are not counted: {len(rare)}; a larger profile knows more of them"
    if profile.kept == 0:
        yield "no clip of the profile was kept, so that later stages cost nothing here"
