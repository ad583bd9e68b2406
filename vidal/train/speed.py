"""How much of the machine a step uses: useful FLOP against the device's peak."""

from __future__ import annotations

import torch

from vidal.train.recipe import Pair, TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.flops import training_flops

# Dense bf16 FLOP/s as the makers state them; the first name that the device's holds counts.
_PEAKS_BF16 = (("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40", 181e12), ("4090", 165e12), ("L4", 121e12))


def step_flops(recipe: TrainRecipe, encoder: Encoder, pair: Pair) -> int:
    """Useful FLOP of one sample in a training step of a pair: masked patches and recomputation do not count."""
    sides = [side for side in pair if side != "text"]
    return sum(training_flops(encoder.tower(s).settings, recipe.towers[s].tune, recipe.towers[s].lora) for s in sides)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak; None where it is not known, rather than a number that means nothing."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS_BF16 if part in name), None)
