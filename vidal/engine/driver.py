"""The driver: completes a dataset from whatever state it is in.

    source → plan ─ phase 1 ─→ dataset ─ decision ─→ plan ─ phase 2 ─→ … → the dataset

Each phase but the last writes a dataset of its own under ``phases/``; a global decision over its manifest gives the
next phase's plan, with the same candidates in the same shards.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import vidal
from vidal.clip import SCHEMA_VERSION
from vidal.dataset import plan as plans
from vidal.dataset import planning, removals, revisions, usage
from vidal.dataset.dataset import Dataset, DatasetInfo, committed, read_info, write_info
from vidal.dataset.digests import Digests
from vidal.dataset.lock import Lock, renew
from vidal.dataset.removals import Removals
from vidal.dataset.revisions import INFO_NAME
from vidal.dataset.storage import Storage
from vidal.engine.decided import decided_plan, uncommit_changed
from vidal.engine.job import Assignment, Engine, Job, Progress, cut_into_groups
from vidal.errors import MachineError, NothingNewError, NotNowError, OutputError, StorageError, UserError
from vidal.flow import check_own_columns
from vidal.recipe import Phase, Recipe, fingerprint
from vidal.rows import TableLike, in_groups
from vidal.settings import differences
from vidal.stage import Decision

_SECRETS = f"{plans.DISCOVERED}/secrets.json"
"""Names of the secrets that a source is expanded with, while there is no ``dataset.json`` yet to keep them."""
_DEATHS_TO_FAIL = 2
"""At the first death the clip may have been one of a batch; at the second it was alone."""
# With no clip to blame, nothing changes from pass to pass; one such death may be chance.
_MAX_IDLE_PASSES = 3
_MOST_NAMED = 5
"""Hosts, or whatever is in the way of shards that stay open, in one line."""


class OpenShardsError(MachineError):
    """A run has built all it could, and shards stay open for another one."""


class RunProgress(Progress, Protocol):
    """Adds the phases of a run to the reports of its engine."""

    def begin_run(self, phases: Sequence[Sequence[str]]) -> None:
        """The run begins; ``phases`` are the names of the stages of each phase."""

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        """A phase begins; ``already`` of its candidates are committed."""

    def note(self, line: str) -> None:
        """Show a remark about the source to the user."""

    def line(self) -> str:
        """The state of the run in one line."""


@dataclass(slots=True)
class Run:
    """One call of `build`: the recipe, the output, the engine and the progress display."""

    recipe: Recipe
    storage: Storage
    engine: Engine
    progress: RunProgress
    have_gpu: bool = False
    retry: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Attempts so far of the clips to retry, by shard and id."""
    base: Dataset | None = None
    """The finished dataset that ``storage`` is a revision of, and the source of the clips with their members."""
    known: Digests | None = None
    """Digests of the ids of candidates to leave out of the plan."""
    removed: Removals = field(default_factory=Removals)
    """What was removed from the dataset that the run works on."""
    sample: int | None = None
    """For a profile: the number of candidates to build, the first of the plan; reports keep a trace of them."""


def is_complete(recipe: Recipe, storage: Storage) -> bool:
    """Return whether every shard is committed; raises `OutputError` if the folder belongs to a different recipe."""
    info = _check_owner(recipe, storage)
    return info is not None and set(committed(storage)) >= set(range(info.shards))


def build(run: Run) -> None:
    """Build every shard that is not committed yet. Raises `VidalError`; shards committed before the error stay."""
    info = _check_owner(run.recipe, run.storage)
    storage = run.storage
    if storage.is_local:
        try:
            storage.local_path().mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise OutputError(f"{storage.address}: part of the path is a file; --out must name a folder") from None
        except OSError as error:
            line = f"{storage.address}: cannot be written: {error.strerror}; choose another --out"
            raise StorageError(line) from error
    with Lock(storage, run.progress.line):
        _record_secrets(run, info)
        if run.retry:
            # Asked by the command before it waited for the lock.
            revisions.refuse(storage, "vidal retry")
        complete(run)


