"""Model FLOPs of a tower and of a training step: those that the mathematics requires, without recomputation.

A multiply-add counts as 2 FLOPs; norms, activations, softmax and additions count as 0, as in torch's FlopCounterMode.
ViT-L/14 at 224 px then takes 162.03 GFLOPs per image, ViT-B/32 8.82. Dropped patches do not count. Over the peak of the
device they give model FLOPs utilisation (MFU).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vidal.train.data.plan import Sides, modalities_of
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import LoraSettings, Tune, VisionSettings
from vidal.train.towers.text import TextTower

# Dense bf16 FLOP/s by the vendor's data sheets; the first entry that occurs in the device's name applies.
_PEAKS_BF16 = (("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40", 181e12), ("4090", 165e12), ("L4", 121e12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """FLOPs of the forward pass of one clip, grouped by what the backward pass has to compute for them."""

    patches: int
    """Patch embedding; its input, the pixels, needs no gradient."""
    spatial: int
    """The q, k, v and out projections of the attention within frames."""
    temporal: int
    """The q, k, v and out projections of the attention across frames."""
    mlp: int
    """Both linear layers of every MLP."""
    attention: int
    """Products of two activations (scores, and weighted values), of both kinds of attention."""
    projection: int
    """Projection to the joint space."""

    @property
    def total(self) -> int:
        """The sum of all groups."""
        return self.patches + self.spatial + self.temporal + self.mlp + self.attention + self.projection


def forward_flops(s: VisionSettings, *, frames: int | None = None, masked: bool = False) -> Flops:
    """Count the forward FLOPs of one clip; ``masked`` counts only the patches that ``patch_dropout`` keeps."""
    t = s.frames if frames is None else frames
    kept = s.patches_kept if masked else s.patches
    n, d = kept + 1, s.hidden_size
    # Four projections of 2 n d d each; below, 4 stands for two layers, or two products, at 2 per multiply-add.
    projections = t * s.layers * 8 * n * d * d
    across = 4 * t * n * d if s.temporal else 0
    return Flops(
        patches=t * 2 * kept * s.channels * s.patch_size**2 * d,
        spatial=projections,
        temporal=projections if s.temporal else 0,
        mlp=t * s.layers * 4 * n * d * s.mlp_size,
        attention=t * s.layers * (4 * n * n * d + across),
        projection=2 * d * s.projection_dim,
    )


def training_flops(
    s: VisionSettings, tune: Tune, lora: LoraSettings | None = None, *, frames: int | None = None
) -> int:
    """Count the FLOPs of one clip in a training step: forward, activation gradients, gradients of trained weights."""
    f = forward_flops(s, frames=frames, masked=True)
    if tune == "frozen":
        return f.total
    # A frozen weight costs a forward pass and the gradient of its input, of which pixels need none; a product of two
    # activations needs the gradient of both, and the projection is trained in every mode.
    passes = f.patches + 2 * (f.spatial + f.temporal + f.mlp) + 3 * f.attention + 3 * f.projection
    if tune == "full":
        return passes + f.patches + f.spatial + f.temporal + f.mlp
    adapted = f.temporal if s.temporal else f.spatial
    if tune == "attention":
        return passes + adapted
    # LoRA adds, to the backward pass of each of the four products of n d d, four of n d r. That which adds the adapter
    # to the weight is made once for a chunk of clips.
    rank = (lora or LoraSettings()).rank
    return passes + adapted * 4 * rank // s.hidden_size


def step_flops(recipe: TrainRecipe, encoder: Encoder, sides: Sides) -> int:
    """Return the model FLOPs of one sample in a step that encodes ``sides``.

    Dropped patches and recomputation do not count. A frozen text tower counts as 0, as its embeddings are cached.
    """
    names = modalities_of(sides)
    towers = [side for side in names if side != "text"]
    flops = sum(training_flops(encoder.tower(s).settings, recipe.towers[s].tune, recipe.towers[s].lora) for s in towers)
    return flops + (text_training_flops(encoder.text_tower()) if "text" in names and encoder.trains_text else 0)


def text_training_flops(tower: TextTower) -> int:
    """Return the FLOPs of one text of ``max_tokens`` tokens in a training step of a tuned text tower."""
    frozen = trained = 0
    for module in tower.layers.modules():
        if isinstance(module, nn.Linear):
            flops = 2 * tower.max_tokens * module.weight.numel()
            trained, frozen = (trained + flops, frozen) if module.weight.requires_grad else (trained, frozen + flops)
    width = next(module.normalized_shape[0] for module in tower.layers.modules() if isinstance(module, nn.LayerNorm))
    # Of scores and weighted values, both factors need a gradient.
    attention = len(tower.layers) * 4 * tower.max_tokens**2 * width
    return 2 * frozen + 3 * (trained + attention)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Return the peak FLOP/s of the device; None if it is unknown, on a CPU, or in full float32."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    # TF32 has half the rate of bfloat16 on each of them.
    return next((peak / (1 if precision == "bf16" else 2) for part, peak in _PEAKS_BF16 if part in name), None)
