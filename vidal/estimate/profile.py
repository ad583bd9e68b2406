"""`Profile`: what a few clips of a recipe cost, stage by stage; a JSON file that `vidal plan` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from vidal.engine.worker import COMMIT
from vidal.errors import SourceError
from vidal.recipe import steps_of
from vidal.stage import Stage

Floats = npt.NDArray[np.float64]
MB = 1e6


class StageCost(BaseModel):
    """The cost of one stage."""

    model_config = ConfigDict(extra="forbid")

    name: str
    group: int
    """The number within the phase of the stages that run in the same workers."""
    gpus: float
    """GPUs of a worker; 0 if there was none to measure with."""
    setup_s: float
    """Seconds that a worker takes to load the stage's models: the median over workers."""
    clips: int
    """Candidates that reached the stage."""
    rejected: int
    failed: int
    seconds: list[float]
    """Worker seconds of each candidate, 0 for those that did not reach the stage. A batch's are shared out evenly."""
    cpu_s: float
    """CPU seconds of all candidates together."""
    shard_s: float = 0.0
    """Seconds that it spends on a shard as a whole."""

    @property
    def reached(self) -> Floats:
        """Worker seconds of the candidates that the stage was given."""
        seconds = np.array(self.seconds)
        return seconds[seconds > 0]


class PhaseCost(BaseModel):
    """The stages between two global decisions, and what they store."""

    model_config = ConfigDict(extra="forbid")

    start_s: float
    """Seconds until the first worker computes, without the setup of its stages."""
    stages: list[StageCost]
    bytes: dict[str, list[float]]
    """Bytes that each candidate adds to a layer's tars, or to the ``manifest``."""


class HostCost(BaseModel):
    """The requests to a host, or to a platform, for all candidates."""

    model_config = ConfigDict(extra="forbid")

    name: str
    visits: int
    requests: int
    per_s: float
    """Requests per second that the recipe allows all workers together."""

    @property
    def is_frequent(self) -> bool:
        """Whether it was met more than once: of a host met once, its share among many clips is not known."""
        # The media of a platform have a rate of their own, and no visits.
        return self.visits > 1 or (self.visits == 0 and self.requests > 1)


class Profile(BaseModel):
    """What the first candidates of a recipe's plan cost."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    recipe: str
    made_by: str
    engine: str
    workers: int
    """Workers that ran side by side."""
    has_gpu: bool
    candidates: int
    kept: int
    shard_size: int
    """Candidates per shard in a build of the recipe."""
    gpu_workers: int | None
    """Workers per group of stages on a GPU, where the recipe sets them."""
    source_bytes: list[float]
    """Size of the fetched file of each candidate."""
    peak_bytes: int
    """Memory of the largest worker, with its largest child."""
    phases: list[PhaseCost]
    hosts: list[HostCost]

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile; raises `SourceError` for a file that is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}); `vidal profile` writes it") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise SourceError(
                f"{path}: not a profile of this version ({where}: {first['msg']}); make it with `vidal profile`"
            ) from None

    def check(self, recipe: Path, settings: Sequence[str]) -> None:
        """Raise `SourceError` if another recipe was profiled; the source may be another one."""
        steps = [step.step_name() for step in steps_of(recipe, settings) if isinstance(step, Stage)]
        profiled = [stage.name for phase in self.phases for stage in phase.stages if stage.name != COMMIT]
        if steps != profiled:
            raise SourceError(
                f"{recipe}: its stages are {', '.join(steps)}, those of the profile of {self.recipe} are "
                f"{', '.join(profiled)}; run `vidal profile {recipe}`"
            )

    def write(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=1) + "\n")

    def bytes_by_layer(self) -> dict[str, Floats]:
        """Return the bytes that each candidate adds to each layer, those of earlier phases as ``phase 1 video``."""
        last = len(self.phases)
        return {
            layer if number == last else f"phase {number} {layer}": np.array(sizes)
            for number, phase in enumerate(self.phases, 1)
            for layer, sizes in phase.bytes.items()
        }

    def lines(self) -> Iterator[str | Table]:
        yield (
            f"{self.recipe}: {self.candidates} candidates, {self.kept} kept; engine {self.engine}, {self.workers} "
            f"workers, {'with a' if self.has_gpu else 'no'} GPU"
        )
        table = Table("stage", "clips", "rejected", "failed", "s/clip", "10–90 %", "CPU s/clip", "start-up s", "on")
        for row in self._rows():
            table.add_row(
                row["stage"], str(row["clips"]), str(row["rejected"]), str(row["failed"]), f"{row['s_per_clip']:.3g}",
                f"{row['p10_s']:.3g}–{row['p90_s']:.3g}", f"{row['cpu_s_per_clip']:.3g}", f"{row['setup_s']:.2g}",
                "GPU" if row["gpus"] else "CPU",
            )  # fmt: skip
        yield table
        out = ", ".join(f"{name} {sizes.mean() / MB:.3g}" for name, sizes in self.bytes_by_layer().items())
        yield f"MB per candidate: in {np.mean(self.source_bytes) / MB:.3g}; out {out}"
        yield f"memory of a worker: {self.peak_bytes / MB:,.0f} MB"
        for host in self.hosts:
            each = host.requests / self.candidates
            yield f"{host.name}: {each:.2f} requests per candidate, {host.per_s:.3g} allowed per second"

    def as_json(self) -> dict[str, Any]:
        return {
            "candidates": self.candidates, "kept": self.kept, "workers": self.workers, "stages": list(self._rows()),
            "bytes_in": float(np.mean(self.source_bytes)),
            "bytes_out": {name: float(sizes.mean()) for name, sizes in self.bytes_by_layer().items()},
            "peak_bytes": self.peak_bytes, "hosts": [host.model_dump() for host in self.hosts],
        }  # fmt: skip

    def _rows(self) -> Iterator[dict[str, Any]]:
        for number, phase in enumerate(self.phases, 1):
            for stage in phase.stages:
                reached = stage.reached if len(stage.reached) else np.zeros(1)
                yield {
                    "stage": stage.name, "phase": number, "gpus": stage.gpus, "clips": stage.clips,
                    "rejected": stage.rejected, "failed": stage.failed, "s_per_clip": float(reached.mean()),
                    "p10_s": float(np.quantile(reached, 0.1)), "p90_s": float(np.quantile(reached, 0.9)),
                    "cpu_s_per_clip": stage.cpu_s / max(stage.clips, 1), "setup_s": stage.setup_s,
                }  # fmt: skip