def complete(run: Run) -> None:
    """Resume every phase and run it to the end; the caller holds the lock."""
    phases = run.recipe.phases()
    run.progress.begin_run([[stage.step_name() for stage in phase.stages] for phase in phases])
    previous: Storage | None = None
    for index, phase in enumerate(phases):
        storage = run.storage if index == len(phases) - 1 else run.storage.child(f"phases/{index + 1}")
        _prepare(run, storage, index, previous, phases[index - 1].decision if index else None)
        _run_phase(run, phase, storage, previous, (index + 1, len(phases)))
        previous = storage
    # Those of workers that died in this run.
    run.storage.remove_temporaries()


def _check_owner(recipe: Recipe, storage: Storage) -> DatasetInfo | None:
    if storage.is_local and storage.local_path().is_file():
        raise OutputError(f"{storage.address}: is a file; --out must name a folder")
    info = read_info(storage)
    if info is None:
        # A run that was killed before its plan was complete leaves these; anything else is somebody's own.
        own = ("phases", plans.DISCOVERED, usage.FOLDER, plans.NAME)
        foreign = [name for name in storage.names("") if name not in own]
        if foreign and storage.is_local:
            raise OutputError(
                f"{storage.address}: the folder is not empty and has no {INFO_NAME} "
                f"(it contains {', '.join(foreign[:3])}); choose another --out, or empty the folder"
            )
        return None
    resolved = recipe.resolved()
    if info.fingerprint != fingerprint(resolved):
        changes = differences(info.recipe, resolved) or ["the schema or the engine's version"]
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise OutputError(
            f"{storage.address}: was built from a different recipe; differences: {'; '.join(changes[:5])}{more}. "
            f"Choose another --out for the new recipe, or delete {storage.address} to rebuild it"
        )
    return info


def check_secrets(recipe: Recipe, known: Sequence[str], address: str) -> None:
    """Raise `UserError` where a run is to go on without a secret, such as a proxy, that an earlier one had."""
    # Without its proxy or cookies, a crawl would ask from another address, and get answers that fail clips for good,
    # such as a demand to sign in.
    if missing := [name for name in known if name not in recipe.secrets]:
        variables = " ".join(f"VIDAL_{name.replace('.', '_')}".upper() for name in missing)
        raise UserError(
            f"{address}: was started with {' and '.join(missing)}, which is not stored in the dataset; "
            f"pass it again: {' '.join(f'--set {name}=…' for name in missing)}, or set {variables}"
        )


def _record_secrets(run: Run, info: DatasetInfo | None) -> None:
    """Refuse to resume without the secrets of the earlier run; record the names of new ones."""
    if info is None and not run.recipe.source.asks:
        return
    known = info.secrets if info else json.loads(run.storage.read(_SECRETS)) if run.storage.exists(_SECRETS) else []
    check_secrets(run.recipe, known, run.storage.address)
    if set(run.recipe.secrets) > set(known):
        if info is not None:
            write_info(run.storage, info.model_copy(update={"secrets": list(run.recipe.secrets)}))
        else:
            run.storage.write(_SECRETS, json.dumps(run.recipe.secrets).encode())


