"""Decides which clip a worker fetches next: all hosts at once, the clips of one host in plan order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidal.clip import Clip
from vidal.crawl.visitor import Tries


@dataclass(slots=True)
class Turn:
    """A clip to be fetched, and the state of its visits."""

    host: str
    clip: Clip
    tries: Tries
    not_before: float = 0.0
    has_metadata: bool = False


class Schedule:
    """Clips by host; a free thread gets one of the host that the fewest threads are visiting.

    A clip that is postponed, because its host is paused or a visit failed, occupies no thread meanwhile.
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
        """The next clip; the seconds until one is due where all are postponed; None when none is left."""
        with self._lock:
            now = self._clock()
            due: dict[str, Turn] = {}
            for name, turns in self._waiting.items():
                if turn := next((turn for turn in turns if turn.not_before <= now), None):
                    due[name] = turn
            # Of equals the first: hosts are in the order of their first clip.
            host = min(due, key=lambda name: self._busy[name], default=None)
            if host is None:
                times = [turn.not_before for turns in self._waiting.values() for turn in turns]
                return min(times) - now if times else None
            self._waiting[host].remove(due[host])
            self._busy[host] += 1
            return due[host]

    def done(self, turn: Turn, again_in_s: float | None) -> None:
        """Report the end of a turn; with ``again_in_s``, the clip is due again after so many seconds."""
        with self._lock:
            self._busy[turn.host] -= 1
            if again_in_s is not None:
                turn.not_before = self._clock() + again_in_s
                self._waiting[turn.host].append(turn)
