"""`Admitted`: lets every request of a visit go at once, and remembers it."""

from __future__ import annotations

from math import inf
from typing import Any


class Admitted:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """Host and kind of each request."""
        self.statuses: list[int] = []
        self.delays: list[tuple[str, float]] = []

    def admit(self, host: str, kind: str, *, is_again: bool) -> dict[str, Any]:
        self.asked.append((host, kind))
        return {"waited_s": 0.0, "send_by": inf, "is_probe": True}

    def answered(self, status: int) -> None:
        self.statuses.append(status)

    def delay(self, origin: str, delay_s: float) -> None:
        self.delays.append((origin, delay_s))

    def renew(self) -> None:
        """Nobody is told."""
