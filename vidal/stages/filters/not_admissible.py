from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class NotAdmissible(Stage):
    """Rejects live streams and age-restricted videos."""

    reads = ("live_status", "age_limit")
    allow_live: bool = False
    """Whether live streams pass."""
    max_age_limit: int = Field(0, ge=0)
    """Largest minimum age that the platform may require."""

    def process(self, clip: Clip) -> None:
        if not self.allow_live and clip.live_status in ("is_live", "is_upcoming", "post_live"):
            clip.reject("live", f"{clip.live_status}")
        elif clip.age_limit is not None and clip.age_limit > self.max_age_limit:
            detail = f"age limit {clip.age_limit} > {self.max_age_limit}"
            clip.reject("age", detail, value=clip.age_limit, limit=self.max_age_limit)
