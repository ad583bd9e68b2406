"""Messages between the driver and its workers, and the protocols of engines and progress."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.errors import NotNowError
from vidal.stage import Shared, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Stages that run in one process on one kind of hardware."""

    stages: tuple[Stage, ...]
    gpus: float


def cut_into_groups(stages: Sequence[Stage], *, have_gpu: bool) -> tuple[Group, ...]:
    """Split the stages into groups where the hardware changes; without a GPU everything is one group."""

    def gpus(stage: Stage) -> float:
        return stage.needs.gpus if have_gpu else 0.0

    # One group per run of stages on the same hardware: each boundary sends every clip, pixels included, once more.
    runs = (tuple(run) for _, run in itertools.groupby(stages, lambda stage: gpus(stage) > 0))
    groups = tuple(Group(stages=run, gpus=max(map(gpus, run))) for run in runs)
    # A phase without stages, such as the last one after a decision, still has rows to write.
    return groups or (Group(stages=(), gpus=0.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One phase of a build: everything that a worker needs to build any of its shards."""

    storage: Storage
    groups: tuple[Group, ...]
    layers: tuple[str, ...]
    fingerprint: str
    window: int
    sources: tuple[str, ...] = ()
    """Addresses of the datasets that the clips come from; none where they come from the plan alone."""
    inherited: tuple[str, ...] = ()
    """Layers whose tars belong to an earlier revision of the dataset; clips keep their members there."""
    loads: frozenset[str] | None = None
    """Layers to read from the source: those that are rewritten and those that stages read. None: all."""
    removals: Removals = field(default_factory=Removals)
    """The removals list: clips that no dataset may hold."""
    shared: Mapping[str, Shared] = field(default_factory=dict)
    """Proxies of the objects that all workers share, by stage."""
    is_profiled: bool = False
    """Whether the reports keep a `Trace`."""

    @property
    def gpus(self) -> float:
        """GPUs of a worker that runs all groups."""
        return max(group.gpus for group in self.groups)

    def report(self, assignment: Assignment) -> ShardReport:
        """Return the empty report of a shard that is about to be made."""
        return ShardReport(shard=assignment.shard, trace=Trace() if self.is_profiled else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One shard to build."""

    shard: int
    isolate: bool = False
    """Process clip by clip, each announced before it starts: after a worker died on the shard."""
    dead: Mapping[str, str] = field(default_factory=dict)
    """Clips that were under way at two deaths of a worker, each with its stage at that time."""
    again: Mapping[str, int] | None = None
    """Clips to retry, with their attempts so far in the last phase, which is written last: a retry that was killed and
    is begun anew counts once. The shard's other rows and members are carried over. None: build the whole shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """The stage and the clips that a worker last announced; by default nothing yet."""

    stage: str = ""
    clip_ids: tuple[str, ...] = ()
    is_machines_fault: bool = False
    """Whether the worker's machine went, so that no clip is suspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """What a stage spent on a batch; on no clips for what it does once a shard."""

    stage: str
    clip_ids: tuple[str, ...]
    seconds: float
    """Of the worker, waiting included."""
    cpu_s: float
    """CPU seconds of the worker's process and of its children that have ended."""


@dataclass(slots=True, kw_only=True)
class Trace:
    """What a profile keeps of a shard beside the sums."""

    batches: list[BatchCost] = field(default_factory=list)
    setup_s: dict[str, float] = field(default_factory=dict)
    """Seconds that the shard's workers took to set up each stage."""
    peak_bytes: int = 0
    """Memory of the largest of these workers at its highest, with its largest child."""


@dataclass(slots=True, kw_only=True)
class ShardReport:
    """The counts of a shard by status, and the time that each stage took."""

    shard: int
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of clips by status."""
    stage: str = ""
    """The stage under way."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Worker seconds by stage."""
    clips: dict[str, int] = field(default_factory=dict)
    """Number of clips processed by each stage."""
    not_now: NotNowError | None = None
    """Why the shard was given back."""
    trace: Trace | None = None
    """For a profile: what each batch cost."""

    @contextmanager
    def timed(self, stage: str, clip_ids: tuple[str, ...] = ()) -> Iterator[None]:
        """Add the time of the block to a stage, and the clips to those that it has processed, unless it raises."""
        started, cpu_s = time.perf_counter(), _cpu_s()
        yield
        seconds = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.clips[stage] = self.clips.get(stage, 0) + len(clip_ids)
        if self.trace is not None:
            cost = BatchCost(stage=stage, clip_ids=clip_ids, seconds=seconds, cpu_s=_cpu_s() - cpu_s)
            self.trace.batches.append(cost)

    def give_back(self, error: NotNowError) -> None:
        """Record that the shard was given back: what became of its clips does not count."""
        self.not_now = error
        self.outcomes.clear()


def _cpu_s() -> float:
    return sum(os.times()[:4])


class Notes:
    """Where a worker announces its next clips; the driver reads the last note when the worker dies.

    This one ignores all notes, for stages that run in the driver's own process without a display.
    """

    def begin(self, shard: int, under_way: UnderWay, *, surely: bool) -> None:
        """Announce some clips; with ``surely`` the note survives a crash right after the call."""

    def turn(self, shard: int | None) -> None:
        """Announce the shard whose stages compute from now on, None while each waits; surely, as of `begin`."""

    def advance(self, report: ShardReport) -> None:
        """Send the shard's counts so far and the stage under way."""


class Engine(Protocol):
    """Runs assignments; a shard is done only when it is committed."""

    def has_gpu(self) -> bool:
        """Whether stages that ask for a GPU get one."""

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        """Hold the objects that all workers share until `close`; returns proxies for the workers."""

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        """Attempt every assignment once; returns what was under way in each shard whose worker died, and why a shard
        was given back.

        Every shard that is not returned is committed. Raises the `UserError` or `MachineError` that ends the run.
        """

    def close(self) -> None:
        """End every process that the engine started."""


class Progress(Protocol):
    """What an engine reports to the driver while it runs."""

    def update(self, report: ShardReport) -> None:
        """The counts of a shard that is under way or done."""

    def done(self, report: ShardReport) -> None:
        """A shard is committed, or was given back."""

    def tick(self) -> None:
        """Called periodically, so that a display can be refreshed."""
