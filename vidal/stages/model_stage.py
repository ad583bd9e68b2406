"""`ModelStage`, the base class of stages that run a model in the worker."""

from __future__ import annotations

from typing import ClassVar

from vidal.models.device import DeviceChoice, device_for
from vidal.stage import Resources, Stage


class ModelStage(Stage):
    """A stage whose model runs on a GPU or on the CPU; its `setup` loads the model onto `chosen_device`."""

    not_fingerprinted: ClassVar[tuple[str, ...]] = ("device",)

    device: DeviceChoice = "auto"
    """``auto`` uses a GPU if `resources.gpus` grants one and it is available, else the CPU.

    Unless `resources.gpus` says otherwise, the stage gets a GPU for ``cuda``, none for ``cpu``, and for ``auto`` one
    where it runs a model of your choice: those that come in packages are small.
    """

    def large_model(self) -> str | None:
        """Return the reference of a model that runs in the worker and is worth a GPU unless it comes in a package."""
        return None

    @property
    def needs(self) -> Resources:
        needs = super().needs
        if self.resources is not None and "gpus" in self.resources.model_fields_set:
            return needs
        model = self.large_model()
        is_large = model is not None and not model.startswith("package:")
        gpus = {"cpu": 0.0, "cuda": max(needs.gpus, 1.0), "auto": max(needs.gpus, float(is_large))}
        return needs.model_copy(update={"gpus": gpus[self.device]})

    def chosen_device(self) -> str:
        """Return ``cuda`` or ``cpu``; raises `ModelError` if a GPU is requested and not available."""
        return device_for(self.device, gpus=self.needs.gpus)
