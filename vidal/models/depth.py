"""Monocular depth by any depth estimation model of transformers, its own image processor before and after it.

model = load_depth("vinvino02/glpn-nyu", device="cpu", half=False)
depths = model.estimate(frames)         # metres, or relative inverse depth: model.is_metric says which
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
from vidal.models.device import one_thread
from vidal.models.locate import ModelPlace, locate

Picture = npt.NDArray[np.uint8]
DepthMap = npt.NDArray[np.float32]

# DPT's first fusion layer has nothing to fuse: published checkpoints lack its residual, and no forward pass uses it.
_UNUSED_WEIGHTS = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.|num_batches_tracked$")

_METRIC_TYPES = ("glpn", "zoedepth", "depth_pro")
_ASPECT_MULTIPLE = 32
"""Sides of the input where the patch size does not ask for another multiple."""
_TRIAL_SHAPE = (72, 128, 3)


@dataclass(slots=True, frozen=True, kw_only=True)
class DepthModel:
    """A loaded model; ``is_metric`` is whether it gives metres rather than relative inverse depth."""

    model: Any
    processor: Any
    device: Any
    dtype: Any
    is_metric: bool

    @property
    def max_depth_m(self) -> float | None:
        """The farthest that a metric model can say, where its configuration states it."""
        config = self.model.config
        bins = getattr(config, "bin_configurations", None) or []
        stated = [b["max_depth"] for b in bins] or [getattr(config, "max_depth", None)]
        return float(max(stated)) if self.is_metric and None not in stated else None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Least and greatest value of a relative model that is bounded, as vidal's own; None for any other."""
        return getattr(self.model.config, "value_range", None)

    def estimate(self, frames: Sequence[Picture]) -> list[DepthMap]:
        """One depth map for each RGB frame, of the frame's height and width; all frames of one size."""
        import torch

        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        # torch warns about arrays that it may not write to, which decoded frames are.
        inputs = self.processor(
            images=[frame.copy() for frame in frames], return_tensors="pt", input_data_format="channels_last"
        )
        with torch.inference_mode():
            outputs = self.model(pixel_values=inputs["pixel_values"].to(self.device, self.dtype))
            outputs["predicted_depth"] = outputs["predicted_depth"].float()
            finish = self.processor.post_process_depth_estimation
            # ZoeDepth's processor pads, and asks for the sizes to cut its padding off again.
            known = {"source_sizes": sizes} if "source_sizes" in inspect.signature(finish).parameters else {}
            finished = finish(outputs, target_sizes=sizes, **known)
        return [result["predicted_depth"].cpu().numpy().astype(np.float32) for result in finished]


def load_depth(
    reference: str,
    *,
    device: str,
    half: bool,
    scale: Literal["auto", "metric", "relative"] = "auto",
) -> DepthModel:
    """The model that ``reference`` names; half precision takes effect on a GPU only."""
    import torch
    import transformers

    import vidal.models.small_depth  # noqa: F401  registers vidal's own network with the Auto classes

    one_thread(device)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = locate(reference)
    target = torch.device(device)
    dtype = torch.float16 if half and target.type == "cuda" else torch.float32
    try:
        processor, model = _from_pretrained(transformers, place, dtype)
        _choose_size(processor, model.config)
        is_metric = _gives_metres(model.config) if scale == "auto" else scale == "metric"
        loaded = DepthModel(
            model=model.to(target).eval(), processor=processor, device=target, dtype=dtype, is_metric=is_metric
        )
        # A class that takes something else than pictures, or only squares, is found here and not in every clip.
        loaded.estimate([np.zeros(_TRIAL_SHAPE, np.uint8)])
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"depth: model {reference} cannot be loaded from {place.source} ({first_line}); name a hub id that can be "
            "reached or a folder with config.json, preprocessor_config.json and weights of a depth estimation model"
        ) from error
    return loaded


def _from_pretrained(transformers: Any, place: ModelPlace, dtype: Any) -> tuple[Any, Any]:
    revision = place.revision or "main"
    processor = transformers.AutoImageProcessor.from_pretrained(place.source, revision=revision)
    model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
        place.source, revision=revision, dtype=dtype, output_loading_info=True
    )
    # transformers fills what a checkpoint lacks with random numbers and goes on.
    missing = sorted(key for key in report["missing_keys"] if not _UNUSED_WEIGHTS.search(key))
    if missing:
        raise ValueError(f"the checkpoint lacks {len(missing)} weights, {missing[0]} the first")
    return processor, model


def _choose_size(processor: Any, config: Any) -> None:
    """Keep the aspect, even where DPT's processor squashes to a square, unless the model takes nothing else."""
    if getattr(processor, "keep_aspect_ratio", None) is None:
        return
    backbone = getattr(config, "backbone_config", None)
    if config.model_type == "dpt" and (backbone is None or config.is_hybrid):
        # It folds its tokens into a square of patches, and a hybrid's are of one size.
        side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        processor.keep_aspect_ratio, processor.size = False, {"height": side, "width": side}
    elif not processor.keep_aspect_ratio:
        patch = getattr(backbone, "patch_size", None)
        multiple = patch if isinstance(patch, int) and _ASPECT_MULTIPLE % patch else _ASPECT_MULTIPLE
        processor.keep_aspect_ratio = True
        processor.ensure_multiple_of = math.lcm(processor.ensure_multiple_of or 1, multiple)


def _gives_metres(config: Any) -> bool:
    return config.model_type in _METRIC_TYPES or getattr(config, "depth_estimation_type", None) == "metric"
