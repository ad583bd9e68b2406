"""What is done to a whole dataset takes memory of a part of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vidal.clip import SCHEMA_VERSION, manifest_schema
from vidal.dataset import manifest, planning
from vidal.dataset import plan as plans
from vidal.dataset.dataset import Dataset, DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.revisions.refilter import decide_anew
from vidal.rows import whole
from vidal.sources.dataset import DatasetSource
from vidal.stages.filters.too_long import TooLong
from vidal.stages.per_uploader import PerUploader

SHARD = 500


def dataset_of(folder: Path, shards: int) -> Dataset:
    """A finished dataset without members, half of whose clips are 5 s long, half 15 s."""
    storage = Storage(str(folder))
    listed = pa.table({"url": [f"https://example.org/{n}" for n in range(SHARD * shards)]})
    plans.write(storage, planning.make(listed, shard_size=SHARD, seed=0), SHARD)
    info = DatasetInfo(
        name="toys", schema_version=SCHEMA_VERSION, fingerprint="f", layers=[], candidates=listed.num_rows,
        shards=shards, recipe={}, definition={}, created_by="test",
    )  # fmt: skip
    write_info(storage, info)
    dataset = Dataset.open(str(folder))
    rows = whole(dataset.plan.parts(dataset.plan.schema.names))
    for shard in range(shards):
        known = rows.slice(shard * SHARD, SHARD)
        given = {"status": ["kept"] * SHARD, "attempts": [1] * SHARD, "duration_s": [5.0, 15.0] * (SHARD // 2)}
        columns = {name: known[name] for name in known.column_names} | {n: pa.array(v) for n, v in given.items()}
        arrays = [
            pa.array([[]] * SHARD, field.type) if pa.types.is_list(field.type)
            else columns[field.name].cast(field.type) if field.name in columns else pa.nulls(SHARD, field.type)
            for field in manifest_schema()
        ]  # fmt: skip
        storage.write(manifest.name_of(shard), manifest.table_to_parquet(pa.table(arrays, schema=manifest_schema())))
    return dataset


def as_a_source(dataset: Dataset) -> int:
    before = pa.total_allocated_bytes()
    candidates = DatasetSource(dataset=dataset.address).candidates()
    # Those of Arrow, which tracemalloc does not see; of eight shards as one table 600,000.
    assert pa.total_allocated_bytes() - before < 100_000
    return sum(batch.num_rows for batch in candidates.to_batches())


def refiltered(dataset: Dataset) -> int:
    """A filter that half of the clips fail now, and a decision over the others."""
    verdicts = decide_anew(dataset, [TooLong(max_s=10), PerUploader(max_clips=1)], [0])
    counts = (sum(verdict.is_settled for verdict in verdicts.of(n, SHARD)) for n in range(dataset.info.shards))
    return 2 * sum(counts)


@pytest.mark.parametrize("of", [as_a_source, refiltered])
def test_four_times_as_many_clips_take_hardly_more_memory(
    of: Callable[[Dataset], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidal.rows.PART_ROWS", SHARD)
    monkeypatch.setattr("vidal.engine.decided._PART_ROWS", SHARD)
    peaks = []
    for shards in (2, 8):
        dataset = dataset_of(tmp_path / str(shards), shards)
        of(dataset)
        tracemalloc.start()
        assert of(dataset) == SHARD * shards
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Their verdicts as Python objects are 3 MB more.
    assert np.diff(peaks)[0] < 500_000, peaks
