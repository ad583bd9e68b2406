"""What a clip looks and sounds like, small enough to stand in a page: thumbnails and a waveform."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

THUMBNAIL_WIDTH = 160
WAVE_COLUMNS = 400


def thumbnail(picture: bytes) -> str:
    """A colour or grey picture as a small ``data:`` URI."""
    return _data_uri(Image.open(io.BytesIO(picture)).convert("RGB"))


def depth_range(pictures: Sequence[bytes]) -> tuple[int, int]:
    """The 2nd and 98th percentile over all frames of a clip, so that one colour is one depth in all of them."""
    near, far = np.percentile(np.concatenate([_depth(picture).ravel() for picture in pictures]), [2, 98])
    return int(near), int(max(far, near + 1))


def depth_thumbnail(picture: bytes, near: int, far: int) -> str:
    """A 16-bit depth map in OpenCV's "inferno", near bright and far dark, as a small ``data:`` URI."""
    nearness = (far - np.clip(_depth(picture).astype(np.float64), near, far)) / (far - near)
    coloured = cv2.applyColorMap(np.rint(255 * nearness).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return _data_uri(Image.fromarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)))


def _depth(picture: bytes) -> npt.NDArray[np.uint16]:
    return np.asarray(Image.open(io.BytesIO(picture)), dtype=np.uint16)


def _data_uri(image: Image.Image) -> str:
    height = max(1, round(image.height * THUMBNAIL_WIDTH / image.width))
    stream = io.BytesIO()
    image.resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS).save(stream, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def waveform(flac: bytes) -> str:
    """The sound's envelope as the path of an SVG that is `WAVE_COLUMNS` wide and reaches from -100 to 100."""
    samples, _ = soundfile.read(io.BytesIO(flac), dtype="float32", always_2d=True)
    parts = [part for part in np.array_split(samples[:, 0], WAVE_COLUMNS) if len(part)]
    tops = [f"L{x} {-100 * part.max() - 0.5:.1f}" for x, part in enumerate(parts)]
    bottoms = [f"L{x} {-100 * part.min() + 0.5:.1f}" for x, part in reversed(list(enumerate(parts)))]
    return " ".join(["M0 0", *tops, *bottoms, "Z"])
