"""Monocular depth estimation with any depth model of transformers, or with a function from outside vidal.

model = load_depth("vinvino02/glpn-nyu", device="cpu", half=False)
depths = model.estimate(frames)         # metres if model.is_metric, else relative inverse depth

A model of transformers is pre- and post-processed by its own image processor. ``package.module:load`` names a function
of yours, called as ``load(device=..., dtype=...)``, which returns a function from a list of RGB frames
``(height, width, 3)`` to a list of float arrays ``(height, width)``: metres, or inverse depth with ``scale: relative``.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import first_line
from vidal.models.device import Half, dtype_for, one_thread
from vidal.models.dotted import is_dotted, load_function
from vidal.models.frame_batch import Frame, preprocessed, to_host
from vidal.models.locate import locate

DepthMap = npt.NDArray[np.float32]

# DPT's first fusion layer has nothing to fuse: published checkpoints lack its residual, and no forward pass uses it.
_UNUSED_WEIGHTS = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.|num_batches_tracked$")

# Classes that estimate metres, though their configuration has no field that says so.
_METRIC_TYPES = ("glpn", "zoedepth", "depth_pro")
_ASPECT_MULTIPLE = 32
"""Input sides are multiples of this, unless the patch size requires another multiple."""
_RANGE_FRAMES = Path(__file__).with_name("range-frames.jpg")
"""Photographs of 320x180, one below the other: a city at night, a cat, a cup, a portrait, a rocket."""
_RANGE_FRAME_HEIGHT = 180
# Of the extremes, two pixels would decide.
_RANGE_PERCENTILES = (0.5, 99.5)


class Estimator(Protocol):
    """A loaded model of either kind; ``is_metric`` says whether it estimates metres or relative inverse depth."""

    @property
    def is_metric(self) -> bool: ...

    @property
    def max_depth_m(self) -> float | None:
        """The largest depth that a metric model can output, None where it is not known."""

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The output range of a bounded relative model, such as vidal's own; None for any other."""

    def estimate(self, frames: Sequence[Frame]) -> list[DepthMap]:
        """Return a float32 depth map ``(height, width)`` for each RGB frame ``(height, width, 3)``, all of one size."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class DepthModel:
    """A model of transformers and its image processor; frames are resized to ``input_size`` first, if one is given."""

    model: Any
    processor: Any
    device: Any
    dtype: Any
    is_metric: bool
    input_size: tuple[int, int] | None = None

    @property
    def max_depth_m(self) -> float | None:
        config = self.model.config
        bins = getattr(config, "bin_configurations", None) or []
        stated = [b["max_depth"] for b in bins] or [getattr(config, "max_depth", None)]
        return float(max(stated)) if self.is_metric and None not in stated else None

    @property
    def value_range(self) -> tuple[float, float] | None:
        return getattr(self.model.config, "value_range", None)

    def estimate(self, frames: Sequence[Frame]) -> list[DepthMap]:
        import cv2
        import torch

        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        if self.input_size is not None:
            height, width = self.input_size
            frames = [np.asarray(cv2.resize(frame, (width, height)), np.uint8) for frame in frames]
        values = preprocessed(self.processor, frames, self.device)["pixel_values"]
        with torch.inference_mode():
            outputs = self.model(pixel_values=values.to(self.dtype))
            outputs["predicted_depth"] = outputs["predicted_depth"].float()
            post_process = self.processor.post_process_depth_estimation
            # ZoeDepth's processor pads, and needs the original sizes to crop the padding off again.
            needs_sizes = "source_sizes" in inspect.signature(post_process).parameters
            shown = {"source_sizes": [frame.shape[:2] for frame in frames]} if needs_sizes else {}
            results = post_process(outputs, target_sizes=sizes, **shown)
            depths = to_host(torch.stack([result["predicted_depth"] for result in results]))
        return list(depths.numpy())


@dataclass(slots=True, frozen=True, kw_only=True)
class OutsideDepthModel:
    """A function from outside vidal, whose arrays are checked."""

    reference: str
    function: Callable[[list[Frame]], Sequence[DepthMap]]
    is_metric: bool
    max_depth_m: None = None
    value_range: None = None

    def estimate(self, frames: Sequence[Frame]) -> list[DepthMap]:
        """Raise `ModelError` unless there is an array of floats of the frame's size for each frame."""
        maps = [np.asarray(depth) for depth in self.function(list(frames))]
        if [(d.dtype.kind, d.shape) for d in maps] != [("f", frame.shape[:2]) for frame in frames]:
            raise ModelError(f"depth: model {self.reference} must return one float array (height, width) a frame")
        return [depth.astype(np.float32) for depth in maps]


