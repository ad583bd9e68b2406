"""Members of a sample to arrays. The bytes are untrusted: sizes are bounded, and damage is an error, never a guess.

A picture that ends early is told by its missing end marker; PNG and FLAC carry checksums of their own. JPEG has none,
and its decoders turn a hole into a grey or garbled patch: whoever reads from a data set has the manifest's SHA-256
checked for such members (`Samples.read`). Pictures are decoded as stored, EXIF rotation ignored, so that every layer
stands the same way.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import soundfile

from vidal.dataset.alignment import picture_size
from vidal.errors import ClipError
from vidal.work import SAMPLE_RATE

LAYERS = ("video", "depth", "infrared", "audio")
PICTURE_LAYERS = ("video", "depth", "infrared")
MAX_PIXELS = 4096 * 4096
MAX_SAMPLES = 1 << 27
"""Of sound, all channels together: 46 minutes of mono at 48 kHz, 512 MB decoded."""
RATES_HZ = (4_000, 384_000)

SELF_CHECKED = (".png", ".flac")
"""Endings of formats whose decoder sees a changed byte by itself."""

_STEMS = {"frame": "video", "frm": "video", "depth": "depth", "dep": "depth", "infrared": "infrared", "tml": "infrared"}
_PICTURES = ("jpg", "jpeg", "png", "npy")
_FLAGS = {
    "video": cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    "depth": cv2.IMREAD_UNCHANGED,
    "infrared": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
_SOUNDS = ("flac", "wav", "mp3", "ogg")

Array = npt.NDArray[Any]


def frame_number(suffix: str) -> int | None:
    """3 of ``frame.3.jpg``, ``depth.3.png`` and ``frm3.jpg``, 0 of ``jpg``; None for what is no picture of a clip."""
    found = _picture_of(suffix)
    return found and found[1]


def layer_of(suffix: str) -> str | None:
    """The layer that a member's suffix says it belongs to; None for texts and for what is not known."""
    picture, kind = _picture_of(suffix), suffix.lower().rpartition(".")[2]
    if picture is not None:
        return picture[0]
    return "audio" if kind in _SOUNDS else "video" if kind == "mp4" else None


def _picture_of(suffix: str) -> tuple[str, int] | None:
    """Layer and number of a picture: ``STEM.3.jpg``, ``STEM3.jpg``, ``STEM.jpg`` or plain ``jpg``."""
    found = re.fullmatch(r"(?:([a-z]+)(?:\.?([0-9]{1,6}))?\.)?([a-z]+)", suffix.lower(), re.ASCII)
    if found is None or found[3] not in _PICTURES:
        return None
    stem, number, kind = found.groups()
    layer = _STEMS.get(stem) if stem else "video"
    # An array is depth; a plain one may be anything.
    if layer is None or (kind == "npy" and layer != "depth"):
        return None
    return layer, int(number or 0)


def frames_of(suffixes: Sequence[str]) -> list[str]:
    """The pictures among suffixes, in order of time."""
    return list(frames_by_number(suffixes).values())


def frames_by_number(suffixes: Sequence[str]) -> dict[int, str]:
    """The pictures among suffixes by their number, in order of time."""
    return dict(sorted((number, suffix) for suffix in suffixes if (number := frame_number(suffix)) is not None))


def sound_of(suffixes: Sequence[str]) -> str | None:
    return next((suffix for suffix in suffixes if suffix.lower().rpartition(".")[2] in _SOUNDS), None)


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
    if suffix.lower().endswith(".npy"):
        return _decode_npy(data, suffix)
    width, height = _checked_size(data, suffix)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[layer])
    except cv2.error as error:
        raise ClipError("undecodable", f"{suffix}: {' '.join(str(error).split())[:120]}") from None
    if picture is None or picture.shape[:2] != (height, width):
        raise ClipError("undecodable", f"{suffix}: no whole picture")
    if layer == "depth" and (picture.ndim != 2 or picture.dtype != np.uint16):
        raise ClipError("undecodable", f"{suffix}: depth is 16-bit grey, this is {picture.dtype} {picture.shape}")
    return np.asarray(picture)


def _checked_size(data: bytes, suffix: str) -> tuple[int, int]:
    """Width and height by the header, which is believed only if the end is there too."""
    try:
        width, height = picture_size(data)
    except (ClipError, struct.error):
        raise ClipError("undecodable", f"{suffix}: neither PNG nor JPEG") from None
    if not 0 < width * height <= MAX_PIXELS:
        raise ClipError("undecodable", f"{suffix}: a picture of {width}x{height}")
    is_png = data[:4] == b"\x89PNG"
    # Cameras put a few bytes after a JPEG's end; a cut one has none in reach.
    if (is_png and data[-8:-4] != b"IEND") or (not is_png and b"\xff\xd9" not in data[-64:]):
        raise ClipError("undecodable", f"{suffix}: the picture ends early")
    return width, height


def _decode_npy(data: bytes, suffix: str) -> Array:
    """Depth as LanguageBind's tars have it: metres as floats, or millimetres as integers."""
    depth = _npy_array(data, suffix)
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[-1]):
        depth = depth[0] if depth.shape[0] == 1 else depth[..., 0]
    if depth.ndim != 2 or not np.isfinite(depth).all():
        raise ClipError("undecodable", f"{suffix}: depth of shape {depth.shape}, or not finite")
    millimetres = depth * 1000.0 if depth.dtype.kind == "f" else depth
    return np.asarray(np.clip(millimetres, 0, 65535), np.uint16)


def _npy_array(data: bytes, suffix: str) -> Array:
    """The array, its size known before memory is taken: `numpy.load` believes the header."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    except (ValueError, EOFError) as error:
        raise ClipError("undecodable", f"{suffix}: no array: {' '.join(str(error).split())[:120]}") from None
    count = math.prod(shape)
    if dtype.kind not in "fiu" or not 0 < count <= MAX_PIXELS:
        raise ClipError("undecodable", f"{suffix}: {dtype} of shape {shape} is no depth")
    if len(data) - file.tell() != count * dtype.itemsize:
        raise ClipError("undecodable", f"{suffix}: the array ends early")
    flat = np.frombuffer(data, dtype, count, file.tell())
    return flat.reshape(shape, order="F" if is_fortran else "C")


def decode_sound(data: bytes) -> npt.NDArray[np.float32]:
    """Mono at 16 kHz in [-1, 1]."""
    if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8 < 1 << 32:
        raise ClipError("undecodable", "the sound ends early")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, frames = file.samplerate, file.frames
            if frames * file.channels > MAX_SAMPLES or not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                raise ClipError("undecodable", f"{frames} samples of sound at {rate} Hz")
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ClipError("undecodable", f"no sound: {error}") from None
    if len(samples) != frames:
        raise ClipError("undecodable", "the sound ends early")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise ClipError("undecodable", "sound that is not finite")
    return mono if rate == SAMPLE_RATE else _resampled(mono, rate)


def _resampled(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    from scipy.signal import resample_poly

    factor = math.gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(samples, SAMPLE_RATE // factor, rate // factor), np.float32)
