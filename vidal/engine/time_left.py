"""Estimates the time left in a run from what its stages have cost so far.

The costs of stages differ by a factor of a thousand, and the expensive ones often come last, so clips per second
predict little. The estimate adds up work, stage by stage, over this phase and all that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def seconds_left(
    spent_s: Mapping[str, float], processed: Mapping[str, int], *,
    stages: Sequence[Sequence[str]], clips: int, reach: Mapping[str, int], wall_s: float,
) -> float | None:  # fmt: skip
    """The seconds until the last of ``stages`` has processed the last clip; None before any stage has run.

    ``spent_s`` holds the worker seconds that each stage has taken so far, and ``processed`` the number of clips that it
    has processed. ``stages`` holds the stages of the phase under way and of each later phase. ``clips`` is the number
    of clips that were not committed when the phase began, ``reach`` how many of them each stage has processed,
    ``wall_s`` the time since then. A stage that has not run yet is assumed to cost the average of those that have, and
    to get as many clips as the stage before it.
    """
    costs = {name: spent_s[name] / count for name, count in processed.items() if count}
    if not costs or wall_s <= 0:
        return None
    unseen_s = sum(costs.values()) / len(costs)
    work_s, share = 0.0, 1.0
    first = max((reach.get(name, 0) for name in stages[0]), default=0)
    for index, phase in enumerate(stages):
        for name in phase:
            reached = reach.get(name, 0) if index == 0 else 0
            if reached:
                share = reached / first
            work_s += costs.get(name, unseen_s) * max(0.0, clips * share - reached)
    # Measured, not configured: workers wait for each other, for GPUs and for the network.
    workers_busy = max(sum(spent_s.values()) / wall_s, 1e-9)
    return work_s / workers_busy
