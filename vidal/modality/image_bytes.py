"""Decodes untrusted PNG and JPEG images: sizes are limited, and detected damage is an error.

Truncation is detected by the missing end marker, other damage of a PNG by its checksums. JPEG has no checksums, and its
decoders conceal damage by grey or garbled areas; readers of datasets therefore compare the SHA-256 of such members with
the manifest (`Samples.read`). EXIF rotation is ignored, so that all layers have the same orientation.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ClipError, one_line

MAX_PIXELS = 4096 * 4096


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG or JPEG from its header; raises `ClipError` for other data."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    # From segment to segment, as one of them may hold a thumbnail with a header of its own.
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 < len(data):
        marker, length = data[position + 1], struct.unpack(">H", data[position + 2 : position + 4])[0]
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        position += 2 + length
    raise ClipError("misaligned", "an image is neither PNG nor JPEG")


def decode_image(data: bytes, suffix: str, flags: int) -> npt.NDArray[Any]:
    """Decode an image of at most `MAX_PIXELS` with OpenCV's ``flags``; raises `ClipError` if it is damaged or larger.

    ``suffix`` names the member in error messages.
    """
    import cv2

    try:
        width, height = image_size(data)
    except (ClipError, struct.error):
        raise ClipError("undecodable", f"{suffix}: neither PNG nor JPEG") from None
    # Before decoding: a few kilobytes can state gigabytes of pixels.
    if not 0 < width * height <= MAX_PIXELS:
        raise ClipError("undecodable", f"{suffix}: an image of {width}x{height} pixels")
    is_png = data[:4] == b"\x89PNG"
    # Cameras append a few bytes after the end marker of a JPEG; a truncated file has no marker near its end.
    if (is_png and data[-8:-4] != b"IEND") or (not is_png and b"\xff\xd9" not in data[-64:]):
        raise ClipError("undecodable", f"{suffix}: the image is truncated")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ClipError("undecodable", f"{suffix}: {one_line(error)}") from None
    if image is None or image.shape[:2] != (height, width):
        raise ClipError("undecodable", f"{suffix}: the image cannot be decoded completely")
    return np.asarray(image)
