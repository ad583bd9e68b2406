"""Monocular depth estimation with any depth model of transformers, pre- and post-processed by its own image processor.

model = load_depth("vinvino02/glpn-nyu", device="cpu", half=False)
depths = model.estimate(frames)         # metres if model.is_metric, else relative inverse depth
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import first_line
from vidal.models.device import one_thread
from vidal.models.locate import locate

Frame = npt.NDArray[np.uint8]
DepthMap = npt.NDArray[np.float32]

# DPT's first fusion layer has nothing to fuse: published checkpoints lack its residual, and no forward pass uses it.
_UNUSED_WEIGHTS = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.|num_batches_tracked$")

_METRIC_TYPES = ("glpn", "zoedepth", "depth_pro")
_ASPECT_MULTIPLE = 32
"""Input sides are multiples of this, unless the patch size requires another multiple."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DepthModel:
    """A loaded model; ``is_metric`` says whether it estimates metres rather than relative inverse depth."""

    model: Any
    processor: Any
    device: Any
    dtype: Any
    is_metric: bool

    @property
    def max_depth_m(self) -> float | None:
        """The largest depth that a metric model can output, None where its configuration states none."""
        config = self.model.config
        bins = getattr(config, "bin_configurations", None) or []
        stated = [b["max_depth"] for b in bins] or [getattr(config, "max_depth", None)]
        return float(max(stated)) if self.is_metric and None not in stated else None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The output range of a bounded relative model, such as vidal's own; None for any other."""
        return getattr(self.model.config, "value_range", None)

    def estimate(self, frames: Sequence[Frame]) -> list[DepthMap]:
        """Return a float32 depth map ``(height, width)`` for each RGB frame ``(height, width, 3)``, all of one size."""
        import torch

        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        # Copied, as torch warns about read-only arrays, which decoded frames are.
        inputs = self.processor(
            images=[frame.copy() for frame in frames], return_tensors="pt", input_data_format="channels_last"
        )
        with torch.inference_mode():
            outputs = self.model(pixel_values=inputs["pixel_values"].to(self.device, self.dtype))
            outputs["predicted_depth"] = outputs["predicted_depth"].float()
            post_process = self.processor.post_process_depth_estimation
            # ZoeDepth's processor pads, and needs the original sizes to crop the padding off again.
            needs_sizes = "source_sizes" in inspect.signature(post_process).parameters
            results = post_process(outputs, target_sizes=sizes, **({"source_sizes": sizes} if needs_sizes else {}))
        return [result["predicted_depth"].cpu().numpy().astype(np.float32) for result in results]


def load_depth(
    reference: str, *, device: str, half: bool, scale: Literal["auto", "metric", "relative"] = "auto"
) -> DepthModel:
    """Load the model that ``reference`` names; raises `ModelError`.

    ``half`` selects float16 and applies to a GPU only. ``scale: auto`` reads from the configuration whether the
    estimates are metres.
    """
    import torch
    import transformers

    import vidal.models.small_depth  # noqa: F401  (registers vidal's own network with the Auto classes)

    one_thread(device)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = locate(reference)
    target = torch.device(device)
    dtype = torch.float16 if half and target.type == "cuda" else torch.float32
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
        _choose_size(processor, config)
        is_metric = scale == "metric"
        if scale == "auto":
            is_metric = config.model_type in _METRIC_TYPES or getattr(config, "depth_estimation_type", None) == "metric"
        loaded = DepthModel(
            model=model.to(target).eval(), processor=processor, device=target, dtype=dtype, is_metric=is_metric
        )
        # A class that takes no images, or only squares, is found here rather than in every clip.
        loaded.estimate([np.zeros((72, 128, 3), np.uint8)])
    except Exception as error:
        raise ModelError(
            f"depth: model {reference} cannot be loaded from {place.source} ({first_line(error)}); name a reachable "
            "hub id, or a folder with config.json, preprocessor_config.json and weights of a depth estimation model"
        ) from error
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
