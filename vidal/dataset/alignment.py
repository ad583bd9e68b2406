"""The alignment contract: what a writer checks before a clip may enter a shard, and `verify` checks again.

Frame k of every layer shows the same instant, ``frame_times[k]``, at the same size; the sound is as long
as the picture. A clip of audio alone has no frames; its length is the audio's.
"""

from __future__ import annotations

import struct
from collections import defaultdict

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.modality.image_bytes import image_size
from vidal.work import SAMPLE_RATE, Member

AUDIO_TOLERANCE_S = 0.002
"""Rounding of a duration to whole samples, no more."""


def check(clip: Clip) -> None:
    """Refuse a clip whose members do not belong together: `ClipError` with reason ``misaligned``."""
    pictures: dict[str, dict[int, Member]] = defaultdict(dict)
    for member in clip.work.members:
        index = picture_index(member.suffix)
        if index is not None:
            pictures[member.layer][index] = member
        elif member.layer == "audio" and member.suffix == "flac":
            _check_audio(clip, member.data)
    for layer, by_index in pictures.items():
        _check_pictures(clip, layer, by_index)


def picture_index(suffix: str) -> int | None:
    """k of ``frame.k.jpg``, ``depth.k.png``, ``infrared.k.jpg``; None for a member that is no numbered picture."""
    parts = suffix.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def _check_pictures(clip: Clip, layer: str, by_index: dict[int, Member]) -> None:
    if sorted(by_index) != list(range(len(clip.frame_times))):
        raise ClipError("misaligned", f"{layer} has pictures {sorted(by_index)} for {len(clip.frame_times)} times")
    for index, member in by_index.items():
        if member.time_s != clip.frame_times[index]:
            raise ClipError(
                "misaligned", f"{layer} picture {index} is of {member.time_s} s, not of {clip.frame_times[index]} s"
            )
        size = image_size(member.data)
        if size != (clip.frame_width, clip.frame_height):
            raise ClipError("misaligned", f"{layer} picture {index} is {size}, the frames are "
                            f"{(clip.frame_width, clip.frame_height)}")  # fmt: skip


def _check_audio(clip: Clip, flac: bytes) -> None:
    length_s = flac_samples(flac) / SAMPLE_RATE
    if clip.duration_s is None or abs(length_s - clip.duration_s) > AUDIO_TOLERANCE_S:
        raise ClipError("misaligned", f"sound of {length_s:.4f} s for a picture of {clip.duration_s} s")


def flac_samples(data: bytes) -> int:
    """Samples that a FLAC stream declares, from its STREAMINFO block; refuses another rate or more channels."""
    if data[:4] != b"fLaC" or len(data) < 26:
        raise ClipError("misaligned", "the sound is not FLAC")
    (packed,) = struct.unpack(">Q", data[18:26])
    rate, channels = packed >> 44, ((packed >> 41) & 7) + 1
    if (rate, channels) != (SAMPLE_RATE, 1):
        raise ClipError("misaligned", f"sound at {rate} Hz with {channels} channels, not {SAMPLE_RATE} Hz mono")
    return int(packed & ((1 << 36) - 1))
