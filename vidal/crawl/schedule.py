"""Decides which clip a worker fetches next: all budgets at once, the clips of one in plan order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidal.clip import Clip
from vidal.crawl.visitor import Later, Tries

_SOON_S = 5.0
"""Threads are kept for a clip that is due within this time."""


@dataclass(slots=True)
class Turn:
    """A clip to be fetched, and the state of its visits."""

    budget: str
    clip: Clip
    tries: Tries
    not_before: float = 0.0
    has_metadata: bool = False


class Schedule:
    """Clips by budget; a free thread gets one of the budget that the fewest threads are using.

    A clip that is postponed, because its budget is used up or paused or a visit failed, occupies no thread meanwhile.
    Hosts that do not answer, whose visits may take their time to fail, get half of the threads while another has clips.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        clock: Callable[[], float] = time.monotonic,
        threads: int = 1,
        # Any name is true: without being told, each host is up.
        is_up: Callable[[str], bool] = bool,
    ) -> None:
        """``is_up`` tells whether the hosts of a budget answer."""
        self._lock = threading.Condition()
        self._clock = clock
        self._is_up, self._threads, self._most_silent = is_up, threads, max(1, threads // 2)
        self._waiting: dict[str, list[Turn]] = {}
        self._busy: dict[str, int] = {}
        self._held_until: dict[str, float] = {}
        """When a budget that is used up or paused may be asked again."""
        self._is_stopped = False
        self._on_trial: set[str] = set()
        """Budgets that were paused, and of which no clip has been fetched since."""
        for turn in turns:
            self._waiting.setdefault(turn.budget, []).append(turn)
            self._busy[turn.budget] = 0

    def take(self) -> Turn | float | None:
        """The next clip; the seconds until one is due where all are postponed; None when none is left."""
        with self._lock:
            if self._is_stopped:
                return None
            now = self._clock()
            due: dict[str, Turn] = {}
            due_at: dict[str, float] = {}
            for name, turns in self._waiting.items():
                held_until = self._held_until.get(name, now)
                ready = (turn for turn in turns if turn.not_before <= now and held_until <= now)
                if name in self._on_trial:
                    # An address that failed before says less about its host.
                    first = min(ready, key=lambda turn: turn.tries.failures, default=None)
                else:
                    # Of thousands that are due mostly the first one is, and none behind it is looked at.
                    first = next(ready, None)
                if first is not None:
                    due[name], due_at[name] = first, now
                elif turns:
                    due_at[name] = max(held_until, min(turn.not_before for turn in turns))
            silent = {name for name in self._waiting if not self._is_up(name)}
            if sum(self._busy[name] for name in silent) >= self._most_silent and any(
                at <= now + _SOON_S for name, at in due_at.items() if name not in silent
            ):
                due = {name: turn for name, turn in due.items() if name not in silent}
            # Of equals the first: budgets are in the order of their first clip.
            budget = min(due, key=lambda name: self._busy[name], default=None)
            if budget is None:
                times = [at for at in due_at.values() if at > now]
                return min(times, default=now + _SOON_S) - now if due_at else None
            self._waiting[budget].remove(due[budget])
            self._busy[budget] += 1
            return due[budget]

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Whether less than half of the threads have clips, those that are due soon included, within a time."""
        with self._lock:
            return self._lock.wait_for(self._is_idle, timeout_s)

    def _is_idle(self) -> bool:
        soon = self._clock() + _SOON_S
        due = (
            turn
            for name, turns in self._waiting.items()
            for turn in turns
            if max(turn.not_before, self._held_until.get(name, 0.0)) <= soon
        )
        # No further than the answer: this is asked at the end of each turn.
        busy, enough = sum(self._busy.values()), self._threads / 2
        return busy + sum(1 for _ in itertools.islice(due, self._threads)) < enough

    def stop(self) -> None:
        """Leave the clips that are waiting as they are."""
        self._is_stopped = True

    def done(self, turn: Turn, later: Later | None) -> None:
        """Report the end of a turn, or when it is due again."""
        with self._lock:
            now = self._clock()
            self._busy[turn.budget] -= 1
            # Only the end of a turn makes the threads idle.
            self._lock.notify_all()
            if later is None or later.of == "clip":
                # The visit may have been what its budget had no room for.
                self._held_until.pop(turn.budget, None)
            if later is None:
                self._on_trial.discard(turn.budget)
                return
            if later.of == "clip":
                turn.not_before = now + later.seconds
            else:
                self._held_until[turn.budget] = now + later.seconds
            if later.of == "pause":
                self._on_trial.add(turn.budget)
            # First, so that the tries of a clip are not all left for the end of its batch.
            self._waiting[turn.budget].insert(0, turn)
