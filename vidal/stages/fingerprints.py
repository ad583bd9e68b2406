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
"""Digits of one frame's hash: 64 bits."""

NO_INFORMATION = "0" * HEX_DIGITS
"""Hash of a black or flat frame. No other frame has it: half the bits of a real hash are set."""


class Fingerprints(Stage):
    """Writes ``frame_hash``: the 64-bit pHash of each stored frame, in order, as one string of hex digits.

    A frame whose brightness varies by less than ``min_contrast`` (standard deviation, of 255) gets
    `NO_INFORMATION`: what is left of it is noise, and would make every fade to black a match.
    """

    reads = ("video",)
    writes = ("frame_hash",)
    imports = ("scipy",)
    min_contrast: float = Field(4.0, ge=0)

    def process(self, clip: Clip) -> None:
        clip.frame_hash = "".join(frame_hash(frame, self.min_contrast) for frame in clip.work.frames()) or None


def frame_hash(frame: npt.NDArray[np.uint8], min_contrast: float = 4.0) -> str:
    """The DCT pHash of an RGB frame, with the bits and the digits of the ``imagehash`` package's ``phash``.

    Only the 8 x 8 lowest frequencies of a 32 x 32 picture count, each as above or below the median, so
    scale, compression, brightness and contrast change few bits.
    """
    small = np.asarray(Image.fromarray(frame).convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    if small.std() < min_contrast:
        return NO_INFORMATION
    low = scipy.fft.dctn(small, type=2)[:8, :8]
    return np.packbits(low > np.median(low)).tobytes().hex()
