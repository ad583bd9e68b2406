"""Augmentations of training samples: a resized crop, changes of colour, and the masks of SpecAugment.

Each makes all of its draws from the sample's random generator, in the worker process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.float32]
Change = Callable[[Pixels, float], Pixels]

# As torchvision's RandomResizedCrop.
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


def random_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draw the top, left, height and width of a resized crop; None if ten tries give none that fits.

    ``scale`` bounds its area, as a share of the largest square in the frame. Of a square frame the boxes are those of
    torchvision's RandomResizedCrop. Of a frame of 16:9 no box of 90 % of the area, which that one would look for, has a
    ratio of at most 4:3.
    """
    low, high = map(math.log, _ASPECT_RATIOS)
    for _ in range(_TRIES):
        area = min(height, width) ** 2 * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(low, high))
        box_height, box_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return None


class ColourJitter(BaseModel):
    """Random changes of colour, each with one factor for all frames of a clip, in random order (ColorJitter)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brightness: float = Field(0.0, ge=0, le=1)
    """The factor on the brightness is drawn from 1 ± this."""
    contrast: float = Field(0.0, ge=0, le=1)
    """The factor on the contrast, about each frame's mean, is drawn from 1 ± this."""
    saturation: float = Field(0.0, ge=0, le=1)
    """The factor on the saturation is drawn from 1 ± this."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """The hue is turned by up to this share of the colour circle, in either direction."""

    def __call__(self, frames_THWC: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Return changed copies of frames (t, h, w, 3)."""
        changes: list[tuple[Change, float]] = [
            (_brighten, self.brightness),
            (_stretch, self.contrast),
            (_saturate, self.saturation),
        ]
        drawn = [(change, rng.uniform(1 - width, 1 + width)) for change, width in changes if width > 0]
        if self.hue > 0:
            drawn.append((_turn, rng.uniform(-self.hue, self.hue)))
        order = rng.permutation(len(drawn))
        changed = np.empty_like(frames_THWC, order="C")
        # One by one: the float32 pixels of a frame stay in the processor's cache.
        for frame, result in zip(frames_THWC, changed, strict=True):
            pixels = frame.astype(np.float32, order="C")
            for change, amount in (drawn[k] for k in order):
                pixels = change(pixels, amount)
                np.clip(pixels, 0, 255, out=pixels)
            np.rint(pixels, out=result, casting="unsafe")
        return changed


def _brighten(pixels_HWC: Pixels, factor: float) -> Pixels:
    return np.multiply(pixels_HWC, factor, dtype=np.float32)


def _stretch(pixels_HWC: Pixels, factor: float) -> Pixels:
    return _blended(pixels_HWC, cv2.mean(_grey(pixels_HWC))[0], factor)


def _saturate(pixels_HWC: Pixels, factor: float) -> Pixels:
    return _blended(pixels_HWC, _grey(pixels_HWC)[..., None], factor)


def _blended(pixels_HWC: Pixels, other: Pixels | float, factor: float) -> Pixels:
    """Return what lies ``factor`` of the way from ``other`` to the pixels, beyond them above 1."""
    return pixels_HWC * np.float32(factor) + np.multiply(other, 1 - factor, dtype=np.float32)


def _turn(pixels_HWC: Pixels, share: float) -> Pixels:
    hsv = np.asarray(cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2HSV), np.float32)
    # In degrees, and not negative: OpenCV wraps larger angles only.
    hsv[..., 0] += np.float32(360 * (share % 1))
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def _grey(pixels_HWC: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY), np.float32)


def mask_random_bands(mels: Tensor, axis: int, widest: int, count: int, rng: np.random.Generator) -> None:
    """Set ``count`` bands along ``axis`` of normalised spectrograms to their mean of 0 (Park et al., 2019).

    Each is 0 to ``widest`` wide, or at most the whole axis. They are the same for all spectrograms: the crops of a clip
    overlap, so that one would show what another masks.
    """
    size = mels.shape[axis]
    for _ in range(count):
        width = int(rng.integers(min(widest, size) + 1))
        start = int(rng.integers(size - width + 1))
        mels.narrow(axis, start, width).zero_()
