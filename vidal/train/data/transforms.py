"""What each modality's arrays become before a tower sees them: LanguageBind's preprocessing.

With a generator a transform draws (training); without one it is a function of its input (evaluation): the middle frame,
the centre, the middle of each third of a sound.

Pictures are resized bicubically with antialias, by torch: on bytes within one grey value (two where they grow) of what
open_clip's transform makes with PIL, in less than half of its time, and on metres without rounding. Without antialias
fine texture would turn into patterns that depend on the stored size.

Shape letters: T frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vidal.errors import ClipError
from vidal.train.data.fbank import fbank, window_and_step
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
        planes_TCHW = _resized(self._planes(pictures), self.size)
        top, left = self._corner(planes_TCHW.shape[2:], rng)
        square_TCHW = planes_TCHW[:, :, top : top + self.size, left : left + self.size]
        if rng is not None and rng.random() < self.flip:
            square_TCHW = square_TCHW.flip(3)
        # One copy to float32 in the tower's layout, then in place: this is a quarter of a clip's time otherwise.
        pixels = torch.empty(3, len(square_TCHW), self.size, self.size)
        pixels.copy_(square_TCHW.transpose(0, 1))
        mean, std = (torch.tensor(of).mul(self._white)[:, None, None, None] for of in (self.mean, self.std))
        pixels.sub_(mean).div_(std)
        return pixels if self.frames > 1 else pixels[:, 0]

    @property
    def _white(self) -> float:
        """What 1.0 is in `_planes`."""
        return 255.0

    def _planes(self, pictures: Array) -> Tensor:
        """(t, h, w[, 3]) to (t, c, h, w)."""
        planes = torch.from_numpy(pictures)
        return planes.permute(0, 3, 1, 2) if planes.ndim == 4 else planes[:, None]

    def _corner(self, hw: Sequence[int], rng: Rng) -> tuple[int, int]:
        """Top and left of the square, the same for all frames of a clip."""
        if rng is not None and self.crop == "random":
            top, left = (int(rng.integers(side - self.size + 1)) for side in hw)
        else:
            top, left = (round((side - self.size) / 2) for side in hw)
        return top, left


class VideoTransform(PictureTransform):
    """8 frames, a random crop and a mirror image, the same for all of them."""

    frames: int = Field(8, ge=1)
    crop: Literal["random", "centre"] = "random"
    flip: float = Field(0.5, ge=0, le=1)


class DepthTransform(PictureTransform):
    """Metres, clipped to ``max_m`` and brought to [0, 1], as three equal channels."""

    max_m: float = Field(10.0, gt=0)
    min_m: float = Field(0.01, ge=0)

    @property
    def _white(self) -> float:
        return 1.0

    def _planes(self, pictures: Array) -> Tensor:
        millimetres = torch.from_numpy(np.array(pictures, np.float32))
        return millimetres.clamp_(1000 * self.min_m, 1000 * self.max_m).div_(1000 * self.max_m)[:, None]


class InfraredTransform(PictureTransform):
    """One channel as three equal ones; a stored picture of three is taken by its brightness (`decode`)."""


class AudioTransform(BaseModel):
    """Log mel filter banks of three crops, front, middle and back, as three channels: (3, mel_bins, length)."""

    model_config = ConfigDict(extra="forbid")

    mel_bins: int = Field(126, ge=8)
    length: int = Field(1036, ge=8)
    """Steps of 10 ms in each crop."""
    mean: float = -4.2677393
    std: float = 4.5689974

    def __call__(self, samples: Array, rng: Rng) -> Tensor:
        sound = torch.from_numpy(np.array(samples, np.float32))
        window, step = window_and_step(SAMPLE_RATE)
        steps = 1 + (len(sound) - window) // step
        if steps < 1:
            raise ClipError("too_short", f"{len(samples)} samples of sound are less than a window")
        sound -= sound.mean()
        starts = self._starts(max(steps, self.length), rng)
        if steps > 3 * self.length:
            # A long sound costs no more than its three crops.
            span = (self.length - 1) * step + window
            crops = self._mels(torch.stack([sound[start * step : start * step + span] for start in starts]))
        else:
            mels = self._mels(sound)
            # Short sounds are repeated, and are then the same in every crop.
            mels = mels.repeat(1, -(-self.length // steps))[:, : max(steps, self.length)]
            crops = torch.stack([mels[:, start : start + self.length] for start in starts])
        return (crops - self.mean) / (2 * self.std)

    def _mels(self, sound: Tensor) -> Tensor:
        return fbank(sound, mel_bins=self.mel_bins, sample_rate=SAMPLE_RATE).transpose(-1, -2)

    def _starts(self, steps: int, rng: Rng) -> list[int]:
        """Where the crops begin: one in each third of the places that there are, at evaluation in its middle."""
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


def _resized(planes_TCHW: Tensor, size: int) -> Tensor:
    """The short side brought to ``size``."""
    height, width = planes_TCHW.shape[2:]
    short, long = min(height, width), max(height, width)
    if short == size:
        return planes_TCHW
    other = int(size * long / short)
    target = (size, other) if height <= width else (other, size)
    return F.interpolate(planes_TCHW, target, mode="bicubic", antialias=True)
