"""The kept clips of another dataset, with their rows and members."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from vidal.clip import column_names
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import PLAN_COLUMNS
from vidal.errors import SourceError
from vidal.record import Column
from vidal.sources.source import Source
from vidal.stage import digest


class DatasetSource(Source):
    """``{dataset: DIR}``; the dataset must be complete, so that the plan covers all of it."""

    dataset: str = Field()

    def candidates(self) -> pa.Table:
        earlier = self._open()
        tables = []
        for shard in earlier.committed():
            table = earlier.table(shard)
            place = pa.table({"_source_shard": pa.array([shard] * table.num_rows),
                              "_source_row": pa.array(range(table.num_rows))})  # fmt: skip
            wanted = [n for n in self._plan_columns(earlier) if n in table.column_names]
            columns = {**{n: table.column(n) for n in wanted}, **dict(zip(place.column_names, place, strict=True))}
            kept = pc.equal(table.column("status"), "kept")
            tables.append(pa.table(columns).filter(kept))
        kept_clips = pa.concat_tables(tables) if tables else None
        if kept_clips is None or kept_clips.num_rows == 0:
            raise SourceError(f"{self.dataset}: the dataset has no kept clip")
        return kept_clips

    def earlier_dataset(self) -> str:
        return self.dataset

    @staticmethod
    def _plan_columns(earlier: Dataset) -> list[str]:
        """Return the columns that the plan copies; all others are read from the earlier manifest in the worker."""
        outcome = {"shard", "position", "status", "stage", "reason", "detail", "is_transient"}
        extra = [name for name in earlier.plan.extra_schema().names if name not in earlier.info.columns]
        return [name for name in (*PLAN_COLUMNS, *extra) if name not in outcome]

    def identity(self) -> dict[str, Any]:
        earlier = self._open()
        sizes = [[shard, earlier.storage.size(earlier.manifest_name(shard))] for shard in earlier.committed()]
        return {"dataset": earlier.info.fingerprint, "manifests": digest(sizes)}

    def columns(self) -> set[str]:
        earlier = self._open()
        return {*column_names(), *earlier.extra_schema.names, *earlier.info.layers}

    def declared(self) -> dict[str, Column]:
        return dict(self._open().info.columns)

    def layers(self) -> list[str]:
        return self._open().info.layers

    def modalities(self) -> dict[str, str]:
        return self._open().info.modalities

    def _open(self) -> Dataset:
        earlier = Dataset.open(self.dataset)
        earlier.own_tars("which a build does not start from; train on it as it is")
        missing = earlier.info.shards - len(earlier.committed())
        if missing:
            raise SourceError(f"{self.dataset}: {missing} shard(s) are not built yet; finish that run first")
        return earlier
