from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class Damaged(Stage):
    """Rejects clips with too large a corrupt share, or whose ``damage`` contains one of the ``words``."""

    reads: ClassVar[tuple[str, ...]] = ("corrupt_frames", "frame_count", "corrupt_audio_share", "damage")

    max_share: float = Field(0.05, ge=0, le=1)
    """Largest share of corrupt frames and, if there is audio, of corrupt audio packets."""
    # Frames of another shape are squeezed into the size of the first, so that part of the clip is distorted.
    words: list[str] = Field(default=["frame_size_changes"])
    """Kinds of damage that are always rejected, such as ``shorter_than_stated`` or ``silent_audio``."""

    def process(self, clip: Clip) -> None:
        frames = clip.corrupt_frames / clip.frame_count if clip.corrupt_frames and clip.frame_count else 0.0
        audio = clip.corrupt_audio_share or 0.0 if clip.has_audio else 0.0
        for name, share in (("frames", frames), ("audio", audio)):
            if share > self.max_share:
                detail = f"corrupt share of {name} {share:.3f} > {self.max_share:g}"
                return clip.reject("damaged", detail, value=share, limit=self.max_share)
        if unwanted := sorted(set(self.words) & set(clip.damage)):
            clip.reject("damaged", ", ".join(unwanted))
