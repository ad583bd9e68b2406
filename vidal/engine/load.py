"""Where a shard's clips come from: the plan, an earlier data set, or the shard's own earlier version."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from vidal.clip import Clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.members import load_members
from vidal.dataset.plan import SOURCE_PLACE
from vidal.engine.job import Assignment, Job
from vidal.record import from_row


class Loader:
    """Gives the clips of a shard, in plan order, each with what is known of it so far."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = Dataset.at(job.storage)
        self._plan, self.extra_schema = self._own.plan, self._own.extra_schema
        self._unset: dict[str, Any] = dict.fromkeys(self.extra_schema.names)
        self._source = Dataset.open(job.source) if job.source else None
        self._source_rows = functools.lru_cache(maxsize=4)(self._read_source_rows)

    def clips(self, assignment: Assignment) -> Iterator[Clip]:
        """Clips ready for the first stage; those that need no work have an outcome already."""
        earlier = self._earlier_rows(assignment)
        for index, row in enumerate(self._plan.rows(assignment.shard)):
            before = earlier.get(row["clip_id"])
            if before is not None and before["clip_id"] not in (assignment.again or ()):
                yield self._carried(before)
                continue
            clip = self._from_source(row, index)
            if before is not None and clip.is_open:
                clip.attempts = int(before["attempts"]) + 1
            if clip.is_open and clip.clip_id in assignment.dead:
                clip.stage = assignment.dead[clip.clip_id]
                clip.fail("worker_died", "the worker died twice while this clip was under way", is_transient=True)
                clip.attempts = max(clip.attempts, 2)
            yield clip

    def _earlier_rows(self, assignment: Assignment) -> dict[str, dict[str, Any]]:
        if assignment.again is None:
            return {}
        try:
            return {row["clip_id"]: row for row in self._own.table(assignment.shard).to_pylist()}
        except FileNotFoundError:
            return {}

    def _carried(self, row: dict[str, Any]) -> Clip:
        clip = from_row(row)
        if clip.status == "kept":
            load_members(clip, self._own, row["shard"], self._job.layers)
        return clip

    def _from_source(self, row: dict[str, Any], index: int) -> Clip:
        if self._source is None:
            return from_row({**self._unset, **row})
        source_shard = row.get(SOURCE_PLACE[0])
        place = (row["shard"], index) if source_shard is None else (source_shard, row[SOURCE_PLACE[1]])
        before = self._source_rows(place[0])[place[1]]
        clip = from_row({**self._unset, **before, **_decided(row), "shard": row["shard"], "position": row["position"]})
        was_kept = before["status"] == "kept"
        if row["status"] is None and was_kept:
            clip.status, clip.stage, clip.reason, clip.detail = "candidate", None, None, None
            load_members(clip, self._source, place[0], self._job.loads)
        clip.members = [member for member in clip.members if member.layer in self._job.inherited]
        clip.layers = [layer for layer in clip.layers if layer in self._job.inherited]
        clip.fingerprint = None
        return clip

    def _read_source_rows(self, shard: int) -> list[dict[str, Any]]:
        assert self._source is not None
        rows: list[dict[str, Any]] = self._source.table(shard).to_pylist()
        return rows


def _decided(row: dict[str, Any]) -> dict[str, Any]:
    """What the plan knows better than the earlier data set: all that a global decision set."""
    return {name: value for name, value in row.items() if name not in SOURCE_PLACE and value is not None}
