"""`ImageModality`: a modality of frames, and `ImageTransform`, LanguageBind's preprocessing of them.

Images are resized bicubically with antialias, by torch: on bytes within one grey value (two where they grow) of what
open_clip's transform makes with PIL, in less than half of its time, and on metres without rounding. Without antialias
fine texture would turn into patterns that depend on the stored size.

Shape letters: T frames, C channels, H and W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from vidal.errors import ClipError
from vidal.modality.image_bytes import decode_image
from vidal.modality.modality import Array, Modality, Rng, Shown, Transform

if TYPE_CHECKING:
    # Readers import this module, and do without torch.
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
AS_STORED = cv2.IMREAD_UNCHANGED

_NAME = re.compile(r"(?:([a-z]+)(?:\.?([0-9]{1,6}))?\.)?([a-z]+)", re.ASCII)
"""``STEM.3.jpg``, ``STEM3.jpg``, ``STEM.jpg`` or plain ``jpg``."""
_PROMPTS = (
    "{c}", "a {w} of a {c}.", "a {w} of the {c}.", "a good {w} of a {c}.", "a blurry {w} of a {c}.",
    "a close-up {w} of a {c}.", "a dark {w} of the {c}.", "a bright {w} of the {c}.", "a cropped {w} of a {c}.",
    "a {w} of one {c}.", "a {w} of many {c}.", "a {w} of a large {c}.", "a {w} of a small {c}.",
)  # fmt: skip


class ImageTransform(Transform):
    """A square of each frame, three channels: the middle frame and the centre, or what the generator draws."""

    size: int = Field(224, ge=8)
    """Of the square that a tower sees."""
    frames: int = Field(1, ge=1)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    crop: Literal["random", "centre"] = "centre"
    """In training; evaluation always takes the centre."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image in training."""

    white: ClassVar[float] = 255.0
    """What 1.0 is in `planes`."""

    @classmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        return {"size": height} | ({} if frames is None else {"frames": frames})

    @property
    def input_shape(self) -> tuple[int, ...]:
        time = (self.frames,) if self.frames > 1 else ()
        return (3, *time, self.size, self.size)

    def frames_to_read(self, stored: int, rng: Rng, frame: int | None = None) -> list[int]:
        """Which of the stored frames are wanted: evenly spread, or one, which ``frame`` or the generator names."""
        if self.frames > stored:
            raise ClipError("too_few_frames", f"{stored} frames are stored, {self.frames} are wanted")
        if self.frames > 1 or stored == 1:
            return [int((2 * k + 1) * stored // (2 * self.frames)) for k in range(self.frames)]
        if rng is None:
            return [stored // 2]
        return [frame if frame is not None and frame < stored else int(rng.integers(stored))]

    def __call__(self, array: Array, rng: Rng) -> Tensor:
        """Frames (t, h, w[, 3]) to (3, h, w), or (3, t, h, w) for more than one frame."""
        import torch

        planes_TCHW = _resized(self.planes(array), self.size)
        top, left = self._corner(planes_TCHW.shape[2:], rng)
        square_TCHW = planes_TCHW[:, :, top : top + self.size, left : left + self.size]
        if rng is not None and rng.random() < self.flip:
            square_TCHW = self.mirrored(square_TCHW)
        # One copy to float32 in the tower's layout, then in place: this is a quarter of a clip's time otherwise.
        pixels = torch.empty(3, len(square_TCHW), self.size, self.size)
        pixels.copy_(square_TCHW.transpose(0, 1))
        mean, std = (torch.tensor(of).mul(self.white)[:, None, None, None] for of in (self.mean, self.std))
        pixels.sub_(mean).div_(std)
        return pixels if self.frames > 1 else pixels[:, 0]

    def planes(self, array: Array) -> Tensor:
        """Frames (t, h, w[, 3]) to (t, c, h, w), c being 3, or 1 for three equal channels."""
        import torch

        planes = torch.from_numpy(array)
        return planes.permute(0, 3, 1, 2) if planes.ndim == 4 else planes[:, None]

    def mirrored(self, planes_TCHW: Tensor) -> Tensor:
        """The mirror image, for a modality whose values have a direction too."""
        return planes_TCHW.flip(3)

    def _corner(self, hw: Sequence[int], rng: Rng) -> tuple[int, int]:
        """Top and left of the square, the same for all frames of a clip."""
        if rng is not None and self.crop == "random":
            top, left = (int(rng.integers(side - self.size + 1)) for side in hw)
        else:
            top, left = (round((side - self.size) / 2) for side in hw)
        return top, left


class ImageModality(Modality):
    """Frames as image members, ``STEM.3.png``; a subclass names the stem, the endings and the word of its prompts.

    Foreign tars may write ``STEM3.png``, or ``STEM.png`` for a clip of one image.
    """

    stems: ClassVar[tuple[str, ...]]
    """Vidal's own stem, then those of foreign tars; lower case letters."""
    endings: ClassVar[tuple[str, ...]] = ("jpg", "jpeg", "png")
    transform: ClassVar[type[Transform]] = ImageTransform
    flags: ClassVar[int] = COLOUR
    """How OpenCV reads an image."""
    word: ClassVar[str]
    """What its images are called in the prompts: a ``depth photo`` of a dog."""

    @property
    def prompts(self) -> Sequence[str]:
        return [template.replace("{w}", self.word) for template in _PROMPTS]

    def takes(self, suffix: str) -> bool:
        return self.frame_number(suffix) is not None

    def frame_number(self, suffix: str) -> int | None:
        """3 of ``depth.3.png`` and ``depth3.png``, 0 of ``depth.png``; None for what is no frame of the modality."""
        found = _NAME.fullmatch(suffix.lower())
        if found is None or found[3] not in self.endings or not self.is_stem(found[1]):
            return None
        return int(found[2] or 0)

    def is_stem(self, stem: str | None) -> bool:
        """Whether a member of this stem is a frame; None stands for a member that is named by its ending alone."""
        return stem in self.stems

    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        return dict(sorted((number, s) for s in suffixes if (number := self.frame_number(s)) is not None))

    def decode(self, members: Mapping[str, bytes]) -> Array:
        """Frames (t, h, w[, 3]), in order of time."""
        suffixes = list(self.members(list(members)).values())
        if not suffixes:
            raise ClipError("undecodable", f"no {self.layer} picture among {', '.join(members) or 'no members'}")
        images = [self.decode_image(members[suffix], suffix) for suffix in suffixes]
        if len({image.shape for image in images}) > 1:
            raise ClipError("undecodable", f"{self.layer} pictures of different sizes")
        return np.stack(images)

    def decode_image(self, data: bytes, suffix: str) -> Array:
        """One frame; raises `ClipError` where it is damaged, too large, or not of the modality's kind."""
        return decode_image(data, suffix, self.flags)

    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        return Shown(images=list(array if array.ndim == 4 else np.repeat(array[..., None], 3, axis=3)))


def _resized(planes_TCHW: Tensor, size: int) -> Tensor:
    """The short side brought to ``size``."""
    import torch.nn.functional as F

    height, width = planes_TCHW.shape[2:]
    short, long = min(height, width), max(height, width)
    if short == size:
        return planes_TCHW
    other = int(size * long / short)
    target = (size, other) if height <= width else (other, size)
    return F.interpolate(planes_TCHW, target, mode="bicubic", antialias=True)
