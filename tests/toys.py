"""Small images and clips, made from a seed, for tests to lean on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidal.clip import Clip
from vidal.work import Member

Pixels = npt.NDArray[np.uint8]


def image(seed: int, width: int = 144, height: int = 256) -> Pixels:
    """An RGB image with the 1/f spectrum of a photograph; every seed gives another one."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) / frequency[:, :, None] ** 1.2, axes=(0, 1)).real
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def frames(seed: int, count: int = 8) -> list[Pixels]:
    """The frames of one clip: an image that slowly turns into another."""
    first, last = image(2 * seed).astype(float), image(2 * seed + 1).astype(float)
    return [np.asarray(first + (last - first) * k / max(count - 1, 1), dtype=np.uint8) for k in range(count)]


def encoded(frame: Pixels, *, size: tuple[int, int] | None = None, quality: int = 90) -> bytes:
    """The frame as JPEG, scaled to ``size`` (width, height)."""
    image = Image.fromarray(frame)
    stream = io.BytesIO()
    (image.resize(size, Image.Resampling.BICUBIC) if size else image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def clip_of(images: Sequence[Pixels], *, clip_id: str = "toy", **fields: Any) -> Clip:
    """A clip with ``images`` as its stored frames and ``fields`` as its columns."""
    clip = Clip(clip_id=clip_id, **fields)
    for k, frame in enumerate(images):
        clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=encoded(frame), time_s=float(k)))
    return clip
