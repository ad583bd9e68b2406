"""How long a run will still take, from what its stages have cost so far.

A run's stages differ by a factor of a thousand, and the dear ones often come last. So the pace of clips says little:
what is estimated is work, stage by stage, over this phase and all that are to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidal.engine.job import ShardReport


@dataclass(slots=True)
class Account:
    """Worker seconds that each stage has taken, and the clips that went through it."""

    seconds: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)

    def add(self, report: ShardReport) -> None:
        self.seconds.update(report.seconds)
        self.clips.update(report.clips)

    def copy(self) -> Account:
        return Account(self.seconds.copy(), self.clips.copy())

    def cost_s(self, stage: str) -> float | None:
        """Worker seconds of one clip; None for a stage that has not been seen yet."""
        return self.seconds[stage] / self.clips[stage] if self.clips[stage] else None


def seconds_left(
    account: Account, *, stages: Sequence[Sequence[str]], clips: int, reach: Mapping[str, int], wall_s: float
) -> float | None:
    """Seconds until the last of ``stages`` has seen the last clip; None before anything is known.

    ``stages`` are those of the phase under way and of the phases to come; ``clips`` are the phase's clips that were not
    committed when it began, and ``reach`` tells how many of them went through each stage. A stage that has not been
    seen is taken to cost what a seen one costs on average, and as many clips reach it as reach the one before it.
    """
    costs = {name: cost for name in account.clips if (cost := account.cost_s(name)) is not None}
    if not costs or wall_s <= 0:
        return None
    unseen_s = sum(costs.values()) / len(costs)
    work_s, share = 0.0, 1.0
    first = max((reach.get(name, 0) for name in stages[0]), default=0)
    for index, phase in enumerate(stages):
        for name in phase:
            gone_through = reach.get(name, 0) if index == 0 else 0
            if gone_through:
                share = gone_through / first
            work_s += costs.get(name, unseen_s) * max(0.0, clips * share - gone_through)
    workers_busy = max(sum(account.seconds.values()) / wall_s, 1e-9)
    return work_s / workers_busy
