"""The files of `vidal embed` and `vidal reinforce`, for whoever needs no encoder to read them.

OUT/embeddings.json      encoder, dataset and preprocessing, which determine what an embedding can be compared with
OUT/000007.parquet       clip_id, modality, embedding; broken samples are listed in the file's metadata

With ``--views`` there is a row of modality ``text`` for each text of a clip, and a column ``text`` with its `text_key`.
OUT of `vidal reinforce` is ``teachers/NAME`` in the folder of the dataset, or of the revision, that was embedded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

from vidal.dataset.manifest import table_to_parquet
from vidal.dataset.storage import Storage
from vidal.errors import SourceError, one_line

NAME = "embeddings.json"
PREFIX = "vidal."
"""Of the entries in the metadata of a file."""
TEXT = "text"
"""The modality of the rows of texts."""
TEACHERS = "teachers"
"""Folder of the teachers in that of a dataset or revision."""
TEACHER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
"""A name without a slash: in a recipe, one with a slash is a folder elsewhere."""
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
    is_half: bool = False
    """Whether embeddings are float16; else float32."""
    views: list[str] = Field(default_factory=list)
    """The text views whose texts have an embedding, too."""
    logit_scale: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """Factor of the encoder's cosine similarities for each pair that it was trained on, such as ``text-video``."""
    shards: int = 0
    """Number of files once all are written; 0: not recorded, by an earlier version."""


def teachers_of(dataset: Storage) -> dict[str, Storage]:
    """Return where the embeddings of each teacher are, by its name; of the folder of a dataset or revision."""
    folders = {name: dataset.child(f"{TEACHERS}/{name}") for name in dataset.names(TEACHERS)}
    return {name: folder for name, folder in folders.items() if folder.exists(NAME)}


def read_info(storage: Storage) -> EmbeddingsInfo:
    """Read ``embeddings.json``; raises `SourceError` if there are no embeddings."""
    try:
        return EmbeddingsInfo.model_validate_json(storage.read(NAME))
    except FileNotFoundError:
        raise SourceError(f"{storage.address}: no embeddings there (no {NAME}); `vidal embed` makes them") from None
    except ValidationError as error:
        raise SourceError(f"{storage.address}/{NAME}: not of embeddings ({error.error_count()} errors)") from None


def files(storage: Storage) -> list[str]:
    """Return the names of the files of embeddings, one per shard."""
    return [name for name in storage.names("") if name.endswith(".parquet")]


def missing(storage: Storage, info: EmbeddingsInfo) -> str:
    """Return ``3 of 12 shards are there`` of embeddings that are not written to the end; ``""`` for others."""
    there = len(files(storage))
    return f"{there} of {info.shards} shards are there" if there < info.shards else ""


def read(storage: Storage, name: str) -> pa.Table:
    """Read a file of embeddings; raises `SourceError` for a damaged one."""
    try:
        table = pq.read_table(pa.BufferReader(storage.read(name)), page_checksum_verification=True)
        has_texts = pc.any(pc.equal(table["modality"], TEXT)).as_py()
        if lacks := {"clip_id", "embedding", *([TEXT] if has_texts else [])} - set(table.column_names):
            raise ValueError(f"no column {min(lacks)}")
        if not pa.types.is_fixed_size_list(table.schema.field("embedding").type):
            raise ValueError("embeddings of no fixed length")
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        why = one_line(error)
        raise SourceError(f"{storage.address}/{name}: cannot be read as embeddings ({why}); delete it") from None
    return table


def is_finite(table: pa.Table) -> bool:
    """Return whether all values of a file's embeddings are numbers."""
    return bool(np.isfinite(table["embedding"].combine_chunks().flatten().to_numpy()).all())


def text_key(text: str) -> str:
    """Return the start of a text's SHA-256, by which its embedding is found."""
    # 128 bits, so that different texts never share one.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def broken_in(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the broken samples that the metadata of a file lists: ``clip_id``, ``dataset``, ``why``."""
    broken: list[dict[str, Any]] = json.loads((schema.metadata or {}).get(_BROKEN, b"[]"))
    return broken


def write(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a file of embeddings atomically."""
    storage.write(name, table_to_parquet(table))


def erase(storage: Storage, clip_ids: Collection[str]) -> None:
    """Take clips out of all files; one that has none of them is not written."""
    erased = pa.array(sorted(clip_ids), pa.string())
    for name in files(storage):
        table = read(storage, name)
        left = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=erased)))
        broken = broken_in(table.schema)
        intact = [sample for sample in broken if sample["clip_id"] not in clip_ids]
        if left.num_rows < table.num_rows or len(intact) < len(broken):
            metadata = {**(table.schema.metadata or {}), _BROKEN: json.dumps(intact).encode()}
            write(storage, name, left.replace_schema_metadata(metadata))