def range_frames() -> list[Frame]:
    """Return the photographs that ship with vidal to measure and check the values of a model on."""
    import cv2

    image = cv2.imread(str(_RANGE_FRAMES))
    assert image is not None, f"{_RANGE_FRAMES} is part of the package"
    rgb = np.ascontiguousarray(image[..., ::-1])
    return list(rgb.reshape(-1, _RANGE_FRAME_HEIGHT, *rgb.shape[1:]))


def measure_range(model: Estimator) -> tuple[float, float]:
    """Return the range of a relative model's values, measured on `range_frames`; raises `ModelError`."""
    values = np.concatenate([depth.ravel() for depth in model.estimate(range_frames())])
    if not np.isfinite(values).all():
        raise ModelError("depth: the model returns values that are not finite; state value_range")
    # In three digits, as the last ones depend on the device.
    low, high = (float(f"{value:.3g}") for value in np.percentile(values, _RANGE_PERCENTILES))
    return low, high


def load_depth(
    reference: str, *, device: str, half: Half, scale: Literal["auto", "metric", "relative"] = "auto",
    input_size: tuple[int, int] | None = None,
) -> Estimator:  # fmt: skip
    """Load the model that ``reference`` names; raises `ModelError` if it cannot be loaded or used for depth.

    ``half`` applies to a GPU only. ``scale: auto`` reads from the configuration whether the estimates are metres; those
    of a function are. ``input_size``, height and width, applies to a model of transformers, whatever the aspect.
    """
    import torch
    import transformers

    import vidal.models.small_depth  # noqa: F401  (registers vidal's own network with the Auto classes)

    one_thread(device)
    dtype = dtype_for(half, device)
    if is_dotted(reference):
        return _load_outside(reference, device, dtype, is_metric=scale != "relative")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = locate(reference)
    target = torch.device(device)
    try:
        revision = place.revision or "main"
        processor = transformers.AutoImageProcessor.from_pretrained(place.source, revision=revision)  # type: ignore[no-untyped-call]
        model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
            place.source, revision=revision, dtype=dtype, output_loading_info=True
        )
        # transformers initialises missing weights at random and only warns.
        missing = sorted(key for key in report["missing_keys"] if not _UNUSED_WEIGHTS.search(key))
        if missing:
            raise ValueError(f"the checkpoint lacks {len(missing)} weights, the first is {missing[0]}")
        config = model.config
        if input_size is None:
            _choose_size(processor, config)
        elif getattr(processor, "keep_aspect_ratio", None) is not None:
            height, width = input_size
            processor.keep_aspect_ratio, processor.size = False, {"height": height, "width": width}
        is_metric = scale == "metric"
        if scale == "auto":
            is_metric = config.model_type in _METRIC_TYPES or getattr(config, "depth_estimation_type", None) == "metric"
        loaded = DepthModel(
            model=model.to(target).eval(), processor=processor, device=target, dtype=dtype, is_metric=is_metric,
            input_size=input_size,
        )  # fmt: skip
        # A class that takes no images, or only squares, is found here rather than in every clip.
        loaded.estimate([np.zeros((72, 128, 3), np.uint8)])
    except Exception as error:
        raise ModelError(
            f"depth: model {reference} cannot be loaded from {place.source} ({first_line(error)}); name a reachable "
            "hub id, or a folder with config.json, preprocessor_config.json and weights of a depth estimation model"
        ) from error
    return loaded


def _load_outside(reference: str, device: str, dtype: Any, *, is_metric: bool) -> OutsideDepthModel:
    load = load_function(reference)
    try:
        loaded = OutsideDepthModel(reference=reference, function=load(device=device, dtype=dtype), is_metric=is_metric)
        loaded.estimate([np.zeros((72, 128, 3), np.uint8)])
    except ModelError:
        raise
    except Exception as error:  # a stranger's function may raise anything
        raise ModelError(f"depth: model {reference} cannot be loaded ({first_line(error)})") from error
    return loaded


def _choose_size(processor: Any, config: Any) -> None:
    """Keep the aspect ratio, although DPT's processor squashes images to a square, unless the model needs squares."""
    if getattr(processor, "keep_aspect_ratio", None) is None:
        return
    backbone = getattr(config, "backbone_config", None)
    if config.model_type == "dpt" and (backbone is None or config.is_hybrid):
        # DPT folds its tokens into a square of patches, and a hybrid has a fixed number of them.
        side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        processor.keep_aspect_ratio, processor.size = False, {"height": side, "width": side}
    elif not processor.keep_aspect_ratio:
        patch = getattr(backbone, "patch_size", None)
        multiple = patch if isinstance(patch, int) and _ASPECT_MULTIPLE % patch else _ASPECT_MULTIPLE
        processor.keep_aspect_ratio = True
        processor.ensure_multiple_of = math.lcm(processor.ensure_multiple_of or 1, multiple)
