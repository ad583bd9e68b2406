from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooLong(Stage):
    """Rejects clips longer than ``max_s`` seconds (VIDAL's limit is 20); clips of unknown duration pass."""

    reads = ("duration_s",)
    max_s: float = Field(20.0, gt=0)
    """Longest duration, in seconds."""

    def process(self, clip: Clip) -> None:
        if clip.duration_s is not None and clip.duration_s > self.max_s:
            detail = f"{clip.duration_s:.2f} s > {self.max_s:g} s"
            clip.reject("too_long", detail, value=clip.duration_s, limit=self.max_s)
