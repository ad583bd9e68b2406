"""`ImageModality`, a modality of frames, and `ImageTransform`, LanguageBind's preprocessing of frames.

A worker process decodes, resizes and crops; the device mirrors and normalises. Images are resized by torch, bicubically
with antialiasing. On 8-bit images the result is within 1 grey value (2 when
enlarging) of open_clip's transform with PIL, in less than half the time; depth is resized without rounding. Without
antialiasing, fine texture would cause moiré that depends on the stored size.

Shape suffixes of variables: T frames, C channels, H and W pixels.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field, field_validator

from vidal.errors import ClipError
from vidal.modality.augment import random_box
from vidal.modality.image_bytes import decode_image
from vidal.modality.modality import Array, DeviceTransform, Modality, Prepared, Rng, Shown, Transform

if TYPE_CHECKING:
    # Readers import this module and do not need torch.
    import torch
    from torch import Tensor

# Of the images that OpenAI trained CLIP on; models that start from its weights expect them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
# This flag ignores the EXIF rotation by itself.
AS_STORED = cv2.IMREAD_UNCHANGED

_NAME = re.compile(r"(?:([a-z]+)(?:\.?([0-9]{1,6}))?\.)?([a-z]+)", re.ASCII)
"""``STEM.3.jpg``, ``STEM3.jpg``, ``STEM.jpg`` or plain ``jpg``."""
_PROMPTS = (
    "{c}", "a {w} of a {c}.", "a {w} of the {c}.", "a good {w} of a {c}.", "a blurry {w} of a {c}.",
    "a close-up {w} of a {c}.", "a dark {w} of the {c}.", "a bright {w} of the {c}.", "a cropped {w} of a {c}.",
    "a {w} of one {c}.", "a {w} of many {c}.", "a {w} of a large {c}.", "a {w} of a small {c}.",
)  # fmt: skip


class ImageTransform(DeviceTransform):
    """A normalised square crop of each frame: (3, size, size) float32, or (3, frames, size, size) if ``frames`` > 1."""

    size: int = Field(224, ge=8)
    """Side of the square in pixels."""
    frames: int = Field(1, ge=1)
    """Frames of each clip, spread over it."""
    mean: tuple[float, float, float] = CLIP_MEAN
    """Mean of each channel, subtracted."""
    std: tuple[float, float, float] = CLIP_STD
    """Standard deviation of each channel, divided by."""
    crop: Literal["random", "centre"] = "centre"
    """Position of the crop in training; in evaluation it is always the centre."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip in training."""
    # An augmentation that is off is not in an encoder's record, by which embeddings say how they were made: those made
    # before it existed stay comparable.
    scale: tuple[float, float] | None = Field(None, exclude_if=lambda scale: scale is None)
    """In training, crop a box of random place and size, and of a ratio of 3:4 to 4:3, that is resized to the square:
    the least and the largest share of the area of the largest square, such as [0.9, 1.0]. Null: off."""
    frame_choice: Literal["even", "random"] = Field("even", exclude_if=lambda choice: choice == "even")
    """With several frames, `random` takes one anywhere in each of as many equal parts of the clip in training (Wang et
    al., 2016, TSN); `even`, and evaluation, the middle one."""

    white: ClassVar[float] = 255.0
    """The value in `unpacked` planes that corresponds to 1.0 of ``mean`` and ``std``."""
    channels: ClassVar[int] = 3
    """3, or 1 where the tower gets three equal channels."""

    @field_validator("scale")
    @classmethod
    def _bounds_shares(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("`scale` is the least and the largest share of an area, such as [0.9, 1.0]")
        return scale

    @classmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        return {"size": height} | ({} if frames is None else {"frames": frames})

    @property
    def input_shape(self) -> tuple[int, ...]:
        time = (self.frames,) if self.frames > 1 else ()
        return (3, *time, self.size, self.size)

    def frames_to_read(self, stored: int, rng: Rng, frame: int | None = None) -> list[int]:
        """Return one index of each equal part; for one frame ``frame``, else a random one.

        Without ``rng``, and by default, it is the middle one of the part. Raises `ClipError` if too few are stored.
        """
        if self.frames > stored:
            raise ClipError("too_few_frames", f"{stored} frames are stored, {self.frames} are required")
        if self.frames > 1 and rng is not None and self.frame_choice == "random":
            bounds = [k * stored // self.frames for k in range(self.frames + 1)]
            return [int(rng.integers(first, end)) for first, end in itertools.pairwise(bounds)]
        if self.frames > 1 or stored == 1:
            return [int((2 * k + 1) * stored // (2 * self.frames)) for k in range(self.frames)]
        if rng is None:
            return [stored // 2]
        return [frame if frame is not None and frame < stored else int(rng.integers(stored))]

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        return (self.frames, self.size, self.size, self.channels)

    @property
    def prepared_dtype(self) -> str:
        return "uint8"

    def prepare(self, array: Array, rng: Rng) -> Prepared:
        """Resize and crop frames (t, h, w[, 3]) to (t, size, size, channels)."""
        planes_TCHW = self.planes(array)
        height, width = planes_TCHW.shape[2:]
        box = random_box(height, width, self.scale, rng) if rng is not None and self.scale else None
        if box is not None:
            top, left, height, width = box
            planes_TCHW = planes_TCHW[:, :, top : top + height, left : left + width]
            square_TCHW = _resized(planes_TCHW, self.size, self.size)
        else:
            square_TCHW = self._square(planes_TCHW, rng)
        is_mirrored = rng is not None and rng.random() < self.flip
        return Prepared(self.packed(square_TCHW).permute(0, 2, 3, 1), is_mirrored)

    def _square(self, planes_TCHW: Tensor, rng: Rng) -> Tensor:
        """Resize the shorter side to `size` and crop the longer one."""
        height, width = planes_TCHW.shape[2:]
        short, long = min(height, width), max(height, width)
        # As torchvision's Resize: the shorter side is `size`, the longer one is rounded down.
        other = int(self.size * long / short)
        planes_TCHW = _resized(planes_TCHW, *((self.size, other) if height <= width else (other, self.size)))
        if rng is not None and self.crop == "random":
            top, left = (int(rng.integers(side - self.size + 1)) for side in planes_TCHW.shape[2:])
        else:
            top, left = (round((side - self.size) / 2) for side in planes_TCHW.shape[2:])
        return planes_TCHW[:, :, top : top + self.size, left : left + self.size]

    def finish(self, values: Tensor, mirrored: Tensor | None) -> Tensor:
        """Mirror, convert to float32 and normalise (b, t, size, size, channels) to the tower's input."""
        import torch

        planes = self.unpacked(values.flatten(0, 1).permute(0, 3, 1, 2))
        if mirrored is not None and self.flip > 0:
            of_frame = mirrored[:, None].expand(-1, self.frames).reshape(-1, 1, 1, 1)
            planes = torch.where(of_frame, self.mirrored(planes), planes)
        # One copy to float32 in the tower's layout, then in place.
        pixels = torch.empty(len(values), 3, *values.shape[1:4], device=values.device)
        pixels.copy_(planes.reshape(*values.shape[:2], *planes.shape[1:]).transpose(1, 2))
        mean, std = (_per_channel(of, self.white, values.device) for of in (self.mean, self.std))
        pixels.sub_(mean).div_(std)
        return pixels if self.frames > 1 else pixels[:, :, 0]

    def planes(self, array: Array) -> Tensor:
        """Convert frames (t, h, w[, 3]) to (t, channels, h, w)."""
        import torch

        planes = torch.from_numpy(array)
        return planes.permute(0, 3, 1, 2) if planes.ndim == 4 else planes[:, None]

    def packed(self, planes: Tensor) -> Tensor:
        """Convert resized planes to `prepared_dtype`."""
        return planes

    def unpacked(self, planes: Tensor) -> Tensor:
        """Convert planes of `prepared_dtype` to those that are mirrored and normalised."""
        return planes

    def mirrored(self, planes_TCHW: Tensor) -> Tensor:
        """Flip frames, of any clips; overridden by modalities whose values have a direction, such as normals."""
        return planes_TCHW.flip(3)


def _resized(planes_TCHW: Tensor, height: int, width: int) -> Tensor:
    import torch.nn.functional as F

    if planes_TCHW.shape[2:] == (height, width):
        return planes_TCHW
    return F.interpolate(planes_TCHW, (height, width), mode="bicubic", antialias=True)


@functools.lru_cache(maxsize=1024)
def _frame_number(suffix: str, stems: tuple[str | None, ...], endings: tuple[str, ...]) -> int | None:
    """Kept, as all clips have the same few suffixes."""
    match = _NAME.fullmatch(suffix.lower())
    if match is None or match[3] not in endings or match[1] not in stems:
        return None
    return int(match[2] or 0)


@functools.lru_cache(maxsize=64)
def _per_channel(values: tuple[float, float, float], white: float, device: torch.device) -> Tensor:
    """``values`` times ``white`` as (3, 1, 1, 1); kept, as a copy to a GPU makes the CPU wait."""
    import torch

    return torch.tensor(values).mul(white)[:, None, None, None].to(device)


class ImageModality(Modality):
    """A modality stored as image members named ``STEM.3.png``.

    A subclass sets `layer`, `stems` and `word`. Tar files of other tools may name members ``STEM3.png``, or
    ``STEM.png`` for a single image.
    """

    stems: ClassVar[tuple[str | None, ...]]
    """The stem that vidal writes, then those of other tools' tar files; lower-case letters, None for plain ``jpg``."""
    endings: ClassVar[tuple[str, ...]] = ("jpg", "jpeg", "png")
    transform: ClassVar[type[Transform]] = ImageTransform
    flags: ClassVar[int] = COLOUR
    """OpenCV flags for decoding an image."""
    word: ClassVar[str]
    """The word for an image in the prompts: "a ``depth photo`` of a dog"."""

    @property
    def prompts(self) -> Sequence[str]:
        # Not `format`: the templates have a {c} for the name of the class, too.
        return [template.replace("{w}", self.word) for template in _PROMPTS]

    def takes(self, suffix: str) -> bool:
        return self.frame_number(suffix) is not None

    def frame_number(self, suffix: str) -> int | None:
        """Return 3 for ``depth.3.png`` or ``depth3.png``, 0 for ``depth.png``, None for members of other modalities."""
        return _frame_number(suffix, self.stems, self.endings)

    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        return dict(sorted((number, s) for s in suffixes if (number := self.frame_number(s)) is not None))

    def decode(self, members: Mapping[str, bytes]) -> Array:
        """Decode the frames to (t, h, w[, 3]), in temporal order; raises `ClipError` for damaged ones, or none."""
        suffixes = list(self.members(list(members)).values())
        if not suffixes:
            raise ClipError("undecodable", f"no {self.layer} image among: {', '.join(members) or 'none'}")
        images = [self.decode_image(members[suffix], suffix) for suffix in suffixes]
        if len({image.shape for image in images}) > 1:
            raise ClipError("undecodable", f"{self.layer} images of different sizes")
        # One alone is not copied, which would take as long as all else but decoding. By `reshape` it has the strides of
        # several: with the stride 0 of a new axis, torch would take packed colours for planes, and rearrange them.
        return np.stack(images) if len(images) > 1 else images[0].reshape(1, *images[0].shape)

    def decode_image(self, data: bytes, suffix: str) -> Array:
        """Decode one frame; raises `ClipError` if it is damaged, too large or not of the modality's format."""
        return decode_image(data, suffix, self.flags)

    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        return Shown(images=list(array if array.ndim == 4 else np.repeat(array[..., None], 3, axis=3)))
