from __future__ import annotations

from vidal.clip import Clip
from vidal.stage import Stage


class NoVideo(Stage):
    """Rejects audio-only clips; clips that were not probed pass."""

    reads = ("container", "video_codec")

    def process(self, clip: Clip) -> None:
        if clip.container is not None and clip.video_codec is None:
            clip.reject("no_video", "0 video tracks < 1", value=0, limit=1)
