from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooDark(Stage):
    """Rejects clips whose mean brightness is too low or that are black for too large a share.

    Either value suffices to reject a clip; values that were not measured are ignored.
    """

    reads = ("luma_mean", "black_share")
    min_luma: float = Field(0.06, ge=0, le=1)
    """Smallest mean brightness, 0 to 1."""
    max_black_share: float = Field(0.5, ge=0, le=1)
    """Largest share of the clip that is black."""

    def process(self, clip: Clip) -> None:
        if clip.luma_mean is not None and clip.luma_mean < self.min_luma:
            detail = f"mean brightness {clip.luma_mean:.3f} < {self.min_luma:g}"
            clip.reject("too_dark", detail, value=clip.luma_mean, limit=self.min_luma)
        elif clip.black_share is not None and clip.black_share > self.max_black_share:
            detail = f"black share {clip.black_share:.2f} > {self.max_black_share:g}"
            clip.reject("too_dark", detail, value=clip.black_share, limit=self.max_black_share)
