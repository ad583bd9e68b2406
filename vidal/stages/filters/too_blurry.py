from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooBlurry(Stage):
    """Rejects clips whose ``blur`` exceeds ``max_blur``; clips without the measurement pass."""

    reads = ("blur",)
    max_blur: float = Field(12.0, gt=0)
    """Largest value of FFmpeg's blurdetect."""

    def process(self, clip: Clip) -> None:
        if clip.blur is not None and clip.blur > self.max_blur:
            clip.reject("too_blurry", f"blur {clip.blur:.2f} > {self.max_blur:g}", value=clip.blur, limit=self.max_blur)
