"""`ModelStage`, the base class of stages that run a model in the worker."""

from __future__ import annotations

from typing import ClassVar

from vidal.models.device import DeviceChoice, device_for
from vidal.stage import Stage


class ModelStage(Stage):
    """A stage whose model runs on a GPU or on the CPU; its `setup` loads the model onto `chosen_device`."""

    not_fingerprinted: ClassVar[tuple[str, ...]] = ("device",)

    device: DeviceChoice = "auto"
    """``auto`` uses a GPU if `resources.gpus` grants one and it is available, else the CPU."""

    def chosen_device(self) -> str:
        """Return ``cuda`` or ``cpu``; raises `ModelError` if a GPU is requested and not available."""
        return device_for(self.device, gpus=self.needs.gpus)
