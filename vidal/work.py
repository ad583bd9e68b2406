"""`Work`: the state of one clip that stages share in memory, including the members to be written to the tars."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Samples per second of every audio member."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Member:
    """One tar member: ``<key>.<suffix>`` in ``layer``; ``time_s`` is set for the image of one instant."""

    layer: str
    suffix: str
    data: bytes
    time_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Work:
    """Working state of a clip, which exists only while the clip is in a worker."""

    folder: Path | None = None
    """Private folder of the clip, emptied when the clip leaves the group of stages."""
    source_path: Path | None = None
    """The original media file, between the fetch and media stages only."""
    beside: dict[str, Path] = field(default_factory=dict)
    """What was fetched with the source, ``subtitle.en`` or ``thumbnail``, each with its file; for keep_source."""
    members: list[Member] = field(default_factory=list)
    read_members: Callable[[], None] | None = None
    """Reads the members of a clip that is only carried over, when it is about to be written."""
    probe: object = None
    """`vidal.media.probe.SourceFacts` of the source, passed from probe to media."""
    on_devices: dict[str, list[Any]] = field(default_factory=dict)
    """The frames as tensors by device, where `vidal.models.frame_batch` has put them."""
    _frames: list[npt.NDArray[np.uint8]] | None = None
    _audio: npt.NDArray[np.float32] | None = None

    def put(self, member: Member) -> None:
        """Add a member, replacing one of the same layer and suffix, so that a batch can be retried."""
        self.members = [m for m in self.members if (m.layer, m.suffix) != (member.layer, member.suffix)]
        self.members.append(member)

    def member(self, layer: str, suffix: str) -> Member | None:
        """Return a member by layer and suffix, None if there is none."""
        return next((m for m in self.members if m.layer == layer and m.suffix == suffix), None)

    def frame_members(self) -> list[Member]:
        """Return the members of the stored colour frames, in order of time."""
        frames = [m for m in self.members if m.layer == "video" and m.suffix.startswith("frame.")]
        return sorted(frames, key=lambda m: int(m.suffix.split(".")[1]))

    def frames(self) -> list[npt.NDArray[np.uint8]]:
        """Return the colour frames, uint8 RGB ``(height, width, 3)``, decoded once from the bytes that are stored."""
        if self._frames is None:
            from PIL import Image

            # From the stored bytes: the worker that encoded them and that of a later phase must see the same pixels.
            # Copied into memory of their own, which a tensor may share.
            self._frames = [np.array(Image.open(io.BytesIO(m.data)).convert("RGB")) for m in self.frame_members()]
        return self._frames

    def audio(self) -> npt.NDArray[np.float32] | None:
        """Return the audio, float32 mono ``(samples,)`` in [-1, 1] at `SAMPLE_RATE`, None without an audio track."""
        if self._audio is None:
            flac = self.member("audio", "flac")
            if flac is None:
                return None
            import soundfile

            self._audio, _ = soundfile.read(io.BytesIO(flac.data), dtype="float32")
        return self._audio

    def forget_decoded(self) -> None:
        """Free the decoded frames, on devices too, and audio, before the clip is sent or queued."""
        self._frames = self._audio = None
        self.on_devices = {}
