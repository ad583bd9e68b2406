"""Which device a model goes to, and how it runs there."""

from __future__ import annotations

from typing import Any, Literal

from vidal.errors import ModelError

DeviceChoice = Literal["auto", "cpu", "cuda"]
Half = Literal[True, False, "bfloat16"]
"""Half precision on a GPU: float16, or bfloat16, which has the range of float32."""


def device_for(choice: DeviceChoice = "auto", *, gpus: float) -> str:
    """``cuda`` where it is asked for, or where ``auto`` finds the GPU of a stage that is to have ``gpus`` of one.

    Raises `ModelError` for a GPU that is asked for and not there.
    """
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise ModelError("device: cuda is asked for, and this worker sees no GPU; set device: auto, or resources.gpus")
    if choice == "auto":
        # Ray does not hide the GPUs from an actor that asks for none: each would load a copy onto the same card.
        return "cuda" if gpus and torch.cuda.is_available() else "cpu"
    return choice


def dtype_for(half: Half, device: str) -> Any:
    """Return the torch dtype of a model: float32 on a CPU, whatever ``half`` says."""
    import torch

    if not half or torch.device(device).type == "cpu":
        return torch.float32
    return torch.bfloat16 if half == "bfloat16" else torch.float16


def one_thread(device: str) -> None:
    """On a CPU, compute on one thread: another number of threads adds floats in another order."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
