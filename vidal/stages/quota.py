"""`Quota`, the base class of decisions that bound how many clips share something."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.rows import Spill, TableLike
from vidal.stage import Decision


class Quota(Decision):
    """Keeps the first so many clips of each group in plan order, and stores a clip's rank in its group.

    Clips of no group all stay. The kept clips of the earlier datasets in ``against`` precede all others and count, too.
    """

    not_fingerprinted: ClassVar[tuple[str, ...]] = ("against",)
    group: ClassVar[str]
    """What the clips of a group share, in words: ``its uploader``."""
    reason: ClassVar[str]
    """Why a clip beyond the quota is rejected."""

    against: list[str] = Field(default_factory=list)
    """Folders of earlier datasets."""

    @property
    @abstractmethod
    def most(self) -> int:
        """The largest number of clips of one group."""

    @abstractmethod
    def key(self, row: dict[str, Any]) -> Hashable | None:
        """Return the group of a row with the columns that the decision reads, None for a clip of no group."""

    def identity(self) -> dict[str, Any]:
        """Identify earlier datasets by fingerprint and number of shards, not by location."""
        earlier = [Dataset.open(address) for address in self.against]
        return {**super().identity(), "earlier": [[e.info.fingerprint, len(e.committed())] for e in earlier]}

    def after(self, earlier: Sequence[str]) -> Self:
        return self.model_copy(update={"against": [*self.against, *earlier]})

    def decide(self, rows: TableLike) -> Spill:
        """Rank the kept clips of each group, behind those of the datasets ``against``, and reject those above ``most``.

        Raises `SourceError` where one of these datasets cannot be read.
        """
        (rank_column,) = self.columns
        read = ["clip_id", "status", *self.reads]
        counts: Counter[Hashable] = Counter()
        for folder in self.against:
            try:
                counts.update(key for _, key in self._kept(Dataset.open(folder).rows(read)) if key is not None)
            except SourceError as error:
                raise SourceError(f"{self.step_name()}: against: {error}") from None
        # With types, as columns of nulls alone would have none.
        known = vidal.clip.schema()
        names = ("clip_id", "status", "reason", "detail", "decided_value", "decided_limit")
        schema = pa.schema([*(known.field(name) for name in names), pa.field(rank_column, pa.int64())])
        decided = Spill(schema)
        for batch in rows.to_batches():
            ranked = [self._ranked(clip_id, key, counts) for clip_id, key in self._kept(batch.select(read).to_pylist())]
            decided.add(pa.Table.from_pylist([row | {rank_column: rank} for row, rank in ranked], schema=schema))
        return decided

    def _ranked(
        self, clip_id: str, key: Hashable | None, counts: Counter[Hashable]
    ) -> tuple[dict[str, Any], int | None]:
        """Count a clip; return its row and its rank."""
        row: dict[str, Any] = {"clip_id": clip_id, "status": "kept"}
        if key is None:
            return row, None
        counts[key] += 1
        if (rank := counts[key]) > self.most:
            row |= {
                "status": "rejected", "reason": self.reason, "decided_value": float(rank),
                "decided_limit": float(self.most), "detail": f"clip {rank} of {self.group} > {self.most}",
            }  # fmt: skip
        return row, rank

    def _kept(self, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Hashable | None]]:
        """Yield the id and the group of each kept clip."""
        return ((row["clip_id"], self.key(row)) for row in rows if row["status"] == "kept")
