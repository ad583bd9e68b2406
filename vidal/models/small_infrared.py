"""A colour-to-infrared network that loads like any image-to-image model of transformers.

Importing this module registers the network, so that a checkpoint folder works with the Auto classes:

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageToImage.from_pretrained(folder)

EfficientNet-lite0 stays as ImageNet trained it, its classifier included: applied at every position, that says where an
animal, clothes, a vehicle, food or a landscape is. A small decoder turns this and the features into shares of surface
classes, each with its level of grey, and a correction. The output is SYNTHETIC: it imitates a written rule.
Shape letters: b batch, c channels, h and w pixels, k surface classes, g groups of ImageNet classes.
"""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageToImage, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageSuperResolutionOutput
from transformers.models.dpt import DPTImageProcessor

from vidal.models.small_depth import Lateral, Separable

_STAGES = (0, 1, 2, 4, 6)
"""Stages of the backbone whose features are used, at strides 2, 4, 8, 16 and 16."""
_CLOTHES = (
    399, 400, 411, 414, 433, 439, 445, 451, 452, 456, 457, 459, 465, 474, 501, 515, 518, 560, 568, 570, 578, 584,
    601, 608, 610, 614, 617, 638, 639, 643, 652, 655, 658, 667, 678, 679, 689, 697, 715, 735, 747, 775, 785, 793,
    796, 808, 824, 834, 836, 837, 841, 842, 869, 887, 903, 906, 981, 982, 983,
)  # fmt: skip
_VEHICLES = (
    403, 404, 405, 407, 408, 436, 444, 466, 468, 475, 479, 510, 511, 547, 554, 555, 561, 565, 569, 573, 575, 581,
    586, 603, 609, 612, 621, 627, 628, 654, 656, 661, 665, 670, 671, 675, 705, 717, 734, 751, 757, 779, 802, 803,
    812, 814, 817, 820, 829, 847, 864, 866, 867, 870, 874, 895,
)  # fmt: skip
_HOT = (469, 470, 504, 505, 521, 544, 550, 567, 606, 809, 811, 827, 849, 859, 862, 925, 926, 960, 967, 968, 974, 980)
GROUPS: tuple[tuple[int, ...], ...] = (
    tuple(range(398)), _CLOTHES, _VEHICLES, _HOT, tuple(range(923, 966)), (970, 972, 975, 976, 977, 978, 979),
    (984, 985, 986, 987, 988, 989, 990, 998), tuple(range(991, 998)),
)  # fmt: skip
"""ImageNet classes: animals, clothes and the people who wear them, vehicles, hot things, food, landscapes, plants,
fungi; all others are the last group. A class in two groups belongs to the earlier."""


class SmallInfraredConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Names the timm backbone, the width of the decoder, and the levels of grey (0 to 1) that classes begin with."""

    model_type = "vidal_small_infrared"

    def __init__(
        self, backbone: str = "efficientnet_lite0", channels: int = 64, levels: tuple[float, ...] = (0.0, 1.0),
        **rest: Any,
    ) -> None:  # fmt: skip
        self.backbone = backbone
        self.channels = channels
        self.levels = list(levels)
        super().__init__(**rest)


class SmallInfraredForImageToImage(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Backbone, classifier and decoder in the interface of transformers."""

    config_class = SmallInfraredConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallInfraredConfig) -> None:
        super().__init__(config)
        # At stride 16 in place of 32, the classifier says where things are twice as finely.
        backbone: Any = timm.create_model(config.backbone, pretrained=False, output_stride=16)
        self.backbone: nn.Module = backbone
        widths = [backbone.feature_info[i]["num_chs"] for i in range(len(_STAGES))]
        self.decoder = InfraredDecoder(
            [*widths[:-1], widths[-1] + len(GROUPS) + 1], config.channels, len(config.levels) + 1
        )
        self.levels = nn.Parameter(torch.tensor(config.levels))
        self.evidence = nn.Conv2d(len(GROUPS) + 1, len(config.levels), 1, bias=False)
        # The classifier has no say until training gives it one.
        nn.init.zeros_(self.evidence.weight)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: layers keep the initialisation of torch and timm."""

    @torch.no_grad()
    def features(self, pixel_values: Tensor) -> list[Tensor]:
        """Map pixels (b, 3, h, w) in [-1, 1] to five feature maps; the last ends with the groups' evidence."""
        backbone: Any = self.backbone
        x = backbone.bn1(backbone.conv_stem(pixel_values))
        found = []
        for number, stage in enumerate(backbone.blocks):
            x = stage(x)
            if number in _STAGES:
                found.append(x)
        last = backbone.bn2(backbone.conv_head(x))
        classifier = backbone.classifier
        # As pooling and classifying are linear, the classifier says of each position what it adds to the whole.
        logits = F.conv2d(last, classifier.weight[..., None, None], classifier.bias)
        found[-1] = torch.cat([found[-1], _group_evidence(logits.softmax(1))], 1)
        return found

    def classes(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map feature maps to logits of surface classes (b, k, h / 2, w / 2) and grey (b, h / 2, w / 2) in [0, 1]."""
        scores = self.decoder(features)
        evidence = F.interpolate(features[-1][:, -len(GROUPS) - 1 :], size=scores.shape[-2:], mode="bilinear")
        logits, correction = scores[:, :-1] + self.evidence(evidence), scores[:, -1]
        grey = (logits.softmax(1) * self.levels[:, None, None]).sum(1) + 0.3 * correction.tanh()
        return logits, grey

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None
    ) -> ImageSuperResolutionOutput | tuple[Tensor]:
        """Map pixels (b, 3, h, w) in [-1, 1], sides multiples of 32, to ``reconstruction`` (b, 1, h, w) in [0, 1]."""
        _, grey = self.classes(self.features(pixel_values))
        full = F.interpolate(grey[:, None], size=pixel_values.shape[-2:], mode="bilinear").clamp(0, 1)
        return (full,) if return_dict is False else ImageSuperResolutionOutput(reconstruction=full)


class InfraredDecoder(nn.Module):
    """Maps five feature maps, finest first, to scores at half resolution: (b, outputs, h / 2, w / 2)."""

    def __init__(self, widths: list[int], channels: int, outputs: int) -> None:
        super().__init__()
        narrow = channels // 2
        sizes = [narrow, channels, channels, channels]
        self.fine = nn.Conv2d(widths[0], narrow, 1)
        self.laterals = nn.ModuleList([Lateral(i, o) for i, o in zip(widths[1:], sizes, strict=True)])
        self.whole = nn.Sequential(nn.Linear(widths[-1], channels), nn.ReLU(), nn.Linear(channels, channels))
        self.context = nn.ModuleList([Separable(channels) for _ in range(3)])
        self.mixers = nn.ModuleList([Separable(o) for o in sizes[:-1]])
        self.narrow = nn.Conv2d(channels, narrow, 1)
        self.head = nn.Conv2d(narrow, outputs, 3, padding=1)

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
        scores: Tensor = self.head(x.relu())
        return scores


def _group_evidence(posterior: Tensor) -> Tensor:
    """Sum the posterior of ImageNet classes (b, 1000, h, w) in each group and outside all, and return how far its log
    odds exceed those of knowing nothing, within 3: (b, g + 1, h, w)."""
    seen: set[int] = set()
    members = []
    for group in GROUPS:
        members.append([c for c in group if c not in seen])
        seen |= set(group)
    members.append([c for c in range(posterior.shape[1]) if c not in seen])
    shares = torch.stack([posterior[:, m].sum(1) for m in members], 1)
    known_nothing = shares.new_tensor([len(m) / posterior.shape[1] for m in members]).view(1, -1, 1, 1)
    evidence: Tensor = (shares.logit(1e-3) - known_nothing.logit(1e-3)).clamp(-3, 3)
    return evidence


def processor() -> DPTImageProcessor:
    """Return the preprocessing used in training: short side about 160 px, sides multiples of 32, pixels in [-1, 1]."""
    return DPTImageProcessor(
        size={"height": 160, "width": 160}, keep_aspect_ratio=True, ensure_multiple_of=32, resample=2,
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip


AutoConfig.register(SmallInfraredConfig.model_type, SmallInfraredConfig, exist_ok=True)
AutoModelForImageToImage.register(SmallInfraredConfig, SmallInfraredForImageToImage, exist_ok=True)
AutoImageProcessor.register(SmallInfraredConfig, fast_image_processor_class=DPTImageProcessor, exist_ok=True)
