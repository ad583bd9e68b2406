"""Estimates the time left in a run from what its stages have cost so far.

The costs of stages differ by a factor of a thousand, and the expensive ones often come last, so clips per second
predict little. The estimate adds up work, stage by stage, over this phase and all that follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidal.engine.job import ShardReport


@dataclass(slots=True)
class TimeSpent:
    """Worker seconds that each stage has taken, and the number of clips that it has processed."""

    seconds: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)

    def add(self, report: ShardReport) -> None:
        self.seconds.update(report.seconds)
        self.clips.update(report.clips)

    def copy(self) -> TimeSpent:
        return TimeSpent(self.seconds.copy(), self.clips.copy())

    def cost_s(self, stage: str) -> float | None:
        """Worker seconds per clip; None for a stage that has not run yet."""
        return self.seconds[stage] / self.clips[stage] if self.clips[stage] else None


def seconds_left(
    account: TimeSpent, *, stages: Sequence[Sequence[str]], clips: int, reach: Mapping[str, int], wall_s: float
) -> float | None:
    """The seconds until the last of ``stages`` has processed the last clip; None before any stage has run.

    ``stages`` holds the stages of the phase under way and of each later phase. ``clips`` is the number of clips that
    were not committed when the phase began, ``reach`` how many of them each stage has processed, ``wall_s`` the time
    since then. A stage that has not run yet is assumed to cost the average of those that have, and to get as many clips
    as the stage before it.
    """
    costs = {name: cost for name in account.clips if (cost := account.cost_s(name)) is not None}
    if not costs or wall_s <= 0:
        return None
    unseen_s = sum(costs.values()) / len(costs)
    work_s, share = 0.0, 1.0
    first = max((reach.get(name, 0) for name in stages[0]), default=0)
    for index, phase in enumerate(stages):
        for name in phase:
            processed = reach.get(name, 0) if index == 0 else 0
            if processed:
                share = processed / first
            work_s += costs.get(name, unseen_s) * max(0.0, clips * share - processed)
    workers_busy = max(sum(account.seconds.values()) / wall_s, 1e-9)
    return work_s / workers_busy
