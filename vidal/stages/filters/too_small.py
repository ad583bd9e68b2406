from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooSmall(Stage):
    """Rejects clips whose shorter side is below ``min_side`` pixels; clips of unknown size pass."""

    reads = ("width", "height")
    min_side: int = Field(144, gt=0)
    """Smallest shorter side of the source, in pixels."""

    def process(self, clip: Clip) -> None:
        if clip.width is None or clip.height is None:
            return
        side = min(clip.width, clip.height)
        if side < self.min_side:
            detail = f"{clip.width}x{clip.height}, shorter side < {self.min_side} px"
            clip.reject("too_small", detail, value=side, limit=self.min_side)
