from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooMuchText(Stage):
    """Rejects clips with text over more than ``max_area_share`` of a frame; clips without OCR results pass."""

    reads = ("ocr_area_share",)
    max_area_share: float = Field(0.3, ge=0, le=1)
    """Largest share of a frame that text may cover."""

    def process(self, clip: Clip) -> None:
        if clip.ocr_area_share is not None and clip.ocr_area_share > self.max_area_share:
            detail = f"text covers {clip.ocr_area_share:.2f} of a frame > {self.max_area_share:g}"
            clip.reject("too_much_text", detail, value=clip.ocr_area_share, limit=self.max_area_share)
