"""Global decisions: make the plan of a phase from the manifest of the previous phase, part by part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import vidal.clip
from vidal.dataset import plan as plans
from vidal.dataset.commit import revoke
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import RecipeError
from vidal.record import fields
from vidal.rows import Stream, TableLike, in_parts
from vidal.stage import Decision

_PART_ROWS = 10_000


def decided_plan(earlier: Dataset, decision: Decision) -> TableLike:
    """Return the next phase's plan: the same candidates in the same shards, with the columns that the decision sets.

    The decision sees the columns that it reads of the whole manifest, in plan order. Raises `RecipeError` if it sets a
    column that neither the plan nor the decision declares.
    """
    decided = decision.decide(rows_of(earlier, decision.reads))
    # Declared columns stay in the manifest of the phase that wrote them.
    carried = [n for n in earlier.plan.schema.names if n not in (*plans.SOURCE_PLACE, *earlier.info.columns)]
    parts, declared = earlier.plan.parts(carried), fields(decision.columns)

    def read() -> Iterator[pa.RecordBatch]:
        for batch in parts.to_batches():
            columns = [*batch.columns, *(pa.nulls(batch.num_rows, field.type) for field in declared)]
            yield pa.RecordBatch.from_arrays(columns, schema=plan.schema)

    plan = Stream(pa.schema([*parts.schema, *declared], parts.schema.metadata), parts.num_rows, read)
    if unknown := sorted(set(decided.schema.names) - set(plan.schema.names)):
        raise RecipeError(
            f"{decision.step_name()} sets `{unknown[0]}`, which no global decision can set; declare it in its `columns`"
        )
    return plans.decide(plan, _as_outcomes(decided, decision.step_name()))


def _as_outcomes(decided: TableLike, stage: str) -> TableLike:
    """Return a decision's rows as those of a plan: rejected ones name their stage, kept ones stay candidates."""
    if "status" not in decided.schema.names:
        return decided

    def outcomes(batch: pa.RecordBatch) -> pa.RecordBatch:
        status, nothing = batch["status"], pa.scalar(None, pa.string())
        is_rejected = pc.fill_null(pc.not_equal(status, "kept"), False)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns |= {
            "status": pc.if_else(is_rejected, status, nothing),
            "stage": pc.if_else(is_rejected, stage, nothing),
        }
        return pa.RecordBatch.from_pydict(columns, schema=schema)

    schema = decided.schema
    schema = schema.set(schema.get_field_index("status"), pa.field("status", pa.string()))
    schema = schema.append(pa.field("stage", pa.string()))
    if isinstance(decided, pa.Table):
        table: TableLike = pa.Table.from_batches(map(outcomes, decided.to_batches()), schema)
        return table
    return Stream(schema, decided.num_rows, lambda: map(outcomes, decided.to_batches()))


def rows_of(earlier: Dataset, columns: Iterable[str]) -> Stream:
    """Return the ids, the status and these columns of a whole manifest, in plan order."""
    known = vidal.clip.schema(earlier.extra_schema)
    names = [name for name in dict.fromkeys(["clip_id", "status", *columns]) if name in known.names]
    schema = pa.schema([known.field(name) for name in names])

    def read() -> Iterator[pa.RecordBatch]:
        batches = (batch for table in earlier.tables(names) for batch in table.cast(schema).to_batches())
        # Shards are small, and each part costs a decision some time; a row has a few KB with its audio's fingerprint.
        return (batch for table in in_parts(batches, _PART_ROWS) for batch in table.to_batches())

    return Stream(schema, earlier.info.candidates, read)


def uncommit_changed(storage: Storage, plan: TableLike, retried: Collection[str], decision: Decision) -> None:
    """Revoke the commits of shards in which a retry of other clips changed a decision, so that they are rebuilt."""
    before = plans.Plan(storage)
    names = ["clip_id", "shard", *(name for name in before.schema.names if name in (*plans.DECIDED, *decision.columns))]
    changed = {
        new["shard"]
        for old, new in zip(_rows(before.parts(names), names), _rows(plan, names), strict=True)
        if old != new and new["clip_id"] not in retried
    }
    for shard in sorted(changed):
        revoke(storage, shard)


def _rows(rows: TableLike, names: list[str]) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches():
        yield from batch.select(names).to_pylist()
