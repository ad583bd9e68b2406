"""Which of many addresses are faulty, and how: a pure function of a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.site.faults import FAULTS, SLOW

QUICK = tuple(name for name in FAULTS if name not in SLOW)


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses ``/v/000000.mp4`` on, spread over the site's hosts in turn."""

    seed: int = 1
    count: int = 2000
    share: float = 0.2
    """Of the addresses that are faulty."""
    heal_after: int = 0
    """Bad answers after which a fault that can heal does; 0: only when the site is told to heal."""
    kinds: tuple[str, ...] = QUICK

    def fault(self, number: int) -> str | None:
        """The fault's name, or None for a good file."""
        chance = random.Random(f"{self.seed}/{number}")
        return chance.choice(self.kinds) if chance.random() < self.share else None

    def path(self, number: int) -> str:
        return f"/v/{number:06}.mp4"
