from __future__ import annotations

from typing import ClassVar

from vidal.clip import Clip
from vidal.stage import Stage


class NoAudio(Stage):
    """Rejects clips without audio; clips that were not probed pass."""

    version: ClassVar[int] = 2
    reads = ("has_audio",)

    def process(self, clip: Clip) -> None:
        if clip.has_audio is False:
            clip.reject("no_audio", "0 audio tracks < 1", value=0, limit=1)
