"""Members of a sample to arrays. The bytes are untrusted: sizes are bounded, and damage is an error, never a guess."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import soundfile

from vidal.errors import ClipError
from vidal.work import SAMPLE_RATE

LAYERS = ("video", "depth", "infrared", "audio")
PICTURE_LAYERS = ("video", "depth", "infrared")
MAX_PIXELS = 4096 * 4096
MAX_SECONDS = 3600

_STEMS = {"frame": "video", "frm": "video", "depth": "depth", "dep": "depth", "infrared": "infrared", "tml": "infrared"}
_SOUNDS = ("flac", "wav", "mp3", "ogg")

Array = npt.NDArray[Any]


def frame_number(suffix: str) -> int | None:
    """3 of ``frame.3.jpg``, ``depth.3.png`` and ``frm3.jpg``; None for what is no numbered picture."""
    stem, _, rest = suffix.partition(".")
    number = rest.partition(".")[0] if stem in _STEMS else stem.lstrip("abcdefghijklmnopqrstuvwxyz")
    known = stem in _STEMS or stem.rstrip("0123456789") in _STEMS
    return int(number) if known and number.isdigit() else None


def frames_of(suffixes: Sequence[str]) -> list[str]:
    """The numbered pictures among suffixes, in order of time."""
    numbered = [(number, suffix) for suffix in suffixes if (number := frame_number(suffix)) is not None]
    return [suffix for _, suffix in sorted(numbered)]


def sound_of(suffixes: Sequence[str]) -> str | None:
    return next((suffix for suffix in suffixes if suffix.rpartition(".")[2] in _SOUNDS), None)


def decode(layer: str, members: Mapping[str, bytes]) -> Array:
    """``video`` (t, h, w, 3) uint8, ``depth`` (t, h, w) uint16 mm, ``infrared`` (t, h, w) uint8, ``audio`` (n,).

    The frames are those among ``members``, in order of time. Raises `ClipError`.
    """
    if layer == "audio":
        suffix = sound_of(list(members))
        if suffix is None:
            raise ClipError("undecodable", f"no sound among {', '.join(members) or 'no members'}")
        return decode_sound(members[suffix])
    suffixes = frames_of(list(members))
    if not suffixes:
        raise ClipError("undecodable", f"no {layer} picture among {', '.join(members) or 'no members'}")
    pictures = [decode_picture(layer, members[suffix], suffix) for suffix in suffixes]
    if len({picture.shape for picture in pictures}) > 1:
        raise ClipError("undecodable", f"{layer} pictures of different sizes")
    return np.stack(pictures)


def decode_picture(layer: str, data: bytes, suffix: str) -> Array:
    """One picture; raises `ClipError` where it is damaged, too large, or not of the layer's kind."""
    if suffix.endswith(".npy"):
        return _decode_npy(data)
    _check_size(data)
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
        raise ClipError("undecodable", f"{suffix}: the JPEG ends early")
    flag = {"video": cv2.IMREAD_COLOR_RGB, "depth": cv2.IMREAD_UNCHANGED, "infrared": cv2.IMREAD_GRAYSCALE}[layer]
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if picture is None:
        raise ClipError("undecodable", f"{suffix}: no picture")
    if layer == "depth" and (picture.ndim != 2 or picture.dtype != np.uint16):
        raise ClipError("undecodable", f"{suffix}: depth is 16-bit grey, this is {picture.dtype} {picture.shape}")
    return picture


def _check_size(data: bytes) -> None:
    from vidal.dataset.alignment import picture_size

    try:
        width, height = picture_size(data)
    except Exception as error:
        raise ClipError("undecodable", f"a picture without a size: {error}") from None
    if width * height > MAX_PIXELS:
        raise ClipError("undecodable", f"a picture of {width}x{height}")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] != b"IEND":
        raise ClipError("undecodable", "the PNG ends early")


def _decode_npy(data: bytes) -> Array:
    """Depth as LanguageBind's tars have it: metres as floats, or millimetres."""
    try:
        depth = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ClipError("undecodable", f"no array: {error}") from None
    depth = np.squeeze(depth)
    if depth.ndim != 2 or depth.size > MAX_PIXELS or not np.isfinite(depth).all():
        raise ClipError("undecodable", f"depth of shape {depth.shape}")
    if np.issubdtype(depth.dtype, np.floating):
        depth = np.clip(depth * 1000, 0, 65535)
    return np.asarray(depth, np.uint16)


def decode_sound(data: bytes) -> npt.NDArray[np.float32]:
    """Mono at 16 kHz in [-1, 1]."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames > MAX_SECONDS * file.samplerate:
                raise ClipError("undecodable", f"{file.frames / file.samplerate:.0f} s of sound")
            samples = file.read(dtype="float32", always_2d=True)
            if len(samples) != file.frames:
                raise ClipError("undecodable", "the sound ends early")
            rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ClipError("undecodable", f"no sound: {error}") from None
    mono = samples.mean(axis=1)
    return mono if rate == SAMPLE_RATE else _resampled(mono, rate)


def _resampled(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    from math import gcd

    from scipy.signal import resample_poly

    factor = gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(samples, SAMPLE_RATE // factor, rate // factor), np.float32)
