"""`Work`: what stages hand each other about one clip in memory, and what is written of it to the tars."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Samples per second of every audio member."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Member:
    """One tar member: ``<key>.<suffix>`` in ``layer``; ``time_s`` is set for a picture of one instant."""

    layer: str
    suffix: str
    data: bytes
    time_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Work:
    """Working state of a clip; it lives as long as the clip is in a worker."""

    folder: Path | None = None
    """Private folder of the clip; emptied when the clip leaves the group."""
    source_path: Path | None = None
    """The media file as it came; only between fetch and the media stage."""
    members: list[Member] = field(default_factory=list)
    probe: object = None
    """`vidal.media.probe.SourceFacts` of the source, handed from probe to media."""
    _frames: list[npt.NDArray[np.uint8]] | None = None
    _audio: npt.NDArray[np.float32] | None = None

    def put(self, member: Member) -> None:
        """Add a member, replacing one of the same layer and suffix, so that a batch may be tried again."""
        self.members = [m for m in self.members if (m.layer, m.suffix) != (member.layer, member.suffix)]
        self.members.append(member)

    def member(self, layer: str, suffix: str) -> Member | None:
        return next((m for m in self.members if m.layer == layer and m.suffix == suffix), None)

    def frame_members(self) -> list[Member]:
        """The stored colour frames, in order of time."""
        frames = [m for m in self.members if m.layer == "video" and m.suffix.startswith("frame.")]
        return sorted(frames, key=lambda m: int(m.suffix.split(".")[1]))

    def frames(self) -> list[npt.NDArray[np.uint8]]:
        """The colour frames as ``(height, width, 3)`` RGB, decoded once from the very bytes that are stored."""
        if self._frames is None:
            from PIL import Image

            self._frames = [np.asarray(Image.open(io.BytesIO(m.data)).convert("RGB")) for m in self.frame_members()]
        return self._frames

    def audio(self) -> npt.NDArray[np.float32] | None:
        """The sound as ``(samples,)`` mono at `SAMPLE_RATE`, in [-1, 1], or None without a sound track."""
        if self._audio is None:
            flac = self.member("audio", "flac")
            if flac is None:
                return None
            import soundfile

            self._audio, _ = soundfile.read(io.BytesIO(flac.data), dtype="float32")
        return self._audio

    def forget_decoded(self) -> None:
        """Drop what can be decoded again, before the clip travels or waits."""
        self._frames = self._audio = None
