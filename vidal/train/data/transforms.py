"""What each modality's arrays become before a tower sees them: LanguageBind's preprocessing.

With a generator a transform draws (training); without one it is a function of its input (evaluation). Pictures are
resized with OpenCV: area averaging where they shrink, so that nothing aliases, and bicubic where they grow.

Shape letters: t frames, h and w pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vidal.errors import ClipError
from vidal.train.data.fbank import fbank
from vidal.work import SAMPLE_RATE

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Array = npt.NDArray[Any]
Rng = np.random.Generator | None


class PictureTransform(BaseModel):
    """What pictures have in common."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(224, ge=8)
    """Of the square that a tower sees."""
    frames: int = Field(1, ge=1)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    crop: Literal["random", "centre"] = "centre"
    """In training; evaluation always takes the centre."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image in training."""

    def frames_to_read(self, stored: int, rng: Rng, frame: int | None = None) -> list[int]:
        """Which of the stored frames are wanted: evenly spread, or one, which ``frame`` or the generator names."""
        if self.frames > stored:
            raise ClipError("too_few_frames", f"{stored} frames are stored, {self.frames} are wanted")
        if self.frames > 1 or stored == 1:
            return [int((2 * k + 1) * stored // (2 * self.frames)) for k in range(self.frames)]
        if rng is None:
            return [stored // 2]
        return [frame if frame is not None and frame < stored else int(rng.integers(stored))]

    def __call__(self, pictures: Array, rng: Rng) -> Tensor:
        """Frames (t, h, w[, 3]) to (3, h, w), or (3, t, h, w) for more than one frame."""
        planes = self._planes(pictures)
        top, left, edge = self._crop_of(planes.shape[1:3], rng)
        squares = np.stack([_resized(p[top : top + edge, left : left + edge], self.size) for p in planes])
        if rng is not None and rng.random() < self.flip:
            squares = squares[:, :, ::-1]
        squares = squares[..., None] if squares.ndim == 3 else squares
        values = (squares - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 0, 1, 2), np.float32))
        return pixels if self.frames > 1 else pixels[:, 0]

    def _planes(self, pictures: Array) -> npt.NDArray[np.float32]:
        """(t, h, w[, 3]) with values in [0, 1]."""
        return np.asarray(pictures, np.float32) / np.float32(255)

    def _crop_of(self, hw: Sequence[int], rng: Rng) -> tuple[int, int, int]:
        """Top, left and edge of the square that is cut out before it is resized: the same pixels, fewer of them."""
        edge = min(hw)
        if rng is not None and self.crop == "random":
            top, left = (int(rng.integers(side - edge + 1)) for side in hw)
        else:
            top, left = ((side - edge) // 2 for side in hw)
        return top, left, edge


class VideoTransform(PictureTransform):
    """8 frames, a random crop and a mirror image, the same for all of them."""

    frames: int = Field(8, ge=1)
    crop: Literal["random", "centre"] = "random"
    flip: float = Field(0.5, ge=0, le=1)


class DepthTransform(PictureTransform):
    """Metres, clipped to ``max_m`` and brought to [0, 1], as three equal channels."""

    max_m: float = Field(10.0, gt=0)
    min_m: float = Field(0.01, ge=0)

    def _planes(self, pictures: Array) -> npt.NDArray[np.float32]:
        metres = np.asarray(pictures, np.float32) / np.float32(1000)
        return np.asarray(metres.clip(self.min_m, self.max_m) / np.float32(self.max_m), np.float32)


class InfraredTransform(PictureTransform):
    """One channel as three equal ones."""


class AudioTransform(BaseModel):
    """Log mel filter banks of three crops, front, middle and back, as three channels: (3, mel_bins, length)."""

    model_config = ConfigDict(extra="forbid")

    mel_bins: int = Field(126, ge=8)
    length: int = Field(1036, ge=8)
    """Steps of 10 ms in each crop."""
    mean: float = -4.2677393
    std: float = 4.5689974

    def __call__(self, samples: Array, rng: Rng) -> Tensor:
        sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        sound = sound - sound.mean() if len(sound) else sound
        mels = fbank(sound, mel_bins=self.mel_bins, sample_rate=SAMPLE_RATE).T
        if mels.shape[1] == 0:
            raise ClipError("too_short", f"{len(samples)} samples of sound are less than a window")
        if mels.shape[1] < self.length:
            # Short sounds are repeated, and are then the same in every crop.
            mels = mels.repeat(1, -(-self.length // mels.shape[1]))[:, : self.length]
        crops = [mels[:, start : start + self.length] for start in self._starts(mels.shape[1], rng)]
        return (torch.stack(crops) - self.mean) / (2 * self.std)

    def _starts(self, steps: int, rng: Rng) -> list[int]:
        """Where the crops begin: one in each third of the places that there are."""
        thirds = np.array_split(np.arange(steps - self.length + 1), 3)
        thirds = [third if len(third) else thirds[0] for third in thirds]
        return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]


Transform = VideoTransform | DepthTransform | InfraredTransform | AudioTransform

TRANSFORMS: dict[str, type[VideoTransform | DepthTransform | InfraredTransform | AudioTransform]] = {
    "video": VideoTransform,
    "depth": DepthTransform,
    "infrared": InfraredTransform,
    "audio": AudioTransform,
}


def _resized(picture: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    if picture.shape[:2] == (size, size):
        return picture
    how = cv2.INTER_AREA if picture.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size, size), interpolation=how), np.float32)
