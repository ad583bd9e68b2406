"""Callers of a governor by a clock that stands until a test moves it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any

from vidal.crawl.governor import Governor
from vidal.crawl.settings import HostRules


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def rules(**given: Any) -> dict[str, Any]:
    return HostRules(**{"jitter": 0.0, **given}).model_dump()


Sent = list[tuple[float, str]]


def visitor(
    governor: Governor, budget: str, given: dict[str, Any], sent: Sent, *, requests: int = 1, answer_s: float = 0.05,
    dies: bool = False, kind: str = "page",
) -> Iterator[float]:  # fmt: skip
    """One caller, which yields the seconds after which it goes on."""
    while True:
        visit, wait_s, _ = governor.begin("run", budget, given, kind)
        if visit:
            break
        yield wait_s
    for _ in range(requests):
        while (wait_s := governor.admit("run", visit, budget, given, kind)[0]) > 0:
            yield min(wait_s, 5.0)
        sent.append((governor._clock(), budget))
        if dies:
            return
        yield answer_s
    governor.end(visit, {budget: "ok"}, given)


def run(clock: Clock, callers: list[Iterator[float]], until_s: float = 1000.0) -> None:
    """Let callers go on, each in its time."""
    start, numbers = clock.now, itertools.count()
    due = [(clock.now, next(numbers), caller) for caller in callers]
    while due and clock.now < start + until_s:
        at, _, caller = heapq.heappop(due)
        clock.now = max(clock.now, at)
        if (wait_s := next(caller, None)) is not None:
            heapq.heappush(due, (clock.now + wait_s, next(numbers), caller))
