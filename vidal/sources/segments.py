"""The segments of a finished dataset's clips, as its stage ``segments`` has divided them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import id_of, with_notes
from vidal.dataset.tars import KEY_PATTERN
from vidal.errors import SourceError
from vidal.record import Column
from vidal.rows import Stream, TableLike
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
    stage ``keep_source``; a recipe cuts with the stage ``cut_segment``. Segments of a clip are one cluster, so that no
    split has some of them on either side.
    """

    needs_step: ClassVar[str | None] = "cut_segment"
    dataset: str = Field(alias="segments")

    def candidates(self) -> TableLike:
        parents = super().candidates()
        earlier = self._open()[0]
        if _BOUNDS not in earlier.info.columns or "source" not in earlier.info.layers:
            raise SourceError(
                f"{earlier.address}: has no segments; build it with the stages `segments` and `keep_source`"
            )
        # Nothing is divided where the stage did not run.
        counts = [max(1, len(bounds) - 1) for bounds in _bounds(earlier)]
        divided = sum(count > 1 for count in counts)
        note = f"{len(counts):,} clips, {divided:,} of them divided, in {sum(counts):,} segments"
        empty = _divided(parents.schema.empty_table(), [])
        schema = empty.schema.with_metadata(with_notes(parents.schema, [note]).metadata)

        def read() -> Iterator[pa.RecordBatch]:
            bounds = _bounds(earlier)
            for batch in parents.to_batches():
                table = _divided(pa.Table.from_batches([batch]), list(itertools.islice(bounds, batch.num_rows)))
                yield from table.cast(schema).combine_chunks().to_batches()

        return Stream(schema, sum(counts), read)

    def identity(self) -> dict[str, Any]:
        return {"segments": super().identity()}

    def columns(self) -> set[str]:
        return {*super().columns(), *_COLUMNS}

    def declared(self) -> dict[str, Column]:
        return {**super().declared(), **_COLUMNS}

    def layers(self) -> list[str]:
        # Those of the whole clips stay behind.
        return []


def _bounds(earlier: Dataset) -> Iterator[list[float]]:
    """Yield the bounds of the kept clips, in the order in which they are candidates."""
    for row in earlier.rows(["status", _BOUNDS]):
        if row["status"] == "kept":
            yield row[_BOUNDS] or []


def _divided(parents: pa.Table, bounds: Sequence[list[float]]) -> pa.Table:
    """Return a row for each segment, in place of the rows of the parents with these bounds."""
    table = parents.take(
        pa.array([k for k, each in enumerate(bounds) for _ in range(max(1, len(each) - 1))], pa.int64())
    )
    pieces = [
        (number, start_s, end_s) if len(each) > 2 else (None, None, None)
        for each in bounds
        for number, (start_s, end_s) in enumerate(pairwise(each if len(each) > 2 else (0.0, 0.0)))
    ]
    # Of a clip that is whole, all but the id stays null.
    ids: list[str] = table["clip_id"].to_pylist()
    parent_ids = [None if number is None else clip_id for clip_id, (number, _, _) in zip(ids, pieces, strict=True)]
    columns = {
        "clip_id": [_segment_id(clip_id, piece[0]) for clip_id, piece in zip(ids, pieces, strict=True)],
        "cluster": [parent and _segment_id(parent, 0) for parent in parent_ids],
        "parent_id": parent_ids,
        "segment_start_s": [start_s for _, start_s, _ in pieces],
        "segment_end_s": [end_s for _, _, end_s in pieces],
    }
    for name, values in columns.items():
        array = pa.array(values, pa.float64() if name.endswith("_s") else pa.string())
        place = table.schema.get_field_index(name)
        table = table.append_column(name, array) if place < 0 else table.set_column(place, name, array)
    return table


def _segment_id(parent: str, number: int | None) -> str:
    name = parent if number is None else f"{parent}-{number:03d}"
    return name if KEY_PATTERN.fullmatch(name) else id_of(name)
