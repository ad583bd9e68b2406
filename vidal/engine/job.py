"""Messages between the driver and its workers, and the protocols of engines and progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    groups: list[Group] = []
    for stage in stages:
        gpus = stage.needs.gpus if have_gpu else 0.0
        # One group per run of stages on the same hardware: each boundary sends every clip, pixels included, once more.
        if groups and (groups[-1].gpus > 0) == (gpus > 0):
            groups[-1] = Group(stages=(*groups[-1].stages, stage), gpus=max(groups[-1].gpus, gpus))
        else:
            groups.append(Group(stages=(stage,), gpus=gpus))
    # A phase without stages, such as the last one after a decision, still has rows to write.
    return tuple(groups) or (Group(stages=(), gpus=0.0),)


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

    @property
    def gpus(self) -> float:
        """GPUs of a worker that runs all groups."""
        return max(group.gpus for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One shard to build."""

    shard: int
    isolate: bool = False
    """Process clip by clip, each announced before it starts: after a worker died on the shard."""
    dead: Mapping[str, str] = field(default_factory=dict)
    """Clips that were under way at two deaths of a worker, each with its stage at that time."""
    again: frozenset[str] | None = None
    """Clips to retry; the shard's other rows and members are carried over. None: build the whole shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """The stage and the clips that a worker last announced."""

    stage: str
    clip_ids: tuple[str, ...]


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

    def spend(self, stage: str, seconds: float, clips: int = 0) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.clips[stage] = self.clips.get(stage, 0) + clips

    def give_back(self, error: NotNowError) -> None:
        """Record that the shard was given back: what became of its clips does not count."""
        self.not_now = error
        self.outcomes.clear()


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

        Every shard that is not returned is committed.
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
