"""Useful FLOP of a tower: what the mathematics needs, not what recomputation adds.

One multiplication with its addition counts 2; norms, activations, softmax and additions count 0, as in torch's
FlopCounterMode. ViT-L/14 at 224 is then 162.03 GFLOP a picture, ViT-B/32 8.82. Patches that are left out do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidal.train.towers.settings import LoraSettings, Tune, VisionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Forward FLOP of one clip, by what the backward pass does with them."""

    patches: int
    """The patch embedding: pixels need no gradient."""
    spatial: int
    """q, k, v, out of the attention within a frame."""
    temporal: int
    """q, k, v, out of the attention across frames."""
    mlp: int
    attention: int
    """Products of activations with activations, in both kinds of attention."""
    projection: int

    @property
    def total(self) -> int:
        return self.patches + self.spatial + self.temporal + self.mlp + self.attention + self.projection


def forward_flops(s: VisionSettings, *, frames: int | None = None, masked: bool = False) -> Flops:
    """Of one clip; ``masked``: with the patches that ``patch_dropout`` keeps."""
    t = s.frames if frames is None else frames
    kept = s.patches_kept if masked else s.patches
    n, d = kept + 1, s.hidden_size
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
    """Of one clip in a training step: forward, gradients of activations, gradients of the weights that are trained."""
    f = forward_flops(s, frames=frames, masked=True)
    if tune == "frozen":
        return f.total
    passes = f.patches + 2 * (f.spatial + f.temporal + f.mlp) + 3 * f.attention + 3 * f.projection
    if tune == "full":
        return passes + f.patches + f.spatial + f.temporal + f.mlp
    adapted = f.temporal if s.temporal else f.spatial
    if tune == "attention":
        return passes + adapted
    # Each of the four products n d d gets two of n d r beside it, with all three passes.
    rank = (lora or LoraSettings()).rank
    return passes + 3 * (adapted * 2 * rank // s.hidden_size)
