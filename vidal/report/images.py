"""Thumbnails and waveforms, small enough to embed in the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

THUMBNAIL_WIDTH = 160
WAVE_COLUMNS = 400


def thumbnail(pixels: npt.NDArray[Any]) -> str:
    """Return a uint8 image ``(h, w, 3)`` as the ``data:`` URI of a WebP, `THUMBNAIL_WIDTH` pixels wide."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    height = max(1, round(image.height * THUMBNAIL_WIDTH / image.width))
    stream = io.BytesIO()
    image.resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS).save(stream, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def waveform(samples: npt.NDArray[Any]) -> str:
    """Return the envelope of audio in [-1, 1] as an SVG path, `WAVE_COLUMNS` wide and from -100 to 100 high."""
    # Audio of fewer samples than columns has empty parts.
    parts = [part for part in np.array_split(samples, WAVE_COLUMNS) if len(part)]
    # Half a unit on either side, so that silence is drawn as a line.
    tops = [f"L{x} {-100 * part.max() - 0.5:.1f}" for x, part in enumerate(parts)]
    bottoms = [f"L{x} {-100 * part.min() + 0.5:.1f}" for x, part in reversed(list(enumerate(parts)))]
    return " ".join(["M0 0", *tops, *bottoms, "Z"])
