from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class TooStatic(Stage):
    """Rejects clips with too little motion or that are frozen for too large a share.

    Either value suffices to reject a clip; values that were not measured are ignored.
    """

    reads = ("motion", "freeze_share")
    min_motion: float = Field(0.5, ge=0)
    """Smallest mean temporal information (ITU-T P.910)."""
    max_freeze_share: float = Field(0.9, ge=0, le=1)
    """Largest share of the clip that is frozen."""

    def process(self, clip: Clip) -> None:
        if clip.motion is not None and clip.motion < self.min_motion:
            detail = f"motion {clip.motion:.2f} < {self.min_motion:g}"
            clip.reject("too_static", detail, value=clip.motion, limit=self.min_motion)
        elif clip.freeze_share is not None and clip.freeze_share > self.max_freeze_share:
            detail = f"frozen share {clip.freeze_share:.2f} > {self.max_freeze_share:g}"
            clip.reject("too_static", detail, value=clip.freeze_share, limit=self.max_freeze_share)
