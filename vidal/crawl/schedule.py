"""Which clip a worker turns to next: every host at once, one host in the order of the plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidal.clip import Clip
from vidal.crawl.visitor import Tries


@dataclass(slots=True)
class Turn:
    """A clip that is to be fetched, and how far that is."""

    host: str
    clip: Clip
    tries: Tries
    not_before: float = 0.0
    has_metadata: bool = False


class Schedule:
    """Clips by host; a thread that is free gets one of the host that fewest threads are busy with.

    A clip that is put off, because its host is paused or a visit failed, holds no thread: others go meanwhile.
    """

    def __init__(self, turns: Sequence[Turn], clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._waiting: dict[str, list[Turn]] = {}
        self._busy: dict[str, int] = {}
        for turn in turns:
            self._waiting.setdefault(turn.host, []).append(turn)
            self._busy[turn.host] = 0

    def take(self) -> Turn | float | None:
        """The next clip; the seconds until one is due where all are put off; None when all are given out."""
        with self._lock:
            now = self._clock()
            due = {host: turn for host, turns in self._waiting.items() if (turn := _first_due(turns, now))}
            # The first of equals: hosts stand in the order of their first clip.
            host = min(due, key=lambda name: self._busy[name], default=None)
            if host is None:
                times = [turn.not_before for turns in self._waiting.values() for turn in turns]
                return min(times) - now if times else None
            self._waiting[host].remove(due[host])
            self._busy[host] += 1
            return due[host]

    def done(self, turn: Turn, again_in_s: float | None) -> None:
        """The turn is over; the clip comes again after so many seconds, if any."""
        with self._lock:
            self._busy[turn.host] -= 1
            if again_in_s is not None:
                turn.not_before = self._clock() + again_in_s
                self._waiting[turn.host].append(turn)


def _first_due(turns: list[Turn], now: float) -> Turn | None:
    return next((turn for turn in turns if turn.not_before <= now), None)
