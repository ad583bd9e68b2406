from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, field_validator

from vidal.clip import Clip
from vidal.errors import ClipError, ModelError
from vidal.models.device import Half
from vidal.models.dotted import is_dotted
from vidal.models.locate import identity
from vidal.stage import Resources
from vidal.stages.modalities.frame_series import finishing, flicker, for_each_frame, put_images
from vidal.stages.model_stage import ModelStage

Millimetres = npt.NDArray[np.uint16]

_MOST_MM = 65_535.0
_RELATIVE_MAX_DEPTH_M = 10.0
_MOST_SATURATED = 0.5
_LEAST_SPREAD = 0.02
"""Limits of `Depth.doubts`: the share of saturated values, and the middle 98 % of them as a share of the range."""


class Depth(ModelStage):
    """Estimates the depth of each stored frame, as 16-bit PNG in millimetres with the frame's size and time.

    Depth of a metric model is clipped to ``max_depth_m``. A relative model predicts inverse depth of unknown scale: its
    values ``v``, scaled to 0 to 1 over the model's range, are stored as the nominal depth
    ``max_depth_m / (1 + relative_gain * v)``, which preserves their order. The range is one for all clips:
    ``value_range``, else what the model states, else the range of its values on five photographs that ship with vidal.
    """

    version: ClassVar[int] = 4
    reads = ("video",)
    writes = ("depth", "depth_model", "depth_scale", "depth_saturation_share", "depth_flicker", "synthetic_layers")
    imports = ("huggingface_hub", "safetensors", "timm", "torch", "transformers")
    not_fingerprinted = ()  # the device has been part of the fingerprint of this stage from its first version
    layers = ("depth",)
    default_resources: ClassVar[Resources] = Resources(gpus=1.0, batch_size=8, timeout_s=300)

    model: str = "vidal:depth-small"
    """Any depth estimation model of transformers, such as ``vinvino02/glpn-nyu``.

    Or ``package.module:load``, a function of yours: ``load(device=..., dtype=...)`` returns what estimates frames.
    """
    scale: Literal["auto", "metric", "relative"] = "auto"
    """What the model predicts; ``auto`` takes it from the model's configuration, and a function to give metres."""
    max_depth_m: float | None = Field(None, gt=0, le=65)
    """By default the limit of a metric model, at most 65.535 m (16 bits), and 10 m for a relative model."""
    relative_gain: float = Field(9.0, gt=0)
    """With the default, the nearest values are stored as a tenth of ``max_depth_m``."""
    value_range: tuple[float, float] | None = None
    """The least and the greatest value of a relative model; `vidal doctor` prints what is measured without it."""
    input_size: tuple[int, int] | None = None
    """Height and width that frames are squashed to for a model of transformers; by default they keep their aspect.

    VIDAL-10M's is ``[796, 448]``: upright, so that a landscape frame loses two thirds of its width.
    """
    batch_frames: int = Field(16, ge=1, le=1024)
    """Frames that the model takes at once."""
    half: Half = True
    """Whether to use half precision on a GPU: float16, or ``bfloat16``."""
    compression: int = Field(4, ge=1, le=9)
    """zlib compression level of the PNG files."""

    _estimator: Any = PrivateAttr(default=None)
    _range: tuple[float, float] = PrivateAttr(default=(0.0, 1.0))
    _identity: str = PrivateAttr(default="")

    @field_validator("value_range")
    @classmethod
    def _rises(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not -math.inf < value[0] < value[1] < math.inf:
            raise ValueError("must be two numbers, the least and the greatest value")
        return value

    @field_validator("input_size")
    @classmethod
    def _is_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 32 <= min(value) <= max(value) <= 4096:
            raise ValueError("must be a height and a width of 32 to 4096 pixels")
        return value

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        import cv2

        from vidal.models.depth import load_depth, measure_range

        # Workers are the parallelism: OpenCV's own threads would only compete with them.
        cv2.setNumThreads(1)
        self._estimator = load_depth(
            self.model, device=self.chosen_device(), half=self.half, scale=self.scale, input_size=self.input_size
        )
        if self._estimator.is_metric and self.value_range is not None:
            raise ModelError(
                f"depth.value_range: model {self.model} is taken to estimate metres, which have no range; "
                "leave it out, or set scale: relative"
            )
        if not self._estimator.is_metric:
            self._range = self.value_range or self._estimator.value_range or measure_range(self._estimator)
        self._identity = self.model_identities()["model"]

    def facts(self) -> Mapping[str, str]:
        if self._estimator.is_metric:
            return {"scale": f"metric, stored up to {self._farthest_mm / 1000:g} m"}
        low, high = self._range
        return {"scale": f"relative, value_range: [{low:g}, {high:g}]"}

    def doubts(self) -> list[str]:
        from vidal.models.depth import range_frames

        depths = self._millimetres(self._estimator.estimate(range_frames()))
        share, farthest = self._saturated_share(depths), self._farthest_mm
        low, high = np.percentile(depths, (1, 99))
        if share > _MOST_SATURATED:
            return [
                f"{share:.0%} of its depth of test photographs is at an end of the range; see max_depth_m, value_range"
            ]
        if high - low < _LEAST_SPREAD * farthest:
            return [f"its depth of test photographs is {low:.0f} to {high:.0f} mm of {farthest:.0f}: nearly one value"]
        return []

    def process_batch(self, clips: Sequence[Clip]) -> None:
        clips = self.with_frames(clips)
        predictions = for_each_frame(
            [clip.work for clip in clips],
            self._estimator.estimate,
            batch_frames=self.batch_frames,
            # A function may be a model of videos, which takes the frames of one clip in order.
            mix_clips=self.chosen_device() == "cuda" and not is_dotted(self.model),
        )
        with finishing(in_threads=self.chosen_device() == "cuda") as finish:
            for clip, values in zip(clips, predictions, strict=True):
                finish(self._finish, clip, values)

    def _finish(self, clip: Clip, values: Sequence[npt.NDArray[np.float32]]) -> None:
        import cv2

        depths = self._millimetres(values)
        # A row of depth differs least from the one above: smaller and faster than a filter chosen for each row.
        options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP, cv2.IMWRITE_PNG_COMPRESSION, self.compression]
        put_images(clip, "depth", depths, ".png", options)
        clip.depth_model = self._identity
        clip.depth_scale = "metric" if self._estimator.is_metric else "relative"
        clip.depth_saturation_share = self._saturated_share(depths)
        clip.depth_flicker = flicker(clip.work.frames(), depths, round(self._farthest_mm))

    @property
    def _farthest_mm(self) -> float:
        if self.max_depth_m is not None:
            return self.max_depth_m * 1000
        if not self._estimator.is_metric:
            return _RELATIVE_MAX_DEPTH_M * 1000
        return min(_MOST_MM, (self._estimator.max_depth_m or math.inf) * 1000)

    def _saturated_share(self, depths: Sequence[Millimetres]) -> float:
        """Return the share of values at either end of the range."""
        farthest = round(self._farthest_mm)
        nearest = 0 if self._estimator.is_metric else round(self._farthest_mm / (1 + self.relative_gain))
        return round(float(np.mean([((depth <= nearest) | (depth >= farthest)).mean() for depth in depths])), 5)

    def _millimetres(self, maps: Sequence[npt.NDArray[np.float32]]) -> list[Millimetres]:
        """Convert predictions with the one mapping of all clips."""
        # A cast of NaN to uint16 is undefined and would pass for a depth.
        if not all(np.isfinite(values).all() for values in maps):
            raise ClipError("bad_depth", f"model {self.model} returned values that are not finite")
        farthest = self._farthest_mm
        if self._estimator.is_metric:
            depths = [np.clip(values.astype(np.float64) * 1000, 0, farthest) for values in maps]
        else:
            low, high = self._range
            # A model whose values are all equal has neither near nor far: everything is as far as can be.
            span = high - low or math.inf
            shares = [np.clip((values.astype(np.float64) - low) / span, 0, 1) for values in maps]
            depths = [farthest / (1 + self.relative_gain * share) for share in shares]
        return [np.clip(np.rint(depth), 0, _MOST_MM).astype(np.uint16) for depth in depths]
