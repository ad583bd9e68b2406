"""Synthetic infrared frames, generated from colour frames by an sRGB-TIR model with one style for all of them.

model = load_infrared("vidal:infrared-small", device="cpu", style_seed=0)
infrared = model.translate(frames)

The generator on tensors is ``load_srgb_tir(weights)``; see `vidal.models.srgb_tir`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import first_line
from vidal.models.device import one_thread
from vidal.models.locate import locate
from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig, load_srgb_tir

__all__ = ["InfraredModel", "SrgbTir", "SrgbTirConfig", "load_infrared", "load_srgb_tir"]

Frame = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.uint8]


@dataclass(slots=True, frozen=True, kw_only=True)
class InfraredModel:
    """A loaded generator and the style that it applies to every frame."""

    generator: Any
    style: Any
    device: Any

    def translate(self, frames: Sequence[Frame]) -> list[Grey]:
        """Return a uint8 image ``(height, width)`` for each RGB frame ``(height, width, 3)``, all of one size.

        The generator's [-1, 1] is mapped linearly to [0, 255]. Stretching each frame to its own extremes, as VIDAL
        did, would let one bright object darken the rest of the frame.
        """
        import torch

        colour = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        infrared = self.generator.translate(colour, self.style).mean(dim=1)
        levels = ((infrared + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return list(levels.cpu().numpy())


def load_infrared(reference: str, *, device: str, style_seed: int) -> InfraredModel:
    """Load a weights file, or the one weights file in a folder or in a hub id that is cached on this machine.

    A config.json beside the weights gives the sizes of the generator. Raises `ModelError`.
    """
    import torch

    one_thread(device)
    target = torch.device(device)
    path = locate(reference).here
    if path is None:
        raise ModelError(
            f"infrared: model {reference} is neither a file, nor a folder, nor in this machine's hub cache; name the "
            "path of sRGB-TIR weights, or fetch a hub id with `vidal models pull RECIPE`"
        )
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt"))
    if len(files) != 1:
        raise ModelError(f"infrared: {path} holds {len(files)} weights files, not one; name the file itself")
    weights = files[0]
    try:
        # Channels-last takes a third less time on a CPU, and is the frames' memory layout anyway.
        generator = load_srgb_tir(weights).to(target).to(memory_format=torch.channels_last).eval()
        style = generator.style(style_seed).to(target)
        generator.translate(torch.zeros(1, 3, 16, 16, device=target), style)
    except Exception as error:
        raise ModelError(
            f"infrared: model {reference} cannot be loaded from {weights} ({first_line(error)}); name the weights of "
            "an sRGB-TIR generator, with its config.json beside them unless it has the published sizes"
        ) from error
    return InfraredModel(generator=generator, style=style, device=target)
