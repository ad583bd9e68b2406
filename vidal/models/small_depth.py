"""A 3-million-parameter monocular depth network that loads like any depth model of transformers.

Importing this module registers the network, so that a checkpoint folder works like a Depth Anything one:

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForDepthEstimation.from_pretrained(folder)

The output is the rank of inverse depth within the image, in (0, 1), larger is nearer; it has no metric scale.
Shape letters: b batch, c channels, h and w pixels.
"""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import DepthEstimatorOutput
from transformers.models.dpt import DPTImageProcessor


class SmallDepthConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Names the timm backbone, which must yield features at strides 2 to 32, and the width of the pyramid over it."""

    model_type = "vidal_small_depth"
    value_range = (0.0, 1.0)

    def __init__(self, backbone: str = "efficientnet_lite0", channels: int = 72, **rest: Any) -> None:
        self.backbone = backbone
        self.channels = channels
        super().__init__(**rest)


class Separable(nn.Sequential):
    """A depthwise 5x5 and a pointwise convolution: most of a full convolution at a tenth of its cost on a CPU."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
        )


class Lateral(nn.Module):
    """Projects backbone features (b, c, h, w) to the pyramid's width, with row and column coordinates as channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs + 2, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        b, _, h, w = features.shape
        rows = torch.linspace(-1, 1, h, device=features.device, dtype=features.dtype).view(1, 1, h, 1)
        cols = torch.linspace(-1, 1, w, device=features.device, dtype=features.dtype).view(1, 1, 1, w)
        places = torch.cat([rows.expand(b, 1, h, w), cols.expand(b, 1, h, w)], 1)
        projected: Tensor = self.project(torch.cat([features, places], 1))
        return projected


class DepthDecoder(nn.Module):
    """Maps five feature maps, finest first, to logits at half resolution: (b, 1, h / 2, w / 2)."""

    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        fine, coarser = widths[0], widths[1:]
        # A channel of the finest map costs most, and a third of them is enough for outlines.
        outputs = [channels // 3, *[channels] * (len(coarser) - 1)]
        self.fine = nn.Conv2d(fine, channels // 3, 1)
        self.laterals = nn.ModuleList([Lateral(i, o) for i, o in zip(coarser, outputs, strict=True)])
        self.whole = nn.Sequential(nn.Linear(widths[-1], channels), nn.ReLU(), nn.Linear(channels, channels))
        self.context = nn.ModuleList([Separable(channels) for _ in range(3)])
        self.mixers = nn.ModuleList([Separable(o) for o in outputs[:-1]])
        self.narrow = nn.Conv2d(channels, channels // 3, 1)
        self.head = nn.Conv2d(channels // 3, 1, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        # The mean feature gives every position the context of the whole image.
        x = self.laterals[-1](features[-1]) + self.whole(features[-1].mean((2, 3)))[:, :, None, None]
        for block in self.context:
            x = x + block(x)
        for level in range(len(self.mixers) - 1, -1, -1):
            finer = features[level + 1]
            x = self.narrow(x) if level == 0 else x
            x = self.laterals[level](finer) + F.interpolate(x, size=finer.shape[-2:], mode="bilinear")
            x = x + self.mixers[level](x)
        x = F.interpolate(x, size=features[0].shape[-2:], mode="bilinear") + self.fine(features[0])
        logits: Tensor = self.head(x.relu())
        return logits


class SmallDepthForDepthEstimation(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Wraps backbone and decoder in the interface of transformers."""

    config_class = SmallDepthConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallDepthConfig) -> None:
        super().__init__(config)
        backbone: Any = timm.create_model(config.backbone, features_only=True, pretrained=False)
        self.backbone: nn.Module = backbone
        self.decoder = DepthDecoder(backbone.feature_info.channels(), config.channels)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: layers keep the initialisation of torch and timm."""

    def logits(self, pixel_values: Tensor) -> Tensor:
        """Map normalised pixels (b, 3, h, w) to logits (b, h / 2, w / 2), on which the training loss is computed."""
        scores: Tensor = self.decoder(self.backbone(pixel_values))
        return scores[:, 0]

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None) -> DepthEstimatorOutput | tuple[Tensor]:
        """Map normalised pixels (b, 3, h, w), sides multiples of 32, to ``predicted_depth`` (b, h, w) in (0, 1)."""
        scores = self.logits(pixel_values)[:, None]
        rank = F.interpolate(scores, size=pixel_values.shape[-2:], mode="bilinear").sigmoid()[:, 0]
        return (rank,) if return_dict is False else DepthEstimatorOutput(predicted_depth=rank)


def processor() -> DPTImageProcessor:
    """Return the preprocessing used in training: short side about 128 px, sides multiples of 32, pixels in [-1, 1]."""
    return DPTImageProcessor(
        size={"height": 128, "width": 128}, keep_aspect_ratio=True, ensure_multiple_of=32, resample=2,
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip


AutoConfig.register(SmallDepthConfig.model_type, SmallDepthConfig, exist_ok=True)
AutoModelForDepthEstimation.register(SmallDepthConfig, SmallDepthForDepthEstimation, exist_ok=True)
AutoImageProcessor.register(SmallDepthConfig, fast_image_processor_class=DPTImageProcessor, exist_ok=True)
