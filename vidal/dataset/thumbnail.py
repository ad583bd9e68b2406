"""The thumbnail of a rejected clip: what remains of its frames in its manifest row, so that a filter can be judged."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from PIL import Image

from vidal.dataset.alignment import image_index
from vidal.dataset.tars import suffix_of

# The longest side bounds a panorama. With these, a rejected clip of the sample takes 2.8 kB (0.6 to 4.7).
_SIDE, _LONGEST_SIDE = 96, 288
_QUALITY = 60


def thumbnail_of(row: Mapping[str, Any], read_member: Callable[[dict[str, Any], str], bytes]) -> bytes | None:
    """Return the thumbnail of a clip: what its row keeps, or one of its middle frame; None without frames."""
    stored: bytes | None = row.get("thumbnail")
    if stored is None and (frame := middle_frame(member["name"] for member in row["members"] or [])):
        return thumbnail(read_member(dict(row), frame))
    return stored


def middle_frame(names: Iterable[str]) -> str | None:
    """Return the member of the middle stored frame among names such as ``KEY.frame.3.jpg``; None without frames."""
    frames = [name for name in names if suffix_of(name).startswith("frame.")]
    frames.sort(key=lambda name: image_index(suffix_of(name)) or 0)
    return frames[len(frames) // 2] if frames else None


def thumbnail(frame: bytes) -> bytes | None:
    """Return a small JPEG of an encoded image, at most 96 pixels on its shorter side; None for no image.

    The bytes depend on the frame alone.
    """
    try:
        with Image.open(io.BytesIO(frame)) as image:
            scale = min(1.0, _SIDE / min(image.size), _LONGEST_SIDE / max(image.size))
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            # A JPEG is decoded at a fraction of its size where that is enough.
            image.draft("RGB", size)
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # Pillow raises SyntaxError for a broken PNG.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()
