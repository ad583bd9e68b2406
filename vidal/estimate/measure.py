"""`profile`: builds a few candidates of a recipe into a temporary dataset, and keeps what each stage spent."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import vidal
from vidal.build import How
from vidal.dataset import usage
from vidal.dataset.dataset import Dataset
from vidal.dataset.manifest import tar_name
from vidal.dataset.storage import Storage
from vidal.engine.driver import Run, build
from vidal.engine.job import ShardReport, Trace, cut_into_groups
from vidal.engine.progress import LiveProgress
from vidal.engine.worker import COMMIT
from vidal.errors import UserError
from vidal.estimate.profile import HostCost, PhaseCost, Profile, StageCost
from vidal.models.inventory import require
from vidal.recipe import Phase, Recipe, load

Rows = list[dict[str, Any]]


def profile(
    path: Path, how: How, console: Console, *, clips: int = 32, settings: Sequence[str] = (), quiet: bool = False
) -> Profile:
    """Return the profile of a recipe's first candidates in the order of its plan, which is random.

    Raises `VidalError`. Example: ``profile(Path("shorts.yaml"), How(engine="local"), Console())``.
    """
    recipe = load(path, settings)
    if recipe.source.asks:
        raise UserError(
            f"{path}: a profile does not search the web; give it some of the addresses: --set source.urls=[…]"
        )
    require(recipe.stages)
    workers = how.workers or os.cpu_count() or 1
    largest = max((stage.needs.batch_size for stage in recipe.stages), default=1)
    # As many workers at once as in a build, and batches as large.
    size = min(recipe.shards.size, max(-(-clips // workers), min(recipe.engine.window, largest)))
    sample = replace(recipe, shards=recipe.shards.model_copy(update={"size": size}))
    engine, recorder = how.start(sample), _Recorder(console, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="vidal-profile-") as folder, recorder:
        try:
            have_gpu = any(stage.needs.gpus for stage in recipe.stages) and engine.has_gpu()
            build(Run(sample, Storage(f"{folder}/out"), engine, recorder, have_gpu=have_gpu, sample=clips))
        finally:
            engine.close()
        dataset = Dataset.open(f"{folder}/out")
        rows = list(dataset.rows(["clip_id", "status", "stage", "source_bytes"]))
        hosts = _hosts(dataset)
        phases = [
            _phase(sample, index, recorder.phases[index], dataset, rows, hosts, have_gpu=have_gpu)
            for index in range(len(sample.phases()))
        ]
    return Profile(
        recipe=recipe.name, made_by=f"vidal {vidal.__version__}",
        engine=how.engine, workers=min(workers, dataset.info.shards), has_gpu=have_gpu, candidates=len(rows),
        kept=sum(row["status"] == "kept" for row in rows), shard_size=recipe.shards.size,
        gpu_workers=recipe.engine.gpu_workers, source_bytes=[row["source_bytes"] or 0 for row in rows],
        peak_bytes=max(trace.peak_bytes for phase in recorder.phases for trace in phase.traces),
        phases=phases, hosts=hosts,
    )  # fmt: skip


@dataclass(slots=True)
class _Recorded:
    """What was reported of a phase."""

    began: float
    first: float | None = None
    traces: list[Trace] = field(default_factory=list)


class _Recorder(LiveProgress):
    """Shows the progress, and keeps the traces."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        super().__init__(console, quiet=quiet)
        self.phases: list[_Recorded] = []

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        self.phases.append(_Recorded(began=time.monotonic()))
        super().begin_phase(number, phases, candidates, already)

    def update(self, report: ShardReport) -> None:
        self._begin(report)
        super().update(report)

    def done(self, report: ShardReport) -> None:
        self._begin(report)
        assert report.trace is not None
        self.phases[-1].traces.append(report.trace)
        super().done(report)

    def _begin(self, report: ShardReport) -> None:
        # The first report may come when its shard is under way, or even done.
        if self.phases[-1].first is None:
            self.phases[-1].first = time.monotonic() - sum(report.seconds.values())


