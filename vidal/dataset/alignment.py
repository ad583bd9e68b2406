"""The alignment contract, which the writer checks before a clip enters a shard and `verify` checks again.

Frame k of every layer shows the same instant, ``frame_times[k]``, at the same size; the audio is as long as the video.
An audio-only clip has no frames, and the duration of its audio.
"""

from __future__ import annotations

import struct
from collections import defaultdict

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.modality.image_bytes import image_size
from vidal.work import SAMPLE_RATE, Member

AUDIO_TOLERANCE_S = 0.002
"""Covers the rounding of a duration to whole samples, and nothing else."""


def check(clip: Clip) -> None:
    """Raise `ClipError` with reason ``misaligned`` for a clip whose members do not fit together."""
    frame_size = (clip.frame_width, clip.frame_height)
    images: dict[str, dict[int, Member]] = defaultdict(dict)
    for member in clip.work.members:
        index = image_index(member.suffix)
        if index is not None:
            images[member.layer][index] = member
        elif member.layer == "audio" and member.suffix == "flac":
            length_s = flac_samples(member.data) / SAMPLE_RATE
            if clip.duration_s is None or abs(length_s - clip.duration_s) > AUDIO_TOLERANCE_S:
                raise ClipError("misaligned", f"audio of {length_s:.4f} s for a video of {clip.duration_s} s")
    for layer, by_index in images.items():
        if sorted(by_index) != list(range(len(clip.frame_times))):
            raise ClipError("misaligned", f"{layer} has images {sorted(by_index)} for {len(clip.frame_times)} times")
        for index, member in by_index.items():
            time_s, size = clip.frame_times[index], image_size(member.data)
            if member.time_s != time_s:
                raise ClipError("misaligned", f"{layer} image {index} is of {member.time_s} s, not of {time_s} s")
            if size != frame_size:
                raise ClipError("misaligned", f"{layer} image {index} is {size}, the frames are {frame_size}")


def image_index(suffix: str) -> int | None:
    """Return k of ``frame.k.jpg``, ``depth.k.png``, ``infrared.k.jpg``; None for a member that is no numbered image."""
    parts = suffix.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def flac_samples(data: bytes) -> int:
    """Return the number of samples in the STREAMINFO block of a FLAC stream; `ClipError` unless it is 16 kHz mono."""
    if data[:4] != b"fLaC" or len(data) < 26:
        raise ClipError("misaligned", "the audio is not FLAC")
    # STREAMINFO follows the marker and a block header of 4 bytes each; its first 10 bytes are block and frame sizes.
    # Then come 20 bits of rate, 3 of channels less one, 5 of bits per sample less one, and 36 of samples.
    (packed,) = struct.unpack(">Q", data[18:26])
    rate, channels = packed >> 44, ((packed >> 41) & 7) + 1
    if (rate, channels) != (SAMPLE_RATE, 1):
        raise ClipError("misaligned", f"audio at {rate} Hz with {channels} channels, not {SAMPLE_RATE} Hz mono")
    return int(packed & ((1 << 36) - 1))
