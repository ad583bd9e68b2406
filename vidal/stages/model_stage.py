"""`ModelStage`: what the stages that run a model of their own have in common."""

from __future__ import annotations

from typing import ClassVar

from vidal.models.device import DeviceChoice, device_for
from vidal.stage import Stage


class ModelStage(Stage):
    """A stage whose model runs on a GPU or on the CPU; its `setup` loads the model onto `chosen_device`."""

    whereabouts: ClassVar[tuple[str, ...]] = ("device",)

    device: DeviceChoice = "auto"
    """``auto``: the GPU where `resources.gpus` gives the stage one and there is one, else the CPU."""

    def chosen_device(self) -> str:
        """``cuda`` or ``cpu``; raises `ModelError` for a GPU that is asked for and not there."""
        return device_for(self.device, gpus=self.needs.gpus)
