"""`ModelStage`, the base class of stages that run a model in the worker."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from vidal.clip import Clip
from vidal.models.device import DeviceChoice, device_for
from vidal.stage import Resources, Stage

_THREADS = 4


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

    def with_frames(self, clips: Sequence[Clip]) -> list[Clip]:
        """Return the clips that have stored frames; where the model is on a GPU, with the frames decoded in threads."""
        seen = [clip for clip in clips if clip.work.frame_members()]
        if self.chosen_device() == "cuda":
            # One after the other they take 5 ms a clip, for which the GPU would wait.
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(lambda clip: clip.work.frames(), seen))
        return seen
