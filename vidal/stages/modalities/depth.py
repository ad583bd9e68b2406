from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.models.locate import identity
from vidal.stage import Resources
from vidal.stages.modalities.frame_series import flicker, for_each_frame, put_images
from vidal.stages.model_stage import ModelStage

Millimetres = npt.NDArray[np.uint16]

_MOST_MM = 65_535.0
_RELATIVE_MAX_DEPTH_M = 10.0
_RANGE_PERCENTILES = (1.0, 99.0)


class Depth(ModelStage):
    """Estimates the depth of each stored frame, as 16-bit PNG in millimetres with the frame's size and time.

    Depth of a metric model is clipped to ``max_depth_m``. A relative model predicts inverse depth of unknown scale: its
    values ``v``, scaled to 0 to 1 over the model's range, are stored as the nominal depth
    ``max_depth_m / (1 + relative_gain * v)``, which preserves their order. The range is stated by the model or spans
    the middle 98 % of the clip's values. It is the same for all frames of a clip, so that equal values have equal
    meanings in all of them.
    """

    version: ClassVar[int] = 2
    reads = ("video",)
    writes = ("depth", "depth_model", "depth_scale", "depth_saturation_share", "depth_flicker", "synthetic_layers")
    imports = ("huggingface_hub", "safetensors", "timm", "torch", "transformers")
    not_fingerprinted = ()  # the device has been part of the fingerprint of this stage from its first version
    layers = ("depth",)
    default_resources: ClassVar[Resources] = Resources(gpus=1.0, batch_size=8, timeout_s=300)

    model: str = "vidal:depth-small"
    """Any depth estimation model of transformers, such as ``vinvino02/glpn-nyu``."""
    scale: Literal["auto", "metric", "relative"] = "auto"
    """What the model predicts; ``auto`` takes it from the model's configuration."""
    max_depth_m: float | None = Field(None, gt=0, le=65)
    """By default the limit of a metric model, at most 65.535 m (16 bits), and 10 m for a relative model."""
    relative_gain: float = Field(9.0, gt=0)
    """With the default, the nearest values are stored as a tenth of ``max_depth_m``."""
    batch_frames: int = Field(16, ge=1, le=1024)
    """Frames that the model takes at once."""
    half: bool = True
    """Whether to use half precision on a GPU."""
    compression: int = Field(6, ge=1, le=9)
    """zlib compression level of the PNG files."""

    _estimator: Any = PrivateAttr(default=None)
    _identity: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        import cv2

        from vidal.models.depth import load_depth

        # Workers are the parallelism: OpenCV's own threads would only compete with them.
        cv2.setNumThreads(1)
        self._estimator = load_depth(self.model, device=self.chosen_device(), half=self.half, scale=self.scale)
        self._identity = self.model_identities()["model"]

    def process_batch(self, clips: Sequence[Clip]) -> None:
        import cv2

        clips = [clip for clip in clips if clip.work.frame_members()]
        predictions = for_each_frame(
            [clip.work.frames() for clip in clips],
            self._estimator.estimate,
            batch_frames=self.batch_frames,
            mix_clips=self._estimator.device.type == "cuda",
        )
        for clip, values in zip(clips, predictions, strict=True):
            depths = self._millimetres(values)
            put_images(clip, "depth", depths, ".png", [cv2.IMWRITE_PNG_COMPRESSION, self.compression])
            farthest = round(self._farthest_mm)
            clip.depth_model = self._identity
            clip.depth_scale = "metric" if self._estimator.is_metric else "relative"
            saturated = [((depth == 0) | (depth >= farthest)).mean() for depth in depths]
            clip.depth_saturation_share = round(float(np.mean(saturated)), 5)
            clip.depth_flicker = flicker(clip.work.frames(), depths, farthest)

    @property
    def _farthest_mm(self) -> float:
        if self.max_depth_m is not None:
            return self.max_depth_m * 1000
        if not self._estimator.is_metric:
            return _RELATIVE_MAX_DEPTH_M * 1000
        return min(_MOST_MM, (self._estimator.max_depth_m or math.inf) * 1000)

    def _millimetres(self, maps: Sequence[npt.NDArray[np.float32]]) -> list[Millimetres]:
        """Convert the predictions for the frames of one clip with the same mapping."""
        # A cast of NaN to uint16 is undefined and would pass for a depth.
        if not all(np.isfinite(values).all() for values in maps):
            raise ClipError("bad_depth", f"model {self.model} returned values that are not finite")
        farthest = self._farthest_mm
        if self._estimator.is_metric:
            depths = [np.clip(values.astype(np.float64) * 1000, 0, farthest) for values in maps]
        else:
            low, high = self._estimator.value_range or np.percentile(
                np.concatenate([values.ravel() for values in maps]), _RANGE_PERCENTILES
            )
            depths = []
            for values in maps:
                # Where all values are equal there is neither near nor far: everything is as far as can be.
                share = np.zeros(values.shape)
                if high > low:
                    share = np.clip((values.astype(np.float64) - float(low)) / float(high - low), 0, 1)
                depths.append(farthest / (1 + self.relative_gain * share))
        return [np.clip(np.rint(depth), 0, _MOST_MM).astype(np.uint16) for depth in depths]
