"""The depth modality: 16-bit grey images in millimetres, or the NumPy arrays of LanguageBind's tar files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from vidal.errors import ClipError, one_line
from vidal.modality.image import AS_STORED, ImageModality, ImageTransform
from vidal.modality.image_bytes import MAX_PIXELS
from vidal.modality.modality import Array, Shown

if TYPE_CHECKING:
    from torch import Tensor


# Resized depth travels as a 16-bit number of steps, each a 40,000th of `max_m`: a quarter of a millimetre of 10 m. They
# reach as far as a bicubic filter can overshoot, 9/32 of the range on either side.
_STEPS = 40_000
# Signed, since torch has few operations on uint16.
_ZERO = -20_000


class DepthTransform(ImageTransform):
    """Depth in metres, clipped to [``min_m``, ``max_m``] and divided by ``max_m``, as three equal channels."""

    # LanguageBind's range.
    max_m: float = Field(10.0, gt=0)
    """Depth in metres that becomes white; larger depths are clipped to it."""
    min_m: float = Field(0.01, ge=0)
    """Depth in metres that smaller ones are clipped to."""

    white: ClassVar[float] = 1.0
    channels: ClassVar[int] = 1

    @property
    def prepared_dtype(self) -> str:
        return "int16"

    def planes(self, array: Array) -> Tensor:
        import torch

        # As float32: torch has few operations on uint16.
        millimetres = torch.from_numpy(np.array(array, np.float32))
        return millimetres.clamp_(1000 * self.min_m, 1000 * self.max_m).div_(1000 * self.max_m)[:, None]

    def packed(self, planes: Tensor) -> Tensor:
        import torch

        return planes.mul(_STEPS).round_().add_(_ZERO).to(torch.int16)

    def unpacked(self, planes: Tensor) -> Tensor:
        return planes.float().sub_(_ZERO).div_(_STEPS)


class Depth(ImageModality):
    """``depth.3.png`` or ``dep3.npy``; decodes to (t, h, w) uint16 in millimetres."""

    layer = "depth"
    stems = ("depth", "dep")
    endings = ("jpg", "jpeg", "png", "npy")
    transform: ClassVar[type[DepthTransform]] = DepthTransform
    flags = AS_STORED
    # The wording of LanguageBind.
    word = "depth photo"

    def decode_image(self, data: bytes, suffix: str) -> Array:
        if suffix.lower().endswith(".npy"):
            return _decode_npy(data, suffix)
        image = super().decode_image(data, suffix)
        if image.ndim != 2 or image.dtype != np.uint16:
            raise ClipError("undecodable", f"{suffix}: expected a 16-bit grey image, got {image.dtype} {image.shape}")
        return image

    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        """Return the frames in OpenCV's "inferno" colour map, near bright and far dark, with one scale for the clip."""
        # Percentiles, as a few stray pixels would take up the whole scale.
        low, high = np.percentile(array, [2, 98])
        near, far = int(low), int(max(high, low + 1))
        nearness = (far - np.clip(array.astype(np.float64), near, far)) / (far - near)
        coloured = [cv2.applyColorMap(np.rint(255 * n).astype(np.uint8), cv2.COLORMAP_INFERNO) for n in nearness]
        is_metric = row["depth_scale"] == "metric"
        bright, dark = (f"{mm / 1000:.2f} m" if is_metric else f"{mm} (order only)" for mm in (near, far))
        # OpenCV's colour maps are BGR.
        return Shown(
            images=[image[..., ::-1] for image in coloured], note=f"colour map inferno: bright {bright}, dark {dark}"
        )


def _decode_npy(data: bytes, suffix: str) -> Array:
    """Decode an array of LanguageBind's tar files, in metres (float) or millimetres (integer), to millimetres."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    except (ValueError, EOFError) as error:
        raise ClipError("undecodable", f"{suffix}: not a NumPy array: {one_line(error)}") from None
    # The size is checked first, as `numpy.load` would allocate whatever the header states.
    count = math.prod(shape)
    # An array of objects, which would be a pickle, is of none of these kinds.
    if dtype.kind not in "fiu" or not 0 < count <= MAX_PIXELS:
        raise ClipError("undecodable", f"{suffix}: an array of {dtype} and shape {shape} is not depth")
    if len(data) - file.tell() != count * dtype.itemsize:
        raise ClipError("undecodable", f"{suffix}: the array does not have the size that its header states")
    flat = np.frombuffer(data, dtype, count, file.tell())
    depth = flat.reshape(shape, order="F" if is_fortran else "C")
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[-1]):
        depth = depth[0] if depth.shape[0] == 1 else depth[..., 0]
    if depth.ndim != 2 or not np.isfinite(depth).all():
        raise ClipError("undecodable", f"{suffix}: depth of shape {depth.shape}, or with values that are not finite")
    millimetres = depth * 1000.0 if depth.dtype.kind == "f" else depth
    # Clipped, as a cast to uint16 would wrap around.
    return np.asarray(np.clip(millimetres, 0, 65535), np.uint16)


DEPTH = Depth()
