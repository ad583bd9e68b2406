"""Which device a model goes to, and how it runs there."""

from __future__ import annotations

from typing import Literal

DeviceChoice = Literal["auto", "cpu", "cuda"]


def device_for(choice: DeviceChoice) -> str:
    """``cuda`` where it is asked for, or where ``auto`` finds a GPU that this worker may use."""
    import torch

    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return choice


def one_thread(device: str) -> None:
    """On a CPU, compute on one thread: another number of threads adds floats in another order."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
