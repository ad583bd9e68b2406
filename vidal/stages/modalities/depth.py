from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.models.device import DeviceChoice
from vidal.models.locate import identity
from vidal.stage import Resources, Stage
from vidal.stages.modalities.frame_series import flicker, for_each_frame
from vidal.work import Member

Millimetres = npt.NDArray[np.uint16]

_MOST_MM = 65_535.0


class Depth(Stage):
    """Estimates the depth of each stored frame: 16-bit PNG, in millimetres, of the frame's size and time.

    A metric model's metres are clipped to ``max_depth_m``. A relative model gives inverse depth ``v`` of unknown
    scale; it is written as the nominal depth ``max_depth_m / (1 + relative_gain * v)``, for every frame alike: a
    stretch to each frame's own extremes would make equal values mean different things from frame to frame.
    """

    version = 1
    reads = ("video",)
    writes = ("depth", "depth_model", "depth_scale", "depth_saturation_share", "depth_flicker", "synthetic_layers")
    layers = ("depth",)
    default_resources: ClassVar[Resources] = Resources(gpus=1.0, batch_size=8, timeout_s=300)

    model: str = "vidal:depth-small"
    """Any depth estimation model of transformers, such as ``vinvino02/glpn-nyu``."""
    scale: Literal["auto", "metric", "relative"] = "auto"
    """What the model gives; ``auto`` goes by its configuration."""
    max_depth_m: float = Field(10.0, gt=0, le=65)
    relative_gain: float = Field(9.0, gt=0)
    """With the default a value of 1 is a tenth of ``max_depth_m``, and 0 all of it."""
    batch_frames: int = Field(16, ge=1, le=1024)
    half: bool = True
    """Half precision, on a GPU only."""
    device: DeviceChoice = "auto"
    compression: int = Field(6, ge=1, le=9)
    """zlib level of the PNG."""

    _estimator: Any = PrivateAttr(default=None)
    _identity: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        import cv2

        from vidal.models.depth import load_depth

        cv2.setNumThreads(1)
        self._estimator = load_depth(self.model, device=self.device, half=self.half, scale=self.scale)
        self._identity = self.model_identities()["model"]

    def process(self, clip: Clip) -> None:
        self.process_batch([clip])

    def process_batch(self, clips: Sequence[Clip]) -> None:
        made = for_each_frame(
            [clip.work.frames() for clip in clips],
            self._estimator.estimate,
            batch_frames=self.batch_frames,
            mix_clips=self._estimator.device.type == "cuda",
        )
        for clip, values in zip(clips, made, strict=True):
            self._store(clip, [self._millimetres(value) for value in values])

    def _millimetres(self, values: npt.NDArray[np.float32]) -> Millimetres:
        if not np.isfinite(values).all():
            raise ClipError("bad_depth", f"model {self.model} gave values that are no numbers")
        farthest = self.max_depth_m * 1000
        if self._estimator.is_metric:
            depth = np.clip(values.astype(np.float64) * 1000, 0, farthest)
        else:
            depth = farthest / (1 + self.relative_gain * np.maximum(values.astype(np.float64), 0))
        return np.clip(np.rint(depth), 0, _MOST_MM).astype(np.uint16)

    def _store(self, clip: Clip, depths: Sequence[Millimetres]) -> None:
        for frame, depth in zip(clip.work.frame_members(), depths, strict=True):
            suffix = frame.suffix.replace("frame.", "depth.").rsplit(".", 1)[0] + ".png"
            data = _png(depth, self.compression)
            clip.work.put(Member(layer="depth", suffix=suffix, data=data, time_s=frame.time_s))
        farthest = round(self.max_depth_m * 1000)
        clip.depth_model = self._identity
        clip.depth_scale = "metric" if self._estimator.is_metric else "relative"
        clip.depth_saturation_share = _mean([((d == 0) | (d >= farthest)).mean() for d in depths])
        clip.depth_flicker = flicker(clip.work.frames(), depths, farthest)
        if depths and "depth" not in clip.synthetic_layers:
            clip.synthetic_layers = [*clip.synthetic_layers, "depth"]


def _png(depth: Millimetres, compression: int) -> bytes:
    import cv2

    written, data = cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not written:
        raise ClipError("bad_depth", f"a picture of {depth.shape} cannot be written as PNG")
    return data.tobytes()


def _mean(shares: Sequence[Any]) -> float | None:
    return round(float(np.mean(shares)), 5) if len(shares) else None
