from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooShort(Stage):
    """Rejects clips shorter than ``min_s`` seconds; clips of unknown duration pass."""

    reads = ("duration_s",)
    min_s: float = Field(1.0, gt=0)
    """Shortest duration, in seconds."""

    def process(self, clip: Clip) -> None:
        if clip.duration_s is not None and clip.duration_s < self.min_s:
            detail = f"{clip.duration_s:.2f} s < {self.min_s:g} s"
            clip.reject("too_short", detail, value=clip.duration_s, limit=self.min_s)
