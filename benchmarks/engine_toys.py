"""A stage that costs a settled amount of CPU, for `engine.py`."""

from __future__ import annotations

import time

from vidal.clip import Clip
from vidal.stage import Stage


class Burn(Stage):
    """Spends ``cost_s`` of CPU on a clip, like a decoder would."""

    cost_s: float = 0.05

    def process(self, clip: Clip) -> None:
        end = time.process_time() + self.cost_s
        while time.process_time() < end:
            sum(range(500))
