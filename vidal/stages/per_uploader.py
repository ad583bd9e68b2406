from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from vidal.record import Column
from vidal.stages.quota import Quota


class PerUploader(Quota):
    """Keeps the first ``max_clips`` clips of each uploader in plan order, so that none dominates a dataset.

    An uploader is the platform's id or, where there is none, the name, within one platform. Only clips that reach the
    decision count: placed after ``duplicates``, it counts no clip twice. Clips of unknown uploaders all stay. The kept
    clips of the earlier datasets in ``against`` precede all others and count, too.
    """

    reads = ("platform", "uploader", "uploader_id")
    columns: ClassVar[Mapping[str, Column]] = {
        "uploader_rank": Column(int, "number of the clip among those of its uploader, from 1 in plan order")
    }
    group = "its uploader"
    reason = "uploader_quota"

    max_clips: int = Field(ge=1)
    """Largest number of clips of one uploader."""

    @property
    def most(self) -> int:
        return self.max_clips

    def key(self, row: dict[str, Any]) -> Hashable | None:
        # An id and a name of the same text are different uploaders.
        names = ((row["platform"] or "", kind, row[kind]) for kind in ("uploader_id", "uploader") if row[kind])
        return next(names, None)
