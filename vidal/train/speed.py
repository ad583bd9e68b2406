"""Model FLOPs of a training step, and the peak of the device, for model FLOPs utilisation (MFU)."""

from __future__ import annotations

import torch

from vidal.train.recipe import Pair, TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.flops import training_flops

# Dense bf16 FLOP/s by the vendor's data sheets; the first entry that occurs in the device's name applies.
_PEAKS_BF16 = (("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40", 181e12), ("4090", 165e12), ("L4", 121e12))


def step_flops(recipe: TrainRecipe, encoder: Encoder, pair: Pair) -> int:
    """Return the model FLOPs of one sample in a training step; dropped patches and recomputation do not count."""
    sides = [side for side in pair if side != "text"]
    return sum(training_flops(encoder.tower(s).settings, recipe.towers[s].tune, recipe.towers[s].lora) for s in sides)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Return the peak FLOP/s of the device; None if it is unknown, on a CPU, or in another precision than bf16."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS_BF16 if part in name), None)
