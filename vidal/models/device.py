"""Which device a model goes to, and how it runs there."""

from __future__ import annotations

from typing import Literal

from vidal.errors import ModelError

DeviceChoice = Literal["auto", "cpu", "cuda"]


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


def one_thread(device: str) -> None:
    """On a CPU, compute on one thread: another number of threads adds floats in another order."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
