"""The stored frames of one or several clips as models take them: on a device once, for all stages that share them.

batch = FrameBatch.of([clip.work for clip in clips])
batch[0]                        # RGB uint8 (height, width, 3), as a function from outside vidal gets it
pixels(batch, device="cuda")    # uint8 tensors (3, height, width) there; another stage gets the same ones

A clip's frames go to a device when the first model asks for them, as the uint8 pixels that they are, and leave it with
`Work.forget_decoded`. What a model needs beside, resizing included, is computed there. `MOVED` counts what goes up and
comes down; on a CPU, where nothing moves, it counts what a GPU would have moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from vidal.work import Work

Frame = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Moved:
    """Bytes that models of this process moved between host and device."""

    frames_up: int = 0
    """Of frames, as uint8."""
    other_up: int = 0
    """Of all else that goes up: pixels that were preprocessed on the host, and token ids."""
    down: int = 0

    def reset(self) -> None:
        self.frames_up = self.other_up = self.down = 0


MOVED = Moved()


class FrameBatch(Sequence[Frame]):
    """Some frames of some clips, in any order: a sequence of RGB arrays ``(height, width, 3)``, which are read-only."""

    def __init__(self, places: Iterable[tuple[Work, int]]) -> None:
        self._places = list(places)

    @classmethod
    def of(cls, works: Iterable[Work]) -> Self:
        """Return all stored frames of the clips."""
        return cls((work, number) for work in works for number in range(len(work.frames())))

    @classmethod
    def joined(cls, batches: Iterable[FrameBatch]) -> Self:
        """Return the frames of some batches, one after the other."""
        return cls(place for batch in batches for place in batch._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Frame: ...
    @overload
    def __getitem__(self, at: slice) -> FrameBatch: ...
    def __getitem__(self, at: int | slice) -> Frame | FrameBatch:
        if isinstance(at, slice):
            return FrameBatch(self._places[at])
        work, number = self._places[at]
        frame = work.frames()[number].view()
        # Other stages see the same pixels.
        frame.flags.writeable = False
        return frame

    def on(self, device: Any) -> list[Any]:
        """Return a uint8 tensor ``(3, height, width)`` on the device for each frame, which must not be changed."""
        for work, _ in self._places:
            if str(device) not in work.on_devices:
                work.on_devices[str(device)] = _uploaded(work.frames(), device)
        return [work.on_devices[str(device)][number] for work, number in self._places]


def pixels(frames: Sequence[Frame], device: Any) -> list[Any]:
    """Return `FrameBatch.on`; frames that are in no batch go up each time."""
    return frames.on(device) if isinstance(frames, FrameBatch) else _uploaded(frames, device)


def _uploaded(frames: Sequence[Frame], device: Any) -> list[Any]:
    import torch

    MOVED.frames_up += sum(frame.nbytes for frame in frames)
    kind = torch.device(device).type
    if kind == "cpu":
        # The frames' own memory, unless it is read-only, which torch warns about.
        tensors = [torch.from_numpy(np.require(frame, requirements=["C", "W"])) for frame in frames]
    else:
        sizes = [frame.size for frame in frames]
        # One transfer for all, from page-locked memory, so that the host need not wait for it.
        staged = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=kind == "cuda")
        np.concatenate([frame.reshape(-1) for frame in frames], out=staged.numpy())
        parts = torch.split(staged.to(device, non_blocking=True), sizes)
        tensors = [part.view(frame.shape) for part, frame in zip(parts, frames, strict=True)]
    return [tensor.permute(2, 0, 1) for tensor in tensors]


def shown_to(processor: Any, frames: Sequence[Frame], device: Any) -> list[Any]:
    """Return the frames as an image processor of transformers takes them: tensors on the device, or PIL images.

    Most classes compute on torchvision, wherever the tensors are; the others know the host alone.
    """
    if computes_on_device(processor):
        return pixels(frames, device)
    from PIL import Image

    return [Image.fromarray(frame) for frame in frames]


def computes_on_device(processor: Any) -> bool:
    """Whether a processor of transformers, or the image processor in it, takes tensors of any device."""
    return getattr(getattr(processor, "image_processor", processor), "backend", None) == "torchvision"


def preprocessed(processor: Any, frames: Sequence[Frame], device: Any, **text: Any) -> Any:
    """Return what a processor of transformers makes of the frames and of its arguments for text, on the device."""
    return to_device(
        processor, processor(images=shown_to(processor, frames, device), return_tensors="pt", **text), device
    )


def to_device(made_by: Any, inputs: Any, device: Any) -> Any:
    """Move what a processor or a tokenizer made to the device, where the pixels of many a processor are already."""
    there = "pixel_values" if computes_on_device(made_by) else None
    MOVED.other_up += sum(
        getattr(each, "nbytes", 0) for name, each in inputs.items() if there is None or not name.startswith(there)
    )
    return inputs.to(device)


def to_host(tensor: Any) -> Any:
    """Move a tensor to the host."""
    MOVED.down += tensor.nbytes
    return tensor.cpu()
