"""The stage protocol: what a stage author writes, and nothing else.

    class TooLong(Stage):
        '''Rejects clips longer than ``max_s`` seconds.'''

        reads = ("duration_s",)
        max_s: float = Field(20.0, gt=0)

        def process(self, clip: Clip) -> None:
            if clip.duration_s > self.max_s:
                clip.reject("too_long", f"{clip.duration_s:.2f} s > {self.max_s:g} s")

A stage that writes a new column declares it, with its type and meaning. It is then in the manifest, the ``json``
members, conditions, ``vidal why`` and the report, and other stages read it by its name:

    class Colourfulness(Stage):
        '''Measures how colourful the stored frames are.'''

        reads = ("video",)
        columns = {"colourfulness": Column(float, "mean distance of the colours from grey, 0 = grey")}

        def process(self, clip: Clip) -> None:
            clip["colourfulness"] = float(np.mean([np.ptp(frame, axis=2).mean() for frame in clip.work.frames()]))

    class TooGrey(Stage):
        '''Rejects clips less colourful than ``min``.'''

        reads = ("colourfulness",)
        min: float = Field(5.0, ge=0)

        def process(self, clip: Clip) -> None:
            if (value := clip["colourfulness"]) < self.min:
                clip.reject("too_grey", f"{value:.1f} < {self.min:g}", value=value, limit=self.min)

A stage changes the clip in place, rejects it with `Clip.reject`, or raises: `ClipError` for a named
reason, anything else becomes a failure named after the exception. The engine does the rest for every
stage: order, batches, timing, retries, deadlines, progress.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.record import Column

IN_WORKER = frozenset({"source_file", "source_facts"})
"""What stages hand each other in one worker: lost at a global decision and where the hardware changes."""


class Resources(BaseModel):
    """What a worker of the stage needs; left out of the fingerprint, as it changes no byte of the output."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    gpus: float = Field(0.0, ge=0)
    """GPUs of one worker; stages that want one run in workers of their own where there is one."""
    batch_size: int = Field(1, ge=1)
    """Clips given to `Stage.process_batch` at once."""
    timeout_s: float | None = Field(300.0, gt=0)
    """Wall-clock limit for one clip, after which the watchdog ends the worker; none for a stage that waits for others
    and keeps its own deadlines."""


class Step(BaseModel):
    """A line of a recipe: its settings are the fields of the class, declared once."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    version: ClassVar[int] = 1
    """Raised when the same settings give other output."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Columns, layers (``"video"``, ``"audio"``) and what is `IN_WORKER` that must be there before."""
    writes: ClassVar[tuple[str, ...]] = ()
    """Columns of `vidal.clip.Clip`, layers and what is `IN_WORKER` that are there after."""
    columns: ClassVar[Mapping[str, Column]] = {}
    """The columns that the step writes and that `vidal.clip.Clip` has no field for, by name; not named in `writes`."""

    imports: ClassVar[tuple[str, ...]] = ()
    """Modules beyond the plain install that the step may import; where one is missing, its recipe is refused."""
    whereabouts: ClassVar[tuple[str, ...]] = ()
    """Settings that say where something is rather than what it is: no part of the identity."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """Settings that stand in no file of the data set."""

    @classmethod
    def step_name(cls) -> str:
        """The name in a recipe: ``TooLong`` is ``too_long``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def identity(self) -> dict[str, Any]:
        """What the output depends on: name, version, settings, declared columns and the identity of every model."""
        identity = {
            "name": self.step_name(),
            "version": self.version,
            "settings": self.model_dump(mode="json", exclude={"resources", *self.whereabouts}),
            "models": self.named_models(),
        }
        declared = {name: column.kind for name, column in self.columns.items()}
        return identity | ({"columns": declared} if declared else {})

    def named_models(self) -> dict[str, str]:
        """`model_identities`, where the error of a model that is not there names this step."""
        try:
            return self.model_identities()
        except ModelError as error:
            raise ModelError(f"{self.step_name()}: {error}") from error

    def model_identities(self) -> dict[str, str]:
        """Identity of each model that the step would load, by setting: a hub id with revision, or a file's hash."""
        return {}


class Stage(Step):
    """One step of a recipe, made once per worker."""

    default_resources: ClassVar[Resources] = Resources()
    layers: ClassVar[tuple[str, ...]] = ()
    """Layers that the stage adds members to."""
    resources: Resources | None = None
    """Overrides of `default_resources`, by the recipe."""

    @property
    def needs(self) -> Resources:
        """The stage's resources, with the recipe's word on those that it names."""
        given = self.resources.model_dump(exclude_unset=True) if self.resources else {}
        return self.default_resources.model_copy(update=given)

    def setup(self) -> None:
        """Load what is loaded once per worker; an error here stops the run."""

    def shared(self) -> object | None:
        """An object of which the whole run has one, such as a budget; its methods take and give plain values."""
        return None

    def bind(self, proxy: Any) -> None:
        """Called before `setup` with a proxy of that object: ``proxy.call("method", …)``, from any thread."""

    def process(self, clip: Clip) -> None:
        raise TypeError(f"{type(self).__name__} defines neither process nor process_batch")

    def process_batch(self, clips: Sequence[Clip]) -> None:
        """Process up to ``needs.batch_size`` clips; tried clip by clip if it raises."""
        for clip in clips:
            self.process(clip)


class Decision(Step):
    """A global decision: made once over the whole manifest, in plan order, between two groups of stages."""

    def after(self, earlier: Sequence[str]) -> Decision:
        """The decision where the clips of the datasets at these addresses come first, and keep their outcomes.

        By default they have no part in it.
        """
        return self

    def decide(self, rows: pa.Table) -> pa.Table:
        """Take the manifest in plan order; give ``clip_id`` and the columns to set for the clips concerned."""
        raise NotImplementedError


def digest(value: Any) -> str:
    """Sixteen hex digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
