"""The segments of a finished dataset's clips, as its stage ``segments`` has divided them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from vidal.dataset.plan import id_of, with_notes
from vidal.dataset.tars import KEY_PATTERN
from vidal.errors import SourceError
from vidal.record import Column
from vidal.sources.dataset import DatasetSource

_BOUNDS = "segment_bounds_s"
_COLUMNS = {
    "parent_id": Column(str, "clip that the segment is a part of, in the dataset it comes from", "media"),
    "segment_start_s": Column(float, "where the segment begins, in seconds after the parent's first frame", "media"),
    "segment_end_s": Column(float, "where the segment ends, in seconds after the parent's first frame", "media"),
}


class SegmentsSource(DatasetSource):
    """``{segments: DIR}``: a candidate for each segment of the kept clips, ``CLIP-000``, with its parent and times.

    A clip that stays whole is a candidate of its own id, without a parent. The dataset has the layer ``source`` of the
    stage ``keep_source``; a recipe cuts with the stage ``cut``. Segments of a clip are one cluster, so that no split
    has some of them on either side.
    """

    needs_step: ClassVar[str | None] = "cut"
    dataset: str = Field(alias="segments")

    def candidates(self) -> pa.Table:
        parents = super().candidates()
        earlier = self._open()[0]
        if _BOUNDS not in earlier.info.columns or "source" not in earlier.info.layers:
            raise SourceError(
                f"{earlier.address}: has no segments; build it with the stages `segments` and `keep_source`"
            )
        kept = (row for row in earlier.rows(["status", _BOUNDS]) if row["status"] == "kept")
        # Nothing to divide where the stage did not run on a clip.
        bounds = [row[_BOUNDS] or [] for row in kept]
        counts = [max(1, len(each) - 1) for each in bounds]
        table = parents.take(pa.array(np.repeat(np.arange(len(counts)), counts)))
        pieces = [
            (each[k], each[k + 1]) if count > 1 else (None, None)
            for each, count in zip(bounds, counts, strict=True)
            for k in range(count)
        ]
        numbers = [k for count in counts for k in range(count)]
        # Of a clip that is whole, all but the id stays null.
        parents_of = [
            None if start_s is None else clip_id
            for (start_s, _), clip_id in zip(pieces, table["clip_id"].to_pylist(), strict=True)
        ]
        ids = [
            clip_id if parent is None else _segment_id(parent, number)
            for clip_id, parent, number in zip(table["clip_id"].to_pylist(), parents_of, numbers, strict=True)
        ]
        columns = {
            "clip_id": pa.array(ids, pa.string()),
            "cluster": pa.array([parent and _segment_id(parent, 0) for parent in parents_of], pa.string()),
            "parent_id": pa.array(parents_of, pa.string()),
            "segment_start_s": pa.array([start_s for start_s, _ in pieces], pa.float64()),
            "segment_end_s": pa.array([end_s for _, end_s in pieces], pa.float64()),
        }
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
        note = (
            f"{len(counts):,} clips, {sum(count > 1 for count in counts):,} of them divided, in {len(ids):,} segments"
        )
        return table.replace_schema_metadata(with_notes(table.schema, [note]).metadata)

    def identity(self) -> dict[str, Any]:
        return {"segments": super().identity()}

    def columns(self) -> set[str]:
        return {*super().columns(), *_COLUMNS}

    def declared(self) -> dict[str, Column]:
        return {**super().declared(), **_COLUMNS}

    def layers(self) -> list[str]:
        # Those of the whole clips stay behind.
        return []


def _segment_id(parent: str, number: int) -> str:
    name = f"{parent}-{number:03d}"
    return name if KEY_PATTERN.fullmatch(name) else id_of(name)