def _prepare(run: Run, storage: Storage, index: int, previous: Storage | None, decision: Decision | None) -> None:
    """Write the plan and the ``dataset.json`` of a phase where they are missing."""
    if run.base and previous is None and not storage.exists(plans.NAME):
        plans.write_cuts(storage, plans.to_add_to(run.base.plan), run.base.plan.cuts)
    elif not run.base and previous is None and read_info(storage) is None:
        size = run.recipe.shards.size
        candidates = run.recipe.source.discover(storage, run.recipe.stages, _removals(run))
        plan: TableLike = planning.make(candidates, shard_size=size, seed=run.recipe.shards.seed, known=run.known)
        if run.sample is not None:
            plan = next(in_groups(plan.to_batches(), [min(run.sample, plan.num_rows)]))
        if run.known is not None and plan.num_rows == 0:
            raise NothingNewError(f"{run.recipe.name}: every candidate of the source is already in the dataset")
        # Before the plan is written, which freezes it: a recipe that is rejected here leaves nothing to delete.
        check_own_columns(plans.own_columns(plan.schema), run.recipe.columns(), run.recipe.name)
        for stage in run.recipe.stages:
            stage.check_candidates(url for batch in plan.to_batches() for url in batch["url"].to_pylist())
        plans.write(storage, plan, size)
        for note in plans.notes_of(plan.schema):
            run.progress.note(note)
    elif previous is not None and decision is not None and (run.retry or not storage.exists(plans.NAME)):
        # A retry may change what the decision sees, so it is made again; otherwise the plan that was written is final.
        earlier = Dataset.open(previous.address)
        decided = decided_plan(earlier, decision)
        if run.retry and storage.exists(plans.NAME):
            uncommit_changed(storage, decided, frozenset[str]().union(*run.retry.values()), decision)
        plans.write_cuts(storage, decided, earlier.plan.cuts)
    if read_info(storage) is None:
        # It follows the plan: where it exists, a resumed run takes the plan beside it as it is, however the source has
        # changed. The one of the whole dataset comes first: it says which recipe the folder belongs to.
        if storage is not run.storage and read_info(run.storage) is None:
            _write_info(run, run.storage, plans.Plan(storage), len(run.recipe.phases()) - 1)
        _write_info(run, storage, plans.Plan(storage), index)


def _write_info(run: Run, storage: Storage, plan: plans.Plan, index: int) -> None:
    recipe, base = run.recipe, run.base
    decisions = [number for number, step in enumerate(recipe.steps) if isinstance(step, Decision)]
    # A phase's fingerprint covers its own steps and those before it, so that a later threshold leaves it valid.
    steps = recipe.steps[: [*decisions, None][index]]
    resolved = recipe.resolved(steps)
    info = DatasetInfo(
        name=recipe.name,
        schema_version=SCHEMA_VERSION,
        fingerprint=fingerprint(resolved),
        layers=(layers := recipe.layers(index)),
        modalities={layer: path for layer, path in recipe.modalities.items() if layer in layers},
        candidates=plan.candidate_count,
        shards=plan.shard_count,
        recipe=resolved,
        definition=recipe.definition,
        created_by=f"vidal {vidal.__version__}",
        columns=recipe.columns(steps),
        secrets=list(recipe.secrets),
    )
    if base:
        whole = Dataset.at(run.storage).info
        resolved = {**whole.recipe, "stages": [*base.info.recipe.get("stages", []), *resolved["stages"]]}
        info = whole.model_copy(
            update={
                "within": storage.address.removeprefix(f"{base.storage.address}/"), "recipe": resolved,
                "fingerprint": fingerprint(resolved), "layers": info.layers, "columns": info.columns,
            }
        )  # fmt: skip
    write_info(storage, info)


def _removals(run: Run) -> Removals:
    return removals.load_all(run.recipe.removals) | run.recipe.source.removed() | run.removed


