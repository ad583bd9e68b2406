from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.record import Column
from vidal.stage import Decision


class PerUploader(Decision):
    """Keeps the first ``max_clips`` clips of each uploader in plan order, so that none dominates a dataset.

    An uploader is the platform's id or, where there is none, the name, within one platform. Only clips that reach the
    decision count: placed after ``duplicates``, it counts no clip twice. Clips of unknown uploaders all stay. The kept
    clips of the earlier datasets in ``against`` precede all others and count, too.
    """

    reads = ("platform", "uploader", "uploader_id")
    columns: ClassVar[Mapping[str, Column]] = {
        "uploader_rank": Column(int, "number of the clip among those of its uploader, from 1 in plan order")
    }
    not_fingerprinted: ClassVar[tuple[str, ...]] = ("against",)

    max_clips: int = Field(ge=1)
    """Largest number of clips of one uploader."""
    against: list[str] = Field(default_factory=list)
    """Folders of earlier datasets."""

    def identity(self) -> dict[str, Any]:
        """Identify earlier datasets by fingerprint and number of shards, not by location."""
        earlier = [Dataset.open(address) for address in self.against]
        return {**super().identity(), "earlier": [[e.info.fingerprint, len(e.committed())] for e in earlier]}

    def after(self, earlier: Sequence[str]) -> PerUploader:
        return self.model_copy(update={"against": [*self.against, *earlier]})

    def decide(self, rows: pa.Table) -> pa.Table:
        counts: Counter[tuple[str, ...]] = Counter()
        for folder in self.against:
            try:
                counts.update(key for _, key in _kept(Dataset.open(folder).rows(_COLUMNS)) if key)
            except SourceError as error:
                raise SourceError(f"per_uploader: against: {error}") from None
        decided = []
        for clip_id, key in _kept(rows.select(_COLUMNS).to_pylist()):
            rank = None
            if key:
                counts[key] += 1
                rank = counts[key]
            row: dict[str, Any] = {"clip_id": clip_id, "uploader_rank": rank, "status": "kept"}
            if rank is not None and rank > self.max_clips:
                row |= {
                    "status": "rejected", "reason": "uploader_quota", "decided_value": float(rank),
                    "decided_limit": float(self.max_clips),
                    "detail": f"clip {rank} of its uploader > {self.max_clips}",
                }  # fmt: skip
            decided.append(row)
        # With types, as columns of nulls alone would have none.
        known = vidal.clip.schema()
        names = ("clip_id", "status", "reason", "detail", "decided_value", "decided_limit")
        fields = [*(known.field(name) for name in names), pa.field("uploader_rank", pa.int64())]
        return pa.Table.from_pylist(decided, schema=pa.schema(fields))


_COLUMNS = ["clip_id", "status", *PerUploader.reads]


def _kept(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the id and the uploader of each kept clip; an unknown uploader is empty."""
    for row in rows:
        if row["status"] == "kept":
            # An id and a name of the same text are different uploaders.
            names = [(row["platform"] or "", kind, row[kind]) for kind in ("uploader_id", "uploader") if row[kind]]
            yield row["clip_id"], names[0] if names else ()