def _phase(
    recipe: Recipe, index: int, recorded: _Recorded, dataset: Dataset, rows: Rows, hosts: Sequence[HostCost], *,
    have_gpu: bool,
) -> PhaseCost:  # fmt: skip
    phase: Phase = recipe.phases()[index]
    groups = cut_into_groups(phase.stages, have_gpu=have_gpu)
    ended = Counter((row["stage"], row["status"]) for row in rows)
    stages = []
    for number, group in enumerate(groups):
        names = [stage.step_name() for stage in group.stages]
        for name in [*names, COMMIT] if group is groups[-1] else names:
            stage = _stage(name, recorded.traces, [row["clip_id"] for row in rows], hosts if name == "fetch" else ())
            outcome = {"rejected": ended[name, "rejected"], "failed": ended[name, "failed"]}
            stages.append(StageCost(name=name, group=number, gpus=group.gpus, **outcome, **stage))
    assert recorded.first is not None
    setup_s = sum(stage.setup_s for stage in stages)
    part = dataset if phase.decision is None else Dataset.at(dataset.storage.child(f"phases/{index + 1}"))
    return PhaseCost(
        start_s=max(0.0, recorded.first - recorded.began - setup_s), stages=stages, bytes=_sizes(part, len(rows))
    )


def _stage(name: str, traces: Sequence[Trace], clip_ids: Sequence[str], hosts: Sequence[HostCost]) -> dict[str, Any]:
    """Return the numbers of a stage."""
    seconds, cpu_s, shard_s = dict.fromkeys(clip_ids, 0.0), 0.0, 0.0
    batches = [batch for trace in traces for batch in trace.batches if batch.stage == name]
    for batch in batches:
        cpu_s += batch.cpu_s
        if not batch.clip_ids:
            shard_s += batch.seconds / len(traces)
        for clip_id in batch.clip_ids:
            seconds[clip_id] += batch.seconds / len(batch.clip_ids)
    # What a worker waited for the rate of a host is the host's time, of which an estimate takes account by itself.
    total_s = sum(seconds.values())
    waited_s = len(traces) * max((host.requests / host.per_s for host in hosts), default=0.0)
    share = max(cpu_s, total_s - waited_s) / total_s if waited_s and total_s else 1.0
    return {
        "setup_s": statistics.median(trace.setup_s.get(name, 0.0) for trace in traces),
        "clips": sum(len(batch.clip_ids) for batch in batches),
        "seconds": [each * min(share, 1.0) for each in seconds.values()],
        "cpu_s": cpu_s,
        "shard_s": shard_s,
    }


def _sizes(part: Dataset, candidates: int) -> dict[str, list[float]]:
    """Return the bytes of each candidate in each layer; what is not a member, such as headers, is shared out."""
    members: dict[str, list[float]] = {layer: [] for layer in part.info.layers}
    for row in part.rows(["members"]):
        sizes = Counter[str]()
        for member in row["members"]:
            sizes[member["layer"]] += member["size"]
        for layer, each in members.items():
            each.append(float(sizes[layer]))
    shards = part.committed()
    found = {"manifest": [sum(part.storage.size(part.manifest_name(n)) for n in shards) / candidates] * candidates}
    for layer, each in members.items():
        stored = sum(part.storage.size(tar_name(layer, shard)) for shard in shards)
        # Divided by a byte at least: in a sample of which nothing was kept, a layer may have none.
        found[layer] = (np.array(each) * stored / max(sum(each), 1.0)).tolist()
    return found


def _hosts(dataset: Dataset) -> list[HostCost]:
    """Return what the run asked of each host; rates of their own for media count as a host."""
    total: dict[str, Counter[str]] = {}
    per_s: dict[str, float] = {}
    for counts in usage.read(dataset):
        for name, used in counts.items():
            total.setdefault(name, Counter()).update({"visits": int(used["visits"]), "requests": int(used["requests"])})
            per_s[name] = used["per_s"]
    return [
        HostCost(name=name, visits=used["visits"], requests=used["requests"], per_s=per_s[name])
        for name, used in sorted(total.items())
        if used["requests"]
    ]
