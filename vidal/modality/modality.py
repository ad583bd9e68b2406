"""The interfaces `Modality`, everything specific to one modality, and `Transform`, its preprocessing for a tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Rng = np.random.Generator | None

SELF_CHECKED = (".png", ".flac")
"""File name endings of formats with checksums, whose decoders detect changed bytes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample as a worker process hands it over to the device."""

    values: Tensor
    is_mirrored: bool = False
    """Whether the device has to mirror it."""


class Transform(BaseModel, ABC):
    """Settings of a modality's preprocessing; an instance is called with a decoded sample and returns a tower's input.

    With a random generator it augments the sample (training); without one it is deterministic (evaluation). Everything
    is computed in the worker processes; a `DeviceTransform` leaves a part of it to the device.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @abstractmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        """Return the settings for a tower's input size; ``frames`` is None if the tower does not define it."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input of one sample, without the batch dimension."""

    def frames_to_read(self, stored: int, rng: Rng, frame: int | None = None) -> list[int]:
        """Return the indices of the members to read, of ``stored`` ones; ``frame`` is the one that the text describes.

        Raises `ClipError` if too few are stored.
        """
        return list(range(stored))

    @abstractmethod
    def __call__(self, array: Array, rng: Rng) -> Tensor:
        """Convert the result of `Modality.decode` to float32 of `input_shape`; raises `ClipError` if it cannot."""

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of what `prepare` returns."""
        return self.input_shape

    @property
    def prepared_dtype(self) -> str:
        """Name of the torch data type of what `prepare` returns."""
        return "float32"

    def prepare(self, array: Array, rng: Rng) -> Prepared:
        """Do the part of the worker process; raises `ClipError` if the sample cannot be converted."""
        return Prepared(self(array, rng))

    def finish(self, values: Tensor, mirrored: Tensor | None) -> Tensor:
        """Convert a batch (b, …) of prepared values to the tower's input (b, …), on the device of ``values``.

        ``mirrored`` is (b,) bool, or None if no sample is to be mirrored.
        """
        return values


class DeviceTransform(Transform):
    """A `Transform` in two parts: `prepare` in a worker process, with all random draws, and `finish` on the device."""

    @property
    @abstractmethod
    def prepared_shape(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def prepared_dtype(self) -> str: ...

    @abstractmethod
    def prepare(self, array: Array, rng: Rng) -> Prepared: ...

    @abstractmethod
    def finish(self, values: Tensor, mirrored: Tensor | None) -> Tensor: ...

    def __call__(self, array: Array, rng: Rng) -> Tensor:
        """Do both parts at once, on the CPU."""
        prepared = self.prepare(array, rng)
        mirrored = prepared.values.new_ones(1).bool() if prepared.is_mirrored else None
        return self.finish(prepared.values[None], mirrored)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a report shows of a sample: images (h, w, 3) uint8 RGB or audio samples, and a note for the heading."""

    images: Sequence[Array] = field(default_factory=list)
    samples: Array | None = None
    note: str = ""


class Modality(ABC):
    """One modality; once registered, a single instance serves every part of vidal."""

    layer: ClassVar[str]
    """Name of the layer in a dataset and of the tower in a training recipe."""
    transform: ClassVar[type[Transform]]
    heading: ClassVar[str] = ""
    """Heading of its strip in a report; by default the name of the layer."""

    @property
    @abstractmethod
    def prompts(self) -> Sequence[str]:
        """Prompt templates of zero-shot classification, with ``{c}`` for the class name."""

    @abstractmethod
    def takes(self, suffix: str) -> bool:
        """Return whether a member belongs to the modality, by its suffix (the part after the key): ``depth.3.png``."""

    @abstractmethod
    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        """Return the suffixes of the members to decode, by frame number and in temporal order."""

    @abstractmethod
    def decode(self, members: Mapping[str, bytes]) -> Array:
        """Decode a sample from its members by suffix; the bytes are untrusted. Raises `ClipError` for damaged data."""

    @abstractmethod
    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        """Return what a report shows of a decoded sample; ``row`` is its manifest row."""
