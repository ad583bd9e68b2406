"""`Modality`: all that is particular to one modality, and `Transform`: what its arrays become for a tower."""

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
"""Endings of formats whose decoder sees a changed byte by itself."""


class Transform(BaseModel, ABC):
    """Settings of a modality's preparation; called, it makes a tower's input of a decoded sample.

    With a generator it draws (training); without one it is a function of its input (evaluation).
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @abstractmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        """The settings that make inputs of a tower's size; ``frames`` is None where the tower does not say."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample's input."""

    def frames_to_read(self, stored: int, rng: Rng, frame: int | None = None) -> list[int]:
        """Which of the stored members are wanted, by place; ``frame`` is the place that the sample's text is of.

        Raises `ClipError` where too few are stored.
        """
        return list(range(stored))

    @abstractmethod
    def __call__(self, array: Array, rng: Rng) -> Tensor:
        """What `Modality.decode` gave to float32 of `input_shape`; raises `ClipError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a report shows of a clip: images (h, w, 3) uint8, or samples of audio, and a note beside the heading."""

    images: Sequence[Array] = field(default_factory=list)
    samples: Array | None = None
    note: str = ""


class Modality(ABC):
    """One modality; made once, and known to every part of vidal when it is registered."""

    layer: ClassVar[str]
    """Name of the layer in a dataset, and of the tower in a training recipe."""
    transform: ClassVar[type[Transform]]
    heading: ClassVar[str] = ""
    """Over its strip in a report; by default the layer's name."""

    @property
    @abstractmethod
    def prompts(self) -> Sequence[str]:
        """Templates of zero-shot classification, with ``{c}`` for the class."""

    @abstractmethod
    def takes(self, suffix: str) -> bool:
        """Whether a member is of this modality, by its suffix, what stands behind the key: ``depth.3.png``."""

    @abstractmethod
    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        """The suffixes of the members that are decoded, by frame number, in order of time."""

    @abstractmethod
    def decode(self, members: Mapping[str, bytes]) -> Array:
        """The array of a sample's members, by suffix. The bytes are untrusted: raises `ClipError`."""

    @abstractmethod
    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        """What a report shows of a decoded sample with this manifest row."""
