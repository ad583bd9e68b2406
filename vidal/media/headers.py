"""Reads what a container's header states, where FFmpeg corrects the values or does not report them."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from vidal.clip import Statement

_FLV_AUDIO = 4  # flag of the header's fifth byte
_AVI_HEADER = 24  # RIFF, size, AVI, LIST, size, hdrl: then the main header


def container_states(path: Path, stated_s: float | None, has_audio: bool) -> Statement:
    """Return what the header of the file ``path`` states.

    ``stated_s`` and ``has_audio`` are FFmpeg's values, overridden for FLV and AVI: for these, FFmpeg reports what it
    finds in the file instead.
    """
    with path.open("rb") as file:
        head = file.read(128)
    stated = Statement(by="container", duration_s=stated_s, has_audio=has_audio)
    if head[:3] == b"FLV":
        return replace(stated, has_audio=has_audio or bool(head[4:5] and head[4] & _FLV_AUDIO))
    if head[:4] == b"RIFF" and head[8:12] == b"AVI " and head[_AVI_HEADER : _AVI_HEADER + 4] == b"avih":
        frame_us, _, _, _, frames, _, _, _, width, height = struct.unpack_from("<10I", head, _AVI_HEADER + 8)
        length_s = frame_us * frames / 1e6
        return replace(stated, duration_s=length_s or None, frame_count=frames or None, width=width, height=height)
    return stated
