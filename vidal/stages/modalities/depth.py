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
from vidal.stages.modalities.frame_series import flicker, for_each_frame
from vidal.stages.model_stage import ModelStage
from vidal.work import Member

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

        cv2.setNumThreads(1)
        self._estimator = load_depth(self.model, device=self.chosen_device(), half=self.half, scale=self.scale)
        self._identity = self.model_identities()["model"]

    def process(self, clip: Clip) -> None:
        self.process_batch([clip])

    def process_batch(self, clips: Sequence[Clip]) -> None:
        clips = [clip for clip in clips if clip.work.frame_members()]
        predictions = for_each_frame(
            [clip.work.frames() for clip in clips],
            self._estimator.estimate,
            batch_frames=self.batch_frames,
            mix_clips=self._estimator.device.type == "cuda",
        )
        for clip, values in zip(clips, predictions, strict=True):
            self._store(clip, self._millimetres(values))

    @property
    def _farthest_mm(self) -> float:
        if self.max_depth_m is not None:
            return self.max_depth_m * 1000
        if not self._estimator.is_metric:
            return _RELATIVE_MAX_DEPTH_M * 1000
        return min(_MOST_MM, (self._estimator.max_depth_m or math.inf) * 1000)

    def _millimetres(self, maps: Sequence[npt.NDArray[np.float32]]) -> list[Millimetres]:
        """Convert the predictions for the frames of one clip with the same mapping."""
        if not all(np.isfinite(values).all() for values in maps):
            raise ClipError("bad_depth", f"model {self.model} returned values that are not finite")
        farthest = self._farthest_mm
        if self._estimator.is_metric:
            depths = [np.clip(values.astype(np.float64) * 1000, 0, farthest) for values in maps]
        else:
            low, high = self._estimator.value_range or _robust_range(maps)
            depths = [farthest / (1 + self.relative_gain * _share(values, low, high)) for values in maps]
        return [np.clip(np.rint(depth), 0, _MOST_MM).astype(np.uint16) for depth in depths]

    def _store(self, clip: Clip, depths: Sequence[Millimetres]) -> None:
        for frame, depth in zip(clip.work.frame_members(), depths, strict=True):
            suffix = frame.suffix.replace("frame.", "depth.").rsplit(".", 1)[0] + ".png"
            data = _png(depth, self.compression)
            clip.work.put(Member(layer="depth", suffix=suffix, data=data, time_s=frame.time_s))
        farthest = round(self._farthest_mm)
        clip.depth_model = self._identity
        clip.depth_scale = "metric" if self._estimator.is_metric else "relative"
        clip.depth_saturation_share = _mean([((d == 0) | (d >= farthest)).mean() for d in depths])
        clip.depth_flicker = flicker(clip.work.frames(), depths, farthest)
        if depths and "depth" not in clip.synthetic_layers:
            clip.synthetic_layers = [*clip.synthetic_layers, "depth"]


def _robust_range(maps: Sequence[npt.NDArray[np.float32]]) -> tuple[float, float]:
    """Return the range of the values of all frames, without the outliers at either end."""
    if not maps:
        return 0.0, 1.0
    low, high = np.percentile(np.concatenate([values.ravel() for values in maps]), _RANGE_PERCENTILES)
    return float(low), float(high)


def _share(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.float64]:
    """Scale the values to 0 to 1 over the range; 0 if the range is empty."""
    if high <= low:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def _png(depth: Millimetres, compression: int) -> bytes:
    import cv2

    is_encoded, data = cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not is_encoded:
        raise ClipError("bad_depth", f"an image of shape {depth.shape} cannot be encoded as PNG")
    return data.tobytes()


def _mean(shares: Sequence[Any]) -> float | None:
    return round(float(np.mean(shares)), 5) if len(shares) else None
