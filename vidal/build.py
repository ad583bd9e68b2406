"""`build`, `retry`, `add` and `grow`: the library functions behind the commands of the same names."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from vidal import extras
from vidal.dataset import revisions
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals, load_all
from vidal.dataset.storage import Storage
from vidal.engine.driver import Run, is_complete
from vidal.engine.driver import build as drive
from vidal.engine.job import Engine
from vidal.engine.progress import LiveProgress
from vidal.errors import MachineError, NothingNewError, OutputError, RecipeError, UserError
from vidal.models.inventory import require
from vidal.recipe import Recipe, again
from vidal.removal.unmatched import unmatched
from vidal.report.funnel import Funnel
from vidal.report.summary import as_json, as_table, funnel_of, stage_order
from vidal.revisions.add import add as add_to
from vidal.revisions.add import is_there
from vidal.revisions.add import load as load_addition
from vidal.revisions.grow import grow as grow_to
from vidal.revisions.grow import load as load_growth
from vidal.revisions.revise import finished, refuse_listed

EngineName = Literal["ray", "local"]

_REJECTED_BY_PLAN = ("plan", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """The result of `build`, `retry`, `add` or `grow`."""

    out: str
    did_nothing: bool
    funnel: Funnel
    stage_order: list[str]
    wall_s: float
    stage_seconds: dict[str, float]
    notes: list[str]
    """Lines about unreadable cells and skipped files of the source, and what the removals name in vain."""
    before: Funnel = field(default_factory=Funnel)
    """Of a revision: the outcomes of the clips that the run had nothing to do with."""

    def verdict(self) -> MachineError | None:
        """Return an error if every clip of the run failed, which is rarely caused by the clips; otherwise None."""
        departures = self.funnel.departures - self.before.departures
        failures = Counter({line: clips for line, clips in departures.items() if line[1] == "failed"})
        # What the plan rejects, such as an address that is listed twice, is no clip to process.
        planned = sum(clips for (stage, status, _), clips in departures.items() if (stage, status) == _REJECTED_BY_PLAN)
        candidates = self.funnel.candidates - self.before.candidates - planned
        if not failures or failures.total() < candidates:
            return None
        (stage, _, reason), clips = failures.most_common(1)[0]
        return MachineError(
            f"{self.out}: every candidate failed, {clips} of {candidates} in stage {stage} with reason {reason}; "
            f"`vidal why {self.out} CLIP` shows the details of one"
        )

    def lines(self) -> Iterator[str | Table]:
        if self.did_nothing:
            yield f"{self.out}: nothing to do, every shard is committed"
        yield as_table(self.funnel, self.stage_order)
        if not self.did_nothing:
            slowest = sorted(self.stage_seconds.items(), key=lambda stage: -stage[1])[:5]
            stages = ", ".join(f"{name} {s:.1f}" for name, s in slowest)
            yield f"{self.out} in {self.wall_s:.0f} s; worker seconds: {stages}"

    def as_json(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "did_nothing": self.did_nothing,
            "wall_s": round(self.wall_s, 3),
            "stage_seconds": {name: round(s, 3) for name, s in sorted(self.stage_seconds.items())},
            "notes": self.notes,
            **as_json(self.funnel, self.stage_order),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """The engine of a build and its size; none of it changes a byte of the output."""

    engine: EngineName = "ray"
    workers: int | None = None
    ray_address: str | None = None

    @property
    def cluster(self) -> str | None:
        """The address of the Ray cluster to join; None for a private Ray, or none."""
        return (self.ray_address or os.environ.get("RAY_ADDRESS")) if self.engine == "ray" else None

    def check_reach(self, out: str) -> None:
        """Raise `UserError` for a dataset that the nodes of a cluster would look for elsewhere than the driver."""
        if self.cluster is not None and "://" not in out and not Path(out).is_absolute():
            raise UserError(
                f"{out}: a cluster's nodes have working folders of their own; name the whole path on a file system "
                f"that all have, or an address such as s3://bucket/{Path(out).name}"
            )

    def start(self, recipe: Recipe) -> Engine:
        """Create the engine, which starts with its first job; raises `UserError` for invalid settings."""
        if self.workers is not None and self.workers < (0 if self.engine == "local" else 1):
            raise UserError(f"--workers {self.workers}: at least 1 (0, in this process, is for --engine local)")
        if self.engine == "local":
            from vidal.engine.local import InProcessEngine, PoolEngine

            return InProcessEngine() if self.workers == 0 else PoolEngine(self.workers or os.cpu_count() or 1)
        # Ray is an extra: a machine with `--engine local` alone need not have it.
        extras.require({"--engine ray": ["ray"]})
        from vidal.engine.ray import RayEngine
        from vidal.engine.ray_cluster import RayCluster

        settings = recipe.engine
        cluster = RayCluster(
            address=self.cluster,
            workers=self.workers,
            dashboard=settings.dashboard,
            object_store_bytes=settings.object_store_bytes,
        )
        return RayEngine(cluster, self.workers, settings.gpu_workers)


def build(recipe: Recipe, out: str, how: How, console: Console, *, quiet: bool = False) -> BuildResult:
    """Build a dataset, or resume its build. Raises `VidalError`; committed shards stay.

    Example: ``build(load("shorts.yaml"), "data/shorts", How(engine="local"), Console())``.
    """
    started = time.monotonic()
    storage = Storage(out)
    # Asked before the engine starts, so that a rerun of a complete build loads no Ray and no model.
    if is_complete(recipe, storage):
        return _result(out, started, did_nothing=True)
    return _drive(recipe, out, how, console, quiet=quiet)


def retry(
    out: str,
    how: How,
    console: Console,
    *,
    reasons: Sequence[str],
    clip_ids: Sequence[str] = (),
    settings: Sequence[str] = (),
    quiet: bool = False,
) -> BuildResult:
    """Retry failed clips: those with the given reasons or ids, by default all transient failures.

    ``settings`` are ``key.path=value`` for settings that the dataset does not store: cookies, a proxy, host rules.
    Raises `OutputError` if the build is not complete, `UserError` if no clip failed with a given reason or has a given
    id, and any other `VidalError` of a build.
    """
    started = time.monotonic()
    dataset = Dataset.open(out)
    # First, as a retry that was killed may have left out the very shards that have what is named.
    if len(dataset.committed()) < dataset.info.shards:
        raise OutputError(f"{out}: not complete yet; finish `vidal build` before a retry")
    chosen: defaultdict[int, dict[str, int]] = defaultdict(dict)
    known, absent = set(), set(clip_ids)
    for row in dataset.rows(["clip_id", "shard", "status", "reason", "is_transient", "attempts"]):
        absent.discard(row["clip_id"])
        if row["status"] != "failed":
            continue
        known.add(row["reason"])
        # What is named is retried even where it counts as permanent: the user may have removed the cause.
        by_name = row["reason"] in reasons or row["clip_id"] in clip_ids
        if by_name or (not reasons and not clip_ids and row["is_transient"]):
            chosen[row["shard"]][row["clip_id"]] = row["attempts"]
    if unknown := sorted(set(reasons) - known):
        raise UserError(
            f"{out}: no clip failed with reason {unknown[0]}; reasons: {', '.join(sorted(known)) or 'none'}"
        )
    if absent:
        raise UserError(f"{out}: no such clip: {', '.join(sorted(absent))}; nothing was retried")
    if not chosen:
        return _result(out, started, did_nothing=True)
    dataset.own_tars("and has no recipe to run again; fix the tars and index them again")
    revisions.refuse(dataset.storage, "vidal retry")
    try:
        recipe = again(dataset.info.definition, settings, f"{dataset.storage.address}/dataset.json")
    # A definition stored by another version may name a stage or a setting that no longer exists.
    except RecipeError as error:
        raise RecipeError(f"{error}; this dataset was written by {dataset.info.created_by}") from None
    return _drive(recipe, out, how, console, quiet=quiet, retry=chosen)


def add(
    path: Path, address: str, how: How, console: Console, *, settings: Sequence[str] = (), quiet: bool = False
) -> BuildResult:
    """Run a recipe's stages over a finished dataset; their columns and layers become a revision of it.

    Only the layers that a stage reads are read, and no existing tar is written. Raises `VidalError`; committed shards
    stay, and the same call resumes. Example: ``add(Path("depth.yaml"), "data/vidal", How(), Console())``.
    """
    started = time.monotonic()
    base = finished(address)
    if is_there(path, settings, base):
        return _result(address, started, did_nothing=True)
    recipe = load_addition(path, settings, base)
    refuse_listed(base, recipe.removals)
    before = funnel_of(base)
    result = _drive(recipe, address, how, console, quiet=quiet, work=lambda run: add_to(run, path, base))
    # The stages run over the kept clips.
    return replace(result, before=replace(before, candidates=before.candidates - before.kept))


def grow(
    address: str,
    source: Sequence[str],
    how: How,
    console: Console,
    *,
    settings: Sequence[str] = (),
    quiet: bool = False,
) -> BuildResult:
    """Build further candidates with a finished dataset's own recipe; the whole becomes a revision of it.

    ``source`` is ``kind=value``, such as ``list=more.csv``; candidates already in the dataset are skipped, so the list
    may contain them. ``settings`` are ``key.path=value`` for settings that the dataset does not store, such as
    ``fetch.cookies``. Raises `VidalError`; committed shards stay, and the same call resumes.
    """
    started = time.monotonic()
    base = finished(address)
    recipe = load_growth(base, source, settings)
    refuse_listed(base, recipe.removals)
    try:
        result = _drive(recipe, address, how, console, quiet=quiet, work=lambda run: grow_to(run, base, source))
    except NothingNewError:
        return _result(address, started, did_nothing=True)
    return replace(result, before=funnel_of(base))


def _drive(
    recipe: Recipe, out: str, how: How, console: Console, *, quiet: bool, retry: Mapping[int, Mapping[str, int]] = {},
    work: Callable[[Run], None] = drive,
) -> BuildResult:  # fmt: skip
    started = time.monotonic()
    how.check_reach(out)
    # Checked up front: a phase may take days before the workers of the next one load their models.
    require(recipe.stages)
    engine = how.start(recipe)
    with LiveProgress(console, quiet=quiet) as progress:
        try:
            # Asked only for a stage that wants one, as the answer may take the start of Ray, or an import of torch.
            have_gpu = any(stage.needs.gpus for stage in recipe.stages) and engine.has_gpu()
            removed = Removals.of(Dataset.open(out)) if retry else Removals()
            run = Run(recipe, Storage(out), engine, progress, have_gpu=have_gpu, retry=retry, removed=removed)
            work(run)
            removal_notes = _removal_notes(recipe, out)
            for note in removal_notes:
                progress.note(note)
        finally:
            # After an error and Ctrl-C, too: no worker may outlive the command.
            engine.close()
    result = _result(out, started, stage_seconds=dict(progress.seconds))
    return replace(result, notes=[*result.notes, *removal_notes])


def _removal_notes(recipe: Recipe, out: str) -> list[str]:
    """Return a line that names what the recipe's removals list in vain; it is told, and stored in no dataset."""
    # A source that asks the web leaves what is listed out of the plan, where no match can be seen afterwards.
    if not recipe.removals or recipe.source.asks:
        return []
    missing = unmatched(Dataset.open(out), load_all(recipe.removals))
    more = f" and {len(missing) - 20:,} more" if len(missing) > 20 else ""
    return [f"removals: not found in {out}: {', '.join(missing[:20])}{more}"] if missing else []


def _result(
    out: str, started: float, *, did_nothing: bool = False, stage_seconds: dict[str, float] | None = None
) -> BuildResult:
    dataset = Dataset.open(out)
    return BuildResult(
        out=out,
        did_nothing=did_nothing,
        funnel=funnel_of(dataset),
        stage_order=stage_order(dataset),
        wall_s=time.monotonic() - started,
        stage_seconds=stage_seconds or {},
        notes=dataset.plan.notes,
    )
