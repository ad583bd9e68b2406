"""Model FLOPs of a training step, and the peak of the device, for model FLOPs utilisation (MFU)."""

from __future__ import annotations

import torch
from torch import nn

from vidal.train.data.plan import Sides
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.flops import training_flops
from vidal.train.towers.text import TextTower

# Dense bf16 FLOP/s by the vendor's data sheets; the first entry that occurs in the device's name applies.
_PEAKS_BF16 = (("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40", 181e12), ("4090", 165e12), ("L4", 121e12))


def step_flops(recipe: TrainRecipe, encoder: Encoder, sides: Sides) -> int:
    """Return the model FLOPs of one sample in a step that encodes ``sides``.

    Dropped patches and recomputation do not count. A frozen text tower counts as 0, as its embeddings are cached.
    """
    towers = [side for side in sides if side != "text"]
    flops = sum(training_flops(encoder.tower(s).settings, recipe.towers[s].tune, recipe.towers[s].lora) for s in towers)
    return flops + (text_training_flops(encoder.text_tower()) if "text" in sides and encoder.trains_text else 0)


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
