"""Synthetic infrared frames, generated from colour frames by a model of any of three kinds.

translator = load_infrared("vidal:infrared-small", device="cpu")
infrared = translator.translate(frames)

sRGB-TIR weights      a MUNIT generator in one style for all frames; on tensors it is ``load_srgb_tir(weights)``
a transformers model  any image-to-image model, such as vidal's own (`vidal.models.small_infrared`)
package.module:load   a function of yours, called as ``load(device=..., dtype=...)``, which returns a function from a
                      list of RGB frames ``(height, width, 3)`` to a list of uint8 images ``(height, width)``
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import first_line
from vidal.models.device import Half, dtype_for, one_thread
from vidal.models.dotted import is_dotted, load_function
from vidal.models.frame_batch import Frame, pixels, preprocessed, to_host
from vidal.models.locate import locate
from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig, load_srgb_tir

__all__ = ["SrgbTir", "SrgbTirConfig", "Translator", "load_infrared", "load_srgb_tir"]

Grey = npt.NDArray[np.uint8]

_SMALLEST: tuple[int, int] = (72, 128)


class Translator(Protocol):
    """A loaded model of any kind."""

    def translate(self, frames: Sequence[Frame]) -> list[Grey]:
        """Return a uint8 image ``(height, width)`` for each RGB frame ``(height, width, 3)``, all of one size.

        The model's range is mapped to [0, 255] and the same for all frames. Stretching each frame to its own extremes,
        as VIDAL did, would let one bright object darken the rest of the frame.
        """
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class SrgbTirTranslator:
    """A generator and the style that it applies to every frame."""

    generator: Any
    style: Any
    device: Any
    dtype: Any

    def translate(self, frames: Sequence[Frame]) -> list[Grey]:
        """Map [-1, 1], the mean of the generator's three channels, to [0, 255]."""
        import torch

        colour = torch.stack(pixels(frames, self.device)).to(self.dtype, memory_format=torch.channels_last)
        infrared = self.generator.translate(colour / 127.5 - 1, self.style).float().mean(dim=1)
        return _levels((infrared + 1) / 2)


@dataclass(slots=True, frozen=True, kw_only=True)
class ImageToImageTranslator:
    """An image-to-image model of transformers and its image processor."""

    model: Any
    processor: Any
    device: Any
    dtype: Any

    def translate(self, frames: Sequence[Frame]) -> list[Grey]:
        """Map [0, 1], the mean of the output's channels brought to the size of the frames, to [0, 255]."""
        import torch
        import torch.nn.functional as F

        values = preprocessed(self.processor, frames, self.device)["pixel_values"]
        with torch.inference_mode():
            made = self.model(pixel_values=values.to(self.dtype)).reconstruction
            full = F.interpolate(made.float(), size=frames[0].shape[:2], mode="bilinear")
        return _levels(full.mean(dim=1))


@dataclass(slots=True, frozen=True, kw_only=True)
class OutsideTranslator:
    """A function from outside vidal, whose images are checked."""

    reference: str
    function: Callable[[list[Frame]], Sequence[Grey]]

    def translate(self, frames: Sequence[Frame]) -> list[Grey]:
        """Raise `ModelError` unless there is a uint8 image of the frame's size for each frame."""
        images = list(self.function(list(frames)))
        wanted = [(np.dtype(np.uint8), frame.shape[:2]) for frame in frames]
        if [(np.asarray(image).dtype, np.shape(image)) for image in images] != wanted:
            raise ModelError(f"infrared: model {self.reference} must return one uint8 image (height, width) a frame")
        return images


def load_infrared(reference: str, *, device: str, half: Half = True, style_seed: int = 0) -> Translator:
    """Load the model that ``reference`` names: a file, a folder, a hub id cached here, or ``package.module:function``.

    ``half`` applies to a GPU only, ``style_seed`` to sRGB-TIR. Raises `ModelError`.
    """
    import torch

    one_thread(device)
    target, dtype = torch.device(device), dtype_for(half, device)
    path = locate(reference).here
    if path is None:
        raise ModelError(
            f"infrared: model {reference} is neither a file, nor a folder, nor in this machine's hub cache; name the "
            "path of sRGB-TIR weights, or fetch a hub id with `vidal models pull RECIPE`"
        )
    try:
        if is_dotted(reference):
            function = load_function(reference)(device=device, dtype=dtype)
            translator: Translator = OutsideTranslator(reference=reference, function=function)
        elif _is_transformers(path):
            translator = _image_to_image(path, target, dtype)
        else:
            translator = _srgb_tir(path, target, dtype, style_seed)
        # What does not fit is found here rather than in every clip.
        translator.translate([np.zeros((*_SMALLEST, 3), np.uint8)])
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"infrared: model {reference} cannot be loaded from {path} ({first_line(error)}); name the weights of an "
            "sRGB-TIR generator, with its config.json beside them unless it has the published sizes, the folder of an "
            "image-to-image model of transformers, or package.module:function"
        ) from error
    return translator


def _is_transformers(path: Path) -> bool:
    config = path / "config.json"
    return config.is_file() and "model_type" in json.loads(config.read_text(encoding="utf-8"))


def _image_to_image(folder: Path, device: Any, dtype: Any) -> ImageToImageTranslator:
    import transformers

    import vidal.models.small_infrared  # noqa: F401  (registers vidal's own network with the Auto classes)

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model, report = transformers.AutoModelForImageToImage.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    # transformers initialises missing weights at random and only warns.
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"the checkpoint lacks {len(missing)} weights, the first is {missing[0]}")
    return ImageToImageTranslator(model=model.to(device).eval(), processor=processor, device=device, dtype=dtype)


def _srgb_tir(path: Path, device: Any, dtype: Any, style_seed: int) -> SrgbTirTranslator:
    import torch

    if (path / "model_index.json").is_file():
        raise ModelError(
            f"infrared: {path} is a pipeline of diffusers, of which each is called in its own way; call it in a "
            "function of yours, and name package.module:function (docs/tutorial.md)"
        )
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt"))
    if len(files) != 1:
        raise ModelError(f"infrared: {path} holds {len(files)} weights files, not one; name the file itself")
    # Channels-last takes a third less time on a CPU, and is the frames' memory layout anyway.
    generator = load_srgb_tir(files[0]).to(device, dtype).to(memory_format=torch.channels_last).eval()
    style = generator.style(style_seed).to(device, dtype)
    return SrgbTirTranslator(generator=generator, style=style, device=device, dtype=dtype)


def _levels(share: Any) -> list[Grey]:
    """Round [0, 1] (b, h, w) to [0, 255]."""
    import torch

    return list(to_host((share * 255).round().clamp(0, 255).to(torch.uint8)).numpy())
