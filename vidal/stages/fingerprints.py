"""Perceptual hashes of the stored frames, for finding near-duplicates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft
from PIL import Image
from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage

HEX_DIGITS = 16
"""Number of hex digits of one frame's 64-bit hash."""

NO_INFORMATION = "0" * HEX_DIGITS
"""Hash of a black or flat frame; other frames never have it, as half the bits of their hash are set."""


class Fingerprints(Stage):
    """Writes ``frame_hash``: the 64-bit pHash of each stored frame, in order, as one string of hex digits.

    Frames whose brightness has a standard deviation below ``min_contrast`` (grey levels of 255) get `NO_INFORMATION`:
    their hash would be noise, and every fade to black would match.
    """

    reads = ("video",)
    writes = ("frame_hash",)
    imports = ("scipy",)
    min_contrast: float = Field(4.0, ge=0)
    """Smallest standard deviation of a frame's brightness, in grey levels of 255."""

    def process(self, clip: Clip) -> None:
        clip.frame_hash = "".join(frame_hash(frame, self.min_contrast) for frame in clip.work.frames()) or None


def frame_hash(frame: npt.NDArray[np.uint8], min_contrast: float = 4.0) -> str:
    """Return the DCT pHash of an RGB frame (h, w, 3) uint8, identical to ``phash`` of the ``imagehash`` package.

    The bits state whether each of the 8 x 8 lowest frequencies of the frame, scaled to 32 x 32 pixels, is above their
    median, so that scaling, compression, brightness and contrast change few of them.
    """
    small = np.asarray(Image.fromarray(frame).convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    if small.std() < min_contrast:
        return NO_INFORMATION
    # The constant term stays among the 64 frequencies, as in imagehash.
    low = scipy.fft.dctn(small, type=2)[:8, :8]
    return np.packbits(low > np.median(low)).tobytes().hex()