def _run_phase(run: Run, phase: Phase, storage: Storage, previous: Storage | None, place: tuple[int, int]) -> None:
    info = Dataset.at(storage).info
    before = previous.address if previous else run.base.address if run.base else None
    stages = run.recipe.stages_to_run(phase)
    read = {name for stage in stages for name in stage.reads}
    objects = {stage.step_name(): stage.shared() for stage in stages}
    job = Job(
        storage=storage,
        groups=cut_into_groups(stages, have_gpu=run.have_gpu),
        layers=tuple(layer for layer in info.layers if layer not in info.tar_folders),
        inherited=tuple(info.tar_folders),
        # A revision reads only the layers that its stages read, and those that it rewrites.
        loads=frozenset(n for n in info.layers if n not in info.tar_folders or n in read) if run.base else None,
        fingerprint=info.fingerprint,
        window=run.recipe.engine.window,
        sources=(before,) if before else tuple(run.recipe.source.earlier_datasets()),
        removals=_removals(run),
        shared=run.engine.share({name: shared for name, shared in objects.items() if shared is not None}),
        is_profiled=run.sample is not None,
    )
    done = set(committed(storage))
    todo = [
        Assignment(shard=shard, again=run.retry.get(shard) if shard in done else None)
        for shard in range(info.shards)
        if shard not in done or shard in run.retry
    ]
    plan = plans.Plan(storage)
    already = info.candidates - sum(plan.size_of(assignment.shard) for assignment in todo)
    run.progress.begin_phase(*place, info.candidates, already)
    with contextlib.ExitStack() as counting:
        for stage in (stage for stage in stages if stage.step_name() in job.shared):
            proxy, name = job.shared[stage.step_name()], stage.step_name()
            counting.enter_context(usage.recorded(run.storage, name, partial(stage.usage, proxy)))
        _run_passes(run, job, todo)


def _run_passes(run: Run, job: Job, todo: Sequence[Assignment]) -> None:
    """Run passes over uncommitted shards until all are committed; a clip under way at two worker deaths fails.

    Raises `OpenShardsError` at the end if workers have given shards back, which is no death.
    """
    not_now: dict[int, NotNowError] = {}
    deaths: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    idle_passes = 0
    while todo:
        left = run.engine.run(job, todo, run.progress)
        not_now |= {shard: why for shard, why in left.items() if isinstance(why, NotNowError)}
        died = {shard: why for shard, why in left.items() if not isinstance(why, NotNowError)}
        for shard, under_way in died.items():
            for clip_id in under_way.clip_ids:
                deaths[shard, clip_id].append(under_way.stage)
        remaining = [a for a in todo if a.shard in died]
        # Deaths with a clip under way come to an end by themselves, as the clip fails at its second one.
        idle_passes = 0 if len(remaining) < len(todo) or any(u.clip_ids for u in died.values()) else idle_passes + 1
        if idle_passes >= _MAX_IDLE_PASSES:
            raise MachineError(
                f"shard {remaining[0].shard}: workers died {idle_passes} times with no clip under way; "
                f"check for lack of memory or disk space, and for nodes that go sooner than a shard is made. "
                f"Committed shards stay; run the same command again to resume"
            )
        dead = {place: stages[-1] for place, stages in deaths.items() if len(stages) >= _DEATHS_TO_FAIL}
        # Clip by clip from now on, as the note of a batch does not tell which of its clips killed the worker.
        todo = [
            replace(
                a,
                isolate=a.isolate or not died[a.shard].is_machines_fault,
                dead={clip_id: stage for (s, clip_id), stage in dead.items() if s == a.shard},
            )
            for a in remaining
        ]
        if todo:
            # A worker out of reach is lost, not dead: it may finish its shard beside this pass, or after the run.
            renew(run.storage)
    if not_now:
        raise _open_shards(run, job, not_now)


def _open_shards(run: Run, job: Job, not_now: Mapping[int, NotNowError]) -> OpenShardsError:
    """One line: how many shards, held up by what, and when to try again."""
    latest = {error.what: error for error in sorted(not_now.values(), key=lambda error: error.at)}
    named = [str(error) for error in sorted(latest.values(), key=lambda error: -error.at)]
    more = f", {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    count, of = len(not_now), plans.Plan(job.storage).shard_count
    state = "stay as they were" if run.retry else f"stay open, {of - count} are committed"
    return OpenShardsError(
        f"{run.storage.address}: {count} of {of} shards {state}; held up by {', '.join(named[:_MOST_NAMED])}{more}; "
        f"run the same command again then"
    )
