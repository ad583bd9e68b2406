"""Where a shard's clips come from: the plan, an earlier dataset, or the shard's own earlier version."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from vidal.clip import Clip
from vidal.dataset.dataset import Dataset, UncommittedError
from vidal.dataset.members import load_members
from vidal.dataset.plan import SOURCE_PLACE
from vidal.dataset.removals import REASON, tombstone
from vidal.dataset.thumbnail import thumbnail_of
from vidal.engine.job import Assignment, Job
from vidal.record import from_row


class ClipLoader:
    """Gives the clips of a shard in plan order, each with everything recorded about it so far."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = Dataset.at(job.storage)
        self._plan, self.extra_schema = self._own.plan, self._own.extra_schema
        # Each column is there from the start, null until set: a name that nobody declared is then an error where it is
        # used, not a value that is lost.
        self._unset: dict[str, Any] = dict.fromkeys(self.extra_schema.names)
        self._sources = sources = [Dataset.open(address) for address in job.sources]
        self._source_rows = functools.lru_cache(maxsize=4)(lambda n, shard: sources[n].table(shard).to_pylist())

    def clips(self, assignment: Assignment) -> Iterator[Clip]:
        """The clips of a shard, ready for the first stage; those that need no work have a final status already."""
        earlier: dict[str, dict[str, Any]] = {}
        if assignment.again is not None:
            with contextlib.suppress(UncommittedError):
                earlier = {row["clip_id"]: row for row in self._own.table(assignment.shard).to_pylist()}
        for index, row in enumerate(self._plan.rows(assignment.shard)):
            before = earlier.get(row["clip_id"])
            if before is not None and before["clip_id"] not in (assignment.again or ()):
                clip = from_row(before)
                if clip.status == "kept":
                    clip.work.read_members = functools.partial(
                        load_members, clip, self._own, before["shard"], self._job.layers
                    )
                yield clip
                continue
            clip = self._from_source(row, index)
            if before is not None and assignment.again is not None and clip.is_open:
                clip.attempts = assignment.again[clip.clip_id] + 1
            if clip.is_open and clip.clip_id in assignment.dead:
                clip.stage = assignment.dead[clip.clip_id]
                clip.fail("worker_died", "the worker died twice while this clip was under way", is_transient=True)
                # Each of the two deaths was an attempt.
                clip.attempts = max(clip.attempts, 2)
            yield clip

    def _from_source(self, row: dict[str, Any], index: int) -> Clip:
        """The clip of a plan's row, together with what an earlier dataset recorded of it."""
        if not self._sources:
            return from_row({**self._unset, **row})
        number, shard, position = (row.get(name) for name in SOURCE_PLACE)
        number = number or 0
        if shard is None:
            shard, position = row["shard"], index
        before = self._source_rows(number, shard)[position]
        # A global decision is the plan's; all else is as the earlier dataset has it.
        decided = {name: value for name, value in row.items() if name not in SOURCE_PLACE and value is not None}
        clip = from_row({**self._unset, **before, **decided, "shard": row["shard"], "position": row["position"]})
        if row["reason"] == REASON:
            return tombstone(clip, row["stage"])
        if row["status"] is None and before["status"] == "kept":
            clip.status, clip.stage, clip.reason, clip.detail = "candidate", None, None, None
            load_members(clip, self._sources[number], shard, self._job.loads)
        elif row["status"] == "rejected" and before["status"] == "kept":
            # A global decision comes after the media were stored, and this phase stores none of a rejected clip.
            clip.thumbnail = thumbnail_of(before, self._sources[number].read_member)
        clip.members = [member for member in clip.members if member.layer in self._job.inherited]
        clip.layers = [layer for layer in clip.layers if layer in self._job.inherited]
        clip.fingerprint = None
        return clip
