"""The stage protocol: all that the author of a stage has to write.

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

A stage changes the clip in place, rejects it with `Clip.reject`, or raises. A `ClipError` fails the clip with its
reason; any other exception fails it with a reason named after the exception. The engine takes care of order, batches,
timing, retries, deadlines and progress for every stage.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.record import Column
from vidal.rows import TableLike

IN_WORKER = frozenset({"source_file", "source_facts"})
"""Working state passed between stages in one worker; lost at a global decision and where the hardware changes."""


class Resources(BaseModel):
    """What a worker of the stage needs; excluded from the fingerprint, as it changes no byte of the output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: float = Field(0.0, ge=0)
    """GPUs per worker; on a machine with a GPU, stages that use it run in separate workers."""
    batch_size: int = Field(1, ge=1)
    """Clips passed to `Stage.process_batch` at once."""
    timeout_s: float | None = Field(300.0, gt=0)
    """Wall-clock limit for one clip, after which the watchdog ends the worker; none for a stage that waits for a
    remote service and keeps its own deadlines."""


Waiting = Callable[[], AbstractContextManager[Callable[[], None]]]
"""The context of a stage that waits and computes nothing itself; gives a function that asks for another shard."""


class Shared(Protocol):
    """A proxy of an object of which the whole run has one; may be called from any thread."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; arguments and result are plain values."""


class Direct:
    """The object itself, with its methods called one at a time."""

    def __init__(self, target: object) -> None:
        self._target = target
        self._lock = threading.Lock()

    def call(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            return getattr(self._target, method)(*arguments)


class Step(BaseModel):
    """A line of a recipe: its settings are the fields of the class, declared once."""

    # Pydantic keeps names that begin with `model_` for itself; a stage may have a setting of such a name.
    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())

    version: ClassVar[int] = 1
    """Incremented when the same settings produce different output."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Columns, layers (``"video"``, ``"audio"``) and `IN_WORKER` state that the step requires."""
    writes: ClassVar[tuple[str, ...]] = ()
    """Columns of `vidal.clip.Clip`, layers and `IN_WORKER` state that the step provides."""
    columns: ClassVar[Mapping[str, Column]] = {}
    """Columns that the step adds to those of `vidal.clip.Clip`, by name; not repeated in `writes`."""

    useless_without: ClassVar[Mapping[str, str]] = {}
    """Settings that only a later stage makes use of, with its name; a recipe that sets one without it is rejected."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Optional modules that the step imports; a recipe is rejected if one of them is not installed."""
    not_fingerprinted: ClassVar[tuple[str, ...]] = ()
    """Settings excluded from the fingerprint, as they change no byte of the output."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """Settings that are never stored in the dataset, such as cookies."""

    @classmethod
    def step_name(cls) -> str:
        """Return the name in a recipe: ``too_long`` for ``TooLong``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def requires(self) -> tuple[str, ...]:
        """Return which of ``reads`` must be there with the settings given; by default all."""
        return self.reads

    def identity(self) -> dict[str, Any]:
        """Return what the output depends on: name, version, settings, models and declared columns, as JSON values."""
        identity = {
            "name": self.step_name(),
            "version": self.version,
            "settings": self.model_dump(mode="json", exclude={"resources", *self.not_fingerprinted}),
            "models": self.named_models(),
        }
        declared = {name: column.kind for name, column in self.columns.items()}
        return identity | ({"columns": declared} if declared else {})

    def named_models(self) -> dict[str, str]:
        """Return `model_identities`; the `ModelError` of a missing model names this step."""
        try:
            return self.model_identities()
        except ModelError as error:
            raise ModelError(f"{self.step_name()}: {error}") from error

    def model_identities(self) -> dict[str, str]:
        """Return the identity of each model by setting: a hub id with its revision, or a file's hash."""
        return {}


