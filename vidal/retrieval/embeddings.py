"""The files of `vidal embed`, for whoever needs no encoder to read them.

OUT/embeddings.json      encoder, dataset and preprocessing, which determine what an embedding can be compared with
OUT/000007.parquet       clip_id, modality, embedding; broken samples are listed in the file's metadata
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from vidal.dataset.storage import Storage
from vidal.errors import SourceError

NAME = "embeddings.json"
PREFIX = "vidal."
"""Of the entries in the metadata of a file."""
_BROKEN = f"{PREFIX}broken".encode()


class EmbeddingsInfo(BaseModel):
    """The content of ``embeddings.json``."""

    checkpoint: str
    identity: str
    """Hash of the encoder's weights."""
    data: str
    where: str | None
    fingerprint: str
    """Fingerprint of the dataset."""
    modalities: list[str]
    transforms: dict[str, dict[str, Any]]
    preprocessing: str
    """Identity of ``transforms``, which is also in the metadata of each Parquet file."""
    is_normalised: bool = True


def read_info(storage: Storage) -> EmbeddingsInfo:
    """Read ``embeddings.json``; raises `SourceError` if there are no embeddings."""
    try:
        return EmbeddingsInfo.model_validate_json(storage.read(NAME))
    except FileNotFoundError:
        raise SourceError(f"{storage.address}: no embeddings there (no {NAME}); `vidal embed` makes them") from None
    except ValidationError as error:
        raise SourceError(f"{storage.address}/{NAME}: not of embeddings ({error.error_count()} errors)") from None


def broken_in(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the broken samples that the metadata of a file lists: ``clip_id``, ``dataset``, ``why``."""
    broken: list[dict[str, Any]] = json.loads((schema.metadata or {}).get(_BROKEN, b"[]"))
    return broken


def write(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a file of embeddings atomically."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write(name, sink.getvalue())


def erase(storage: Storage, clip_ids: Collection[str]) -> None:
    """Take clips out of all files; one that has none of them is not written."""
    erased = pa.array(sorted(clip_ids), pa.string())
    for name in (name for name in storage.names("") if name.endswith(".parquet")):
        try:
            table = pq.read_table(pa.BufferReader(storage.read(name)))
            left = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=erased)))
        except (pa.ArrowException, KeyError, OSError) as error:
            why = " ".join(str(error).split())[:120]
            raise SourceError(f"{storage.address}/{name}: cannot be read as embeddings ({why}); delete it") from None
        broken = broken_in(table.schema)
        intact = [sample for sample in broken if sample["clip_id"] not in clip_ids]
        if left.num_rows < table.num_rows or len(intact) < len(broken):
            metadata = {**(table.schema.metadata or {}), _BROKEN: json.dumps(intact).encode()}
            write(storage, name, left.replace_schema_metadata(metadata))
