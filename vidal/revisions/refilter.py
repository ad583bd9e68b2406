"""`refilter`: applies other thresholds to a finished dataset, as a revision; no media is read or written.

Every filter decides on numbers that earlier stages stored, so its decision can be repeated from the manifest. A clip
that a stricter filter rejects keeps its members and comes back when the filter is loosened. A clip that a filter
rejected when the dataset was built, and that would pass now, was not processed by the later stages: it stays rejected,
with reason ``not_processed``.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import vidal.clip
from vidal.clip import column_names
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import DECIDED, decide
from vidal.dataset.removals import REASON, lists_of
from vidal.engine.decided import rows_of
from vidal.engine.isolate import run_stage
from vidal.engine.job import Notes, ShardReport
from vidal.errors import RecipeError
from vidal.overrides import with_overrides
from vidal.recipe import fingerprint, steps_again
from vidal.record import from_row
from vidal.revisions.grow import COMMAND as GROW
from vidal.revisions.revise import begin, finish, finished, locked, refuse_listed, revision_at, write_manifest
from vidal.rows import Spill, Stream, TableLike, in_groups
from vidal.stage import Decision, Stage, Step

NOT_PROCESSED = "not_processed"
_COMMAND = "vidal refilter"
_KEPT = "kept"
_OUTCOME = ("status", "stage", "reason", "detail", "decided_value", "decided_limit", "is_transient")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiltered:
    """The effect of other thresholds, and the revision that has them."""

    address: str
    revision: int | None
    """Number of the new revision; None if nothing was written."""
    manifest: str | None
    kept_before: int
    kept: int
    moves: list[tuple[str, str, int]]
    """Outcome before, outcome now (``kept``, or stage and reason), number of clips."""

    def lines(self) -> list[str]:
        """Return the lines to print."""
        head = f"{self.address}: {self.kept} clips kept, {self.kept_before} before"
        moves = [f"  {count} clips: {before} → {now}" for before, now, count in self.moves]
        written = f"revision {self.revision} is current; its manifest: {self.manifest}"
        return [head, *moves, "nothing was written" if self.revision is None else written]

    def as_json(self) -> dict[str, Any]:
        moves = [{"before": before, "now": now, "clips": count} for before, now, count in self.moves]
        return {
            "revision": self.revision, "manifest": self.manifest, "kept_before": self.kept_before, "kept": self.kept,
            "moves": moves,
        }  # fmt: skip


def refilter(address: str, settings: Sequence[str], *, dry_run: bool = False) -> Refiltered:
    """Apply other thresholds to the stored numbers of a finished dataset; the new outcomes become a revision.

    ``settings`` are ``stage.setting=value``, such as ``too_long.max_s=15``; those of earlier refilters still apply.
    With ``dry_run`` nothing is written. Raises `RecipeError` for a setting of a stage that would have to process media.

    Example: ``refilter("data/vidal", ["too_long.max_s=15", "duplicates.max_distance=8"])``.
    """
    current = finished(address)
    # What decides is read under the lock, as a run that holds it may write any shard anew.
    with contextlib.nullcontext(current) if dry_run else locked(current) as current:
        return _refilter(current, settings, dry_run=dry_run)


def _refilter(current: Dataset, settings: Sequence[str], *, dry_run: bool) -> Refiltered:
    # Stages did not run for a refilter, so a refilter of a refilter starts from the revision before both.
    base = current
    while base.info.made_by.startswith(_COMMAND) and base.info.revision_of is not None:
        base = revision_at(base.storage, base.info.revision_of)
    place = f"{current.address}/dataset.json"
    # Shards of a growth were decided by other thresholds than those before them, where a refilter lies between.
    befores = [steps_again(dataset.info.definition, place) for dataset in {d.number: d for d in _as_run(base)}.values()]
    definition = with_overrides(current.info.definition, settings)
    if any(definition[key] != current.info.definition[key] for key in definition.keys() - {"stages", "removals"}):
        raise RecipeError(f"{place}: refilter changes only settings of stages, such as too_long.max_s=15")
    after = steps_again(definition, place)
    refuse_listed(base, lists_of(definition))
    changed = sorted({number for before in befores for number in check_steps(before, after, place)})
    verdicts = decide_anew(base, after, changed)

    def outcome(row: dict[str, Any]) -> str:
        return _KEPT if row["status"] == _KEPT else f"{row['stage']}: {row['reason']}"

    columns = ["status", "stage", "reason"]
    moves = Counter[tuple[str, str]]()
    # A refilter leaves every row in its place, so rows of the two revisions pair up. By number, and not by what is
    # committed, as a shard that another run writes anew is an error, and none that is left out.
    for shard, before_all in enumerate(_as_run(base)):
        old_rows, rows = (dataset.table(shard, columns).to_pylist() for dataset in (current, before_all))
        for old, new, verdict in zip(old_rows, rows, verdicts.of(shard, len(rows)), strict=True):
            moves[outcome(old), outcome(new | verdict.columns)] += 1
    number, folder = None, None
    if not dry_run and definition != current.info.definition:
        revision = _write(base, definition, after, changed, verdicts, settings)
        number, folder = revision.number, revision.manifest_address
    return Refiltered(
        address=current.storage.address, revision=number, manifest=folder,
        kept_before=sum(count for (before, _), count in moves.items() if before == _KEPT),
        kept=sum(count for (_, now), count in moves.items() if now == _KEPT),
        moves=[(*move, count) for move, count in sorted(moves.items()) if move[0] != move[1]],
    )  # fmt: skip


def _write(
    base: Dataset, definition: dict[str, Any], steps: Sequence[Step], changed: Sequence[int], verdicts: Verdicts,
    settings: Sequence[str],
) -> Dataset:  # fmt: skip
    """Write a revision with these outcomes, or the manifests that are missing of one that a killed run began."""
    stages = list(base.info.recipe["stages"])
    # By name, as an added stage replaces its earlier line in the definition alone.
    last = {stage["name"]: number for number, stage in enumerate(stages)}
    for step in (steps[number] for number in changed):
        stages[last[step.step_name()]] = step.identity()
    resolved = {**base.info.recipe, "stages": stages, "revision_of": base.info.fingerprint}
    revision = begin(
        base, made_by=" ".join([_COMMAND, *(f"--set {setting}" for setting in settings)]),
        fingerprint=fingerprint(resolved), changes={"recipe": resolved, "definition": definition},
    )  # fmt: skip
    changed_of_all = {"fingerprint": revision.info.fingerprint}
    committed = set(revision.committed())
    as_run, no_values = _as_run(base), dict.fromkeys(revision.extra_schema.names)
    for shard in (shard for shard in base.committed() if shard not in committed):
        rows = as_run[shard].table(shard).to_pylist()
        changes = (verdict.columns for verdict in verdicts.of(shard, len(rows)))
        clips = [from_row(no_values | row | change | changed_of_all) for row, change in zip(rows, changes, strict=True)]
        write_manifest(revision, shard, clips)
    finish(revision)
    return revision


@dataclass(slots=True)
class Verdict:
    """The changes of a refilter to a row."""

    columns: dict[str, Any] = field(default_factory=dict)
    """The columns to set."""
    is_settled: bool = False
    """Whether it has a new outcome, which later steps leave alone."""

    def settle(self, outcome: dict[str, Any]) -> None:
        self.columns |= dict.fromkeys(_OUTCOME) | {"is_transient": False} | outcome
        self.is_settled = True


class Verdicts:
    """The verdicts on the rows of a dataset, shard by shard in a temporary file."""

    def __init__(self, fields: Mapping[str, pa.Field]) -> None:
        self.fields = fields
        """The columns that they may set."""
        own = (("_row", pa.int32()), ("_is_settled", pa.bool_()), ("_names", pa.list_(pa.string())))
        self._schema = pa.schema([*own, *fields.values()])
        self._spill = Spill(self._schema)
        self._parts: dict[int, int] = {}
        self.have_settled = False
        """Whether a row has a new outcome."""

    def of(self, shard: int, row_count: int) -> list[Verdict]:
        """Return the verdict on each row of a shard."""
        verdicts = [Verdict() for _ in range(row_count)]
        part = self._spill.part(self._parts[shard]).to_pylist() if shard in self._parts else []
        for row in part:
            columns = {name: row[name] for name in row["_names"]}
            verdicts[row["_row"]] = Verdict(columns, row["_is_settled"])
        return verdicts

    def add(self, shard: int, verdicts: Sequence[Verdict]) -> None:
        self.have_settled |= any(verdict.is_settled for verdict in verdicts)
        rows = [
            {"_row": number, "_is_settled": verdict.is_settled, "_names": list(verdict.columns), **verdict.columns}
            for number, verdict in enumerate(verdicts)
            if verdict.columns
        ]
        if rows:
            self._parts[shard] = self._spill.add_part(pa.Table.from_pylist(rows, self._schema))


def check_steps(before: Sequence[Step], after: Sequence[Step], place: str) -> list[int]:
    """Return the indices of the steps whose settings differ; raises `RecipeError` for one that needs media.

    A filter reads columns and writes none; a global decision is made over the manifest. Every other stage would have
    to process media.
    """
    changed = [
        n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old.model_dump() != new.model_dump()
    ]
    stored = {*column_names(), *(name for step in after for name in step.columns)}
    for step in (after[n] for n in changed):
        if isinstance(step, Decision):
            continue
        assert isinstance(step, Stage)
        media = [name for name in step.reads if name not in stored]
        if step.writes or step.columns or step.layers or media:
            why = f"reads `{media[0]}`" if media else "writes columns or layers"
            raise RecipeError(
                f"{place}: {step.step_name()} {why}: refilter applies other thresholds to stored numbers and runs no "
                f"such stage; build a new dataset with this setting"
            )
    return changed


def decide_anew(dataset: Dataset, steps: Sequence[Step], changed: Sequence[int]) -> Verdicts:
    """Return the new outcomes and clusters of the clips for which the changed steps decide differently."""
    verdicts = Verdicts({name: vidal.clip.schema().field(name) for name in _OUTCOME})
    ends = {step.step_name(): number for number, step in enumerate(steps)}
    # Clips rejected by the plan or removed never reach a filter.
    ends |= {"plan": -1}
    # A decision sees which clips reach it, so any new outcome before it may change its own.
    for number, step in enumerate(steps):
        if isinstance(step, Decision) and (number in changed or verdicts.have_settled):
            verdicts = _decided(dataset, step, number, ends, verdicts)
        elif isinstance(step, Stage) and number in changed:
            verdicts = _filtered(dataset, step, number, ends, verdicts)
    return verdicts


def _filtered(dataset: Dataset, stage: Stage, number: int, ends: dict[str, int], before: Verdicts) -> Verdicts:
    """Run a filter on the clips that reach it."""
    stage.setup()
    after = Verdicts(before.fields)
    columns = list(dict.fromkeys(["clip_id", *_OUTCOME, *stage.reads]))
    for shard, rows in _shards(dataset, columns):
        verdicts = before.of(shard, len(rows))
        for row, verdict in zip(rows, verdicts, strict=True):
            end = _end(row, ends)
            if end < number or verdict.is_settled:
                continue
            # Through the door of every build, so that an error fails the clip here as it does there.
            clip = from_row({**row, **dict.fromkeys(_OUTCOME), "status": "candidate"})
            run_stage(stage, [clip], ShardReport(shard=0), Notes(), isolate=False)
            if not clip.is_open:
                verdict.settle({name: getattr(clip, name) for name in _OUTCOME})
            elif end == number:
                verdict.settle(_not_processed(stage))
        after.add(shard, verdicts)
    return after


def _shards(dataset: Dataset, columns: list[str]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    as_run = _as_run(dataset)
    return ((shard, as_run[shard].table(shard, columns).to_pylist()) for shard in dataset.committed())


def _as_run(dataset: Dataset) -> list[Dataset]:
    """Return, for each shard, the revision whose rows have the outcomes with which the stages left them.

    A growth has the shards of the revision that it is based on as they are; if that was refiltered, clips are rejected
    in them that every stage has run on.
    """
    info = dataset.info
    if info.revision_of is None or not info.made_by.startswith((_COMMAND, GROW)):
        return [dataset] * info.shards
    earlier = _as_run(revision_at(dataset.storage, info.revision_of))
    return [*earlier, *[dataset] * (info.shards - len(earlier))]


def _end(row: dict[str, Any], ends: dict[str, int]) -> int:
    """Return the index of the step at which a clip ended; beyond the last for a clip that is kept or failed to pack."""
    if row["reason"] == REASON:
        # Wherever it was met: it has lost the numbers that a step would decide on.
        return -1
    return len(ends) if row["status"] == "kept" else ends.get(row["stage"], len(ends))


def _not_processed(step: Step) -> dict[str, Any]:
    detail = f"passes {step.step_name()} now, but stages behind it have not run on the clip"
    return {"status": "rejected", "stage": step.step_name(), "reason": NOT_PROCESSED, "detail": detail}


def _decided(dataset: Dataset, decision: Decision, number: int, ends: dict[str, int], before: Verdicts) -> Verdicts:
    """Repeat a global decision over the clips that reach it now."""
    reaches = [np.empty(0, np.bool_)]
    for shard, rows in _shards(dataset, list(_OUTCOME)):
        verdicts = before.of(shard, len(rows))
        pairs = zip(rows, verdicts, strict=True)
        reaches.append(np.array([not verdict.is_settled and _end(row, ends) >= number for row, verdict in pairs]))
    decided = _decide(dataset, decision, np.concatenate(reaches).astype(np.bool_))
    own = [field for field in decided.schema if field.name not in ("clip_id", *_OUTCOME)]
    after = Verdicts({**before.fields, **{field.name: field for field in own}})
    in_shards = in_groups(decided.to_batches(), map(len, reaches[1:]))
    for (shard, rows), candidates, decided_here in zip(
        _shards(dataset, list(_OUTCOME)), reaches[1:], in_shards, strict=True
    ):
        verdicts = before.of(shard, len(rows))
        for row, verdict, is_candidate, new in zip(rows, verdicts, candidates, decided_here.to_pylist(), strict=True):
            if not is_candidate:
                verdict.columns |= dict.fromkeys((field.name for field in own) if verdict.is_settled else ())
                continue
            verdict.columns |= {field.name: new[field.name] for field in own}
            if new.get("status") not in (None, "kept"):
                outcome = {name: new[name] for name in _OUTCOME if name in new and name in DECIDED}
                verdict.settle({**outcome, "stage": decision.step_name()})
            elif _end(row, ends) == number:
                verdict.settle(_not_processed(decision))
        after.add(shard, verdicts)
    return after


def _decide(dataset: Dataset, decision: Decision, reaches: npt.NDArray[np.bool_]) -> TableLike:
    """Return what a decision says of every clip, in plan order; of most it may say nothing."""
    rows = rows_of(dataset, decision.reads)

    def candidates() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in rows.to_batches():
            status = np.where(reaches[first : (first := first + batch.num_rows)], "kept", "rejected")
            yield batch.set_column(batch.schema.get_field_index("status"), "status", pa.array(status, pa.string()))

    decided = decision.decide(Stream(rows.schema, rows.num_rows, candidates))

    def undecided() -> Iterator[pa.RecordBatch]:
        for batch in rows_of(dataset, ()).to_batches():
            columns = {field.name: pa.nulls(batch.num_rows, field.type) for field in decided.schema}
            yield pa.RecordBatch.from_pydict(columns | {"clip_id": batch["clip_id"]}, schema=decided.schema)

    return decide(Stream(decided.schema, rows.num_rows, undecided), decided)