class Stage(Step):
    """A step that processes clips; created once per worker."""

    default_resources: ClassVar[Resources] = Resources()
    layers: ClassVar[tuple[str, ...]] = ()
    """Layers that the stage adds members to."""
    rewrites: ClassVar[tuple[str, ...]] = ()
    """Layers whose members the stage replaces, to hide something in them: what shows them must be made after it."""
    keeps_thumbnail: ClassVar[bool] = True
    """Whether a clip that it rejects has a thumbnail in its row."""
    resources: Resources | None = None
    """The recipe's overrides of `default_resources`."""

    @property
    def needs(self) -> Resources:
        """The stage's resources: `default_resources` with the recipe's overrides."""
        given = self.resources.model_dump(exclude_unset=True) if self.resources else {}
        return self.default_resources.model_copy(update=given)

    def facts(self) -> Mapping[str, str]:
        """Return what `vidal doctor` reports of the stage beside its models, after `setup`: a line each, by subject."""
        return {}

    def doubts(self) -> list[str]:
        """Return why results of the stage would be of no use, a line each, for `vidal doctor`; called after `setup`."""
        return []

    def warnings(self) -> list[str]:
        """Return what is to be mended soon, a line each, for `vidal doctor`, which passes nevertheless."""
        return []

    def check_candidates(self, urls: Iterable[str]) -> None:
        """Raise `UserError` for an address that no run could take; called once, before the plan is written."""

    def setup(self) -> None:
        """Load models and the like, once per worker; an error here, such as a `ModelError`, stops the run.

        One thread at a time calls a stage, but not always the thread of this call.
        """

    def shared(self) -> object | None:
        """Return an object that all workers of the run share, such as a budget, or None.

        Arguments and results of its methods are plain values. One with a ``cluster_name`` is shared by all runs on a
        Ray cluster.
        """
        return None

    def bind(self, proxy: Shared) -> None:
        """Receive a proxy of the shared object, before `setup`: ``proxy.call("method", …)``, from any thread."""

    def usage(self, proxy: Shared) -> dict[str, dict[str, float]]:
        """Return what the shared object has counted of the run so far, by whatever it counts; stored with the dataset.

        Called in the driver, on another copy of the stage than those of the workers.
        """
        return {}

    def withhold(self, is_removed: Callable[[Clip], bool]) -> None:
        """Receive, before `setup`, the test for clips on the list of removals.

        For a stage that learns whose a clip is: it rejects such a clip instead of asking anybody for more of it.
        """

    def wait_in(self, waiting: Waiting) -> None:
        """Receive, before `setup`, the context in which a worker makes another shard while this stage waits.

        Not called where a worker makes one shard at a time, nor with a ``timeout_s``, which would end both.
        """

    def process(self, clip: Clip) -> None:
        """Change the clip in place or reject it; a `ClipError`, or any other exception, fails it."""
        raise TypeError(f"{type(self).__name__} defines neither process nor process_batch")

    def process_batch(self, clips: Sequence[Clip]) -> None:
        """Process up to ``needs.batch_size`` clips; if it raises, the clips are retried one by one."""
        for clip in clips:
            self.process(clip)


class Decision(Step):
    """A global decision: made once over the whole manifest, in plan order, between two groups of stages."""

    def after(self, earlier: Sequence[str]) -> Decision:
        """Return the decision that gives the clips of the datasets at these addresses precedence over new ones.

        The outcomes of the earlier clips stay. By default a decision ignores them.
        """
        return self

    def decide(self, rows: TableLike) -> TableLike:
        """Return the columns to set, with ``clip_id``, for some clips of the manifest.

        ``rows`` has ``clip_id``, ``status`` and the columns that the decision reads, in plan order, and need not fit
        into memory; `vidal.rows.whole` gives it as a table. A result in memory may be in any order, one that is read
        part by part is in plan order.
        """
        raise NotImplementedError


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a JSON value's canonical form."""
    # Sorted, as a mapping whose keys come in another order is the same recipe.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
