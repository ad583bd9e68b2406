"""The video modality: the colour frames of a clip, stored next to the MP4 file."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from vidal.modality.augment import ColourJitter
from vidal.modality.image import ImageModality, ImageTransform
from vidal.modality.modality import Array, Prepared, Rng

UNCHANGED = ColourJitter()


class VideoTransform(ImageTransform):
    """Preprocessing of video: in training, the random crop, flip and colours are the same for all frames."""

    frames: int = Field(8, ge=1)
    """Frames of each clip, spread over it."""
    crop: Literal["random", "centre"] = "random"
    """Position of the crop in training; in evaluation it is always the centre."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip in training."""
    colour_jitter: ColourJitter = Field(UNCHANGED, exclude_if=lambda jitter: jitter == UNCHANGED)
    """Random changes of colour in training, all 0 (off) by default; in the order of torchvision's ColorJitter, a random
    one."""

    def prepare(self, array: Array, rng: Rng) -> Prepared:
        prepared = super().prepare(array, rng)
        if rng is None or self.colour_jitter == UNCHANGED:
            return prepared
        import torch

        return replace(prepared, values=torch.from_numpy(self.colour_jitter(prepared.values.numpy(), rng)))


class Video(ImageModality):
    """Members ``frame.3.jpg`` and ``mp4``; the frames decode to (t, h, w, 3) uint8 RGB."""

    layer = "video"
    # A member named just ``jpg`` is a photograph.
    stems = ("frame", "frm", None)
    transform: ClassVar[type[VideoTransform]] = VideoTransform
    word = "video"
    heading = "colour"

    def takes(self, suffix: str) -> bool:
        return super().takes(suffix) or suffix.lower().rpartition(".")[2] == "mp4"


VIDEO = Video()
