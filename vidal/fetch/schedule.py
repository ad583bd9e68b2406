"""Which clip a worker turns to next: every host at once, one host in the order of the plan."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from vidal.clip import Clip


class Schedule:
    """Clips by host; a thread that is free gets one of the host that fewest threads are busy with."""

    def __init__(self, clips: Sequence[tuple[str, Clip]]) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Clip]] = {}
        self._busy: dict[str, int] = {}
        for host, clip in clips:
            self._waiting.setdefault(host, deque()).append(clip)
            self._busy[host] = 0

    def take(self) -> tuple[str, Clip] | None:
        """The next clip with its host, or None when all are given out."""
        with self._lock:
            # The first of equals: hosts stand in the order of their first clip.
            host = min(self._waiting, key=lambda name: self._busy[name], default=None)
            if host is None:
                return None
            clip = self._waiting[host].popleft()
            if not self._waiting[host]:
                del self._waiting[host]
            self._busy[host] += 1
            return host, clip

    def done(self, host: str) -> None:
        with self._lock:
            self._busy[host] -= 1
