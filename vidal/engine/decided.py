"""Global decisions: make the plan of a phase from the manifest of the previous phase."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset import manifest
from vidal.dataset import plan as plans
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import RecipeError
from vidal.record import fields
from vidal.stage import Decision

_HEAVY = ("members", "ocr_lines", "transcript_segments", "frame_captions", "thumbnail")
"""Large columns that are hidden from decisions."""


def decided_plan(earlier: Dataset, decision: Decision) -> pa.Table:
    """Return the next phase's plan: the same candidates in the same shards, with the columns that the decision sets.

    The decision sees the whole manifest in plan order, without large columns. Raises `RecipeError` if it sets a column
    that neither the plan nor the decision declares.
    """
    decided = decision.decide(rows_of(earlier))
    if "status" in decided.column_names:
        # Rejected rows get the decision's name as their stage; a clip that it keeps stays a candidate.
        status = decided.column("status")
        is_rejected = pc.fill_null(pc.not_equal(status, "kept"), False)
        status = pc.if_else(is_rejected, status, pa.scalar(None, pa.string()))
        decided = decided.set_column(decided.column_names.index("status"), "status", status)
        stage = pc.if_else(is_rejected, decision.step_name(), pa.scalar(None, pa.string()))
        decided = decided.append_column("stage", stage)
    # Declared columns stay in the manifest of the phase that wrote them.
    carried = [n for n in earlier.plan.columns if n not in (*plans.SOURCE_PLACE, *earlier.info.columns)]
    plan = earlier.plan.table(carried)
    for field in fields(decision.columns):
        plan = plan.append_column(field, pa.nulls(plan.num_rows, field.type))
    if unknown := sorted(set(decided.column_names) - set(plan.column_names)):
        raise RecipeError(
            f"{decision.step_name()} sets `{unknown[0]}`, which no global decision can set; declare it in its `columns`"
        )
    return plans.decide(plan, decided)


def rows_of(earlier: Dataset) -> pa.Table:
    """Return the whole manifest in plan order, without large columns."""
    names = [name for name in earlier.table(0).column_names if name not in _HEAVY]
    return pa.concat_tables(list(earlier.tables(names)))


def uncommit_changed(storage: Storage, plan: pa.Table, retried: Collection[str], decision: Decision) -> None:
    """Delete the manifests of shards in which a retry of other clips changed a decision, so that they are rebuilt."""
    decided = [name for name in plan.column_names if name in (*plans.DECIDED, *decision.columns)]
    before, after = (table.select(decided).to_pylist() for table in (plans.Plan(storage).table(), plan))
    ids, shards = plan.column("clip_id").to_pylist(), plan.column("shard").to_pylist()
    rows = zip(ids, shards, before, after, strict=True)
    for shard in sorted({s for clip_id, s, old, new in rows if old != new and clip_id not in retried}):
        storage.remove(manifest.name_of(shard))
