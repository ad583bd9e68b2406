"""PNG and JPEG to arrays. The bytes are untrusted: sizes are bounded, and damage is an error, never a guess.

A picture that ends early is told by its missing end marker; PNG carries checksums of its own. JPEG has none, and its
decoders turn a hole into a grey or garbled patch: whoever reads from a dataset has the manifest's SHA-256 checked for
such members (`Samples.read`). Pictures are decoded as stored, EXIF rotation ignored, so that every layer stands the
same way.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ClipError

MAX_PIXELS = 4096 * 4096


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG or JPEG, from its header; raises `ClipError`."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 < len(data):
        marker, length = data[position + 1], struct.unpack(">H", data[position + 2 : position + 4])[0]
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        position += 2 + length
    raise ClipError("misaligned", "a picture is neither PNG nor JPEG")


def decode_image(data: bytes, suffix: str, flags: int) -> npt.NDArray[Any]:
    """One image, as OpenCV's ``flags`` say; raises `ClipError` where it is damaged or too large."""
    import cv2

    width, height = _checked_size(data, suffix)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ClipError("undecodable", f"{suffix}: {' '.join(str(error).split())[:120]}") from None
    if image is None or image.shape[:2] != (height, width):
        raise ClipError("undecodable", f"{suffix}: no whole picture")
    return np.asarray(image)


def _checked_size(data: bytes, suffix: str) -> tuple[int, int]:
    """Width and height by the header, which is believed only if the end is there too."""
    try:
        width, height = image_size(data)
    except (ClipError, struct.error):
        raise ClipError("undecodable", f"{suffix}: neither PNG nor JPEG") from None
    if not 0 < width * height <= MAX_PIXELS:
        raise ClipError("undecodable", f"{suffix}: a picture of {width}x{height}")
    is_png = data[:4] == b"\x89PNG"
    # Cameras put a few bytes after a JPEG's end; a cut one has none in reach.
    if (is_png and data[-8:-4] != b"IEND") or (not is_png and b"\xff\xd9" not in data[-64:]):
        raise ClipError("undecodable", f"{suffix}: the picture ends early")
    return width, height
