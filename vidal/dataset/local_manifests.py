"""The manifests of one revision as a view of DuckDB, which reads the Parquet files themselves."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.clip import SCHEMA_VERSION
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError

_CONCURRENT_REQUESTS = 8


def local_manifests(dataset: Dataset, owner: object) -> list[Path]:
    """Return the manifest files of the committed shards, in plan order; at least one.

    Those in an object store are copied to a temporary folder, which is gone with ``owner``. Raises `SourceError` if no
    shard is committed, and `StorageError`.
    """
    shards = dataset.committed()
    if not shards:
        raise SourceError(f"{dataset.address}: no shard is committed yet; run `vidal build` first")
    if dataset.storage.is_local:
        return [dataset.storage.local_path(dataset.manifest_name(shard)).absolute() for shard in shards]
    folder = Path(tempfile.mkdtemp(prefix="vidal-manifests-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)

    def copy(shard: int) -> Path:
        path = folder / f"{manifest.stem_of(shard)}.parquet"
        path.write_bytes(dataset.manifest_bytes(shard))
        return path

    with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool:
        return list(pool.map(copy, shards))


def create_view(connection: Any, dataset: Dataset, files: list[Path], name: str) -> pa.Schema:
    """Create a view of all rows, with a further column ``file_row_number``, and return the schema of the manifests."""
    # Manifests of an earlier schema version lack columns. Comparing them all costs each query three times as much.
    is_mixed = dataset.info.schema_version < SCHEMA_VERSION or bool(dataset.info.carried)
    rows = connection.read_parquet(list(map(str, files)), file_row_number=True, union_by_name=is_mixed)
    rows.create_view(name)
    if is_mixed:
        return pa.unify_schemas([pq.read_schema(file) for file in files], promote_options="permissive")
    return pq.read_schema(files[0])
