"""`vidal embed`: the embeddings of a data set as Parquet, one file for each shard, written once.

OUT/embeddings.json      which encoder made them, of which data set: what an embedding may be compared with
OUT/000007.parquet       clip_id, modality, embedding; what could not be read stands in the file's metadata
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ValidationError

import vidal
from vidal.dataset import manifest
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken
from vidal.train.evaluate.embeddings import embed_samples
from vidal.train.evaluate.metrics import normalised
from vidal.train.preprocessing import described, preprocessing_identity, transforms_for
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import load_encoder

NAME = "embeddings.json"
_PREFIX = "vidal."


class EmbeddingsInfo(BaseModel):
    """``embeddings.json``."""

    checkpoint: str
    identity: str
    """Of the encoder's weights."""
    data: str
    where: str | None
    fingerprint: str
    """Of the data set."""
    modalities: list[str]
    transforms: dict[str, dict[str, Any]]
    preprocessing: str
    """Stands for ``transforms``; each file of embeddings has it too."""
    is_normalised: bool = True


@dataclass(slots=True, kw_only=True)
class EmbedResult:
    """What was written."""

    out: str
    rows: int = 0
    shards: int = 0
    shards_there: int = 0
    modalities: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield (
            f"wrote {self.rows} embeddings of {', '.join(self.modalities)} to {self.out}"
            + (f"; {self.shards_there} shards were there already" if self.shards_there else "")
            + (f"; {len(self.broken)} broken samples left out" if self.broken else "")
        )

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def embed(
    address: str, checkpoint: str, out: str, *, where: str | None = None, workers: int = 0, device: str = "auto"
) -> EmbedResult:
    """Embed every modality that encoder and data set share; shards that are there are left as they are."""
    encoder, storage = load_encoder(checkpoint), Storage(out)
    samples = vidal.open(address, where=where)
    transforms = {m: t for m, t in transforms_for(encoder).items() if m in samples.layers}
    if not transforms:
        has = ", ".join(encoder.modalities)
        raise SourceError(f"{address}: has {', '.join(samples.layers)}; the encoder of {checkpoint} knows {has}")
    info = EmbeddingsInfo(
        checkpoint=str(checkpoint), identity=identity(encoder), data=str(address), where=where,
        fingerprint=samples.fingerprint, modalities=list(transforms),
        transforms=(prepared := described(transforms)), preprocessing=preprocessing_identity(prepared),
    )  # fmt: skip
    _claim(storage, info)
    encoder.to("cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device)
    result = EmbedResult(out=out, modalities=info.modalities)
    shards = samples.column("shard").to_numpy()
    for shard in np.unique(shards):
        name = f"{manifest.stem_of(int(shard))}.parquet"
        if storage.exists(name):
            result.shards_there += 1
            result.broken += _broken_there(storage.read(name))
            continue
        numbers = np.flatnonzero(shards == shard).tolist()
        table, broken = _table(encoder, samples, numbers, transforms, workers)
        storage.write(name, _parquet(table, info, broken))
        result.rows += table.num_rows
        result.shards += 1
        result.broken += broken
    return result


def read_info(storage: Storage) -> EmbeddingsInfo:
    """Raises `SourceError` where there are no embeddings."""
    try:
        return EmbeddingsInfo.model_validate_json(storage.read(NAME))
    except FileNotFoundError:
        raise SourceError(f"{storage.address}: no embeddings there (no {NAME}); `vidal embed` makes them") from None
    except ValidationError as error:
        raise SourceError(f"{storage.address}/{NAME}: not of embeddings ({error.error_count()} errors)") from None


def identity(encoder: Encoder) -> str:
    """Stands for the weights that embeddings depend on: those of two encoders are never compared."""
    total = hashlib.sha256(encoder.text.weights_digest().encode() if encoder.text is not None else b"")
    for name, tensor in sorted(encoder.towers.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _claim(storage: Storage, info: EmbeddingsInfo) -> None:
    if storage.is_local:
        storage.local_path().mkdir(parents=True, exist_ok=True)
    if not storage.exists(NAME):
        storage.write(NAME, (info.model_dump_json(indent=2) + "\n").encode())
        return
    there = read_info(storage)
    said = {"identity": "encoder", "fingerprint": "data set", "where": "--where", "modalities": "choice of modalities",
            "transforms": "preparation of the inputs"}  # fmt: skip
    changed = next((word for key, word in said.items() if getattr(there, key) != getattr(info, key)), None)
    if changed:
        raise OutputError(f"{storage.address}: holds embeddings of another {changed}; choose another --out")


def _table(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: dict[str, Transform], workers: int
) -> tuple[pa.Table, list[Broken]]:
    tables, broken = [], []
    for modality, transform in transforms.items():
        made = embed_samples(encoder, samples, numbers, modality, transform, workers=workers)
        broken += made.broken
        rows = normalised(made.rows)
        kind = pa.list_(pa.float32(), rows.shape[1])
        tables.append(pa.table({
            "clip_id": pa.array([samples.clip_id(int(n)) for n in made.numbers], pa.string()),
            "modality": pa.array([modality] * len(rows), pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=kind),
        }))  # fmt: skip
    return pa.concat_tables(tables), broken


def _parquet(table: pa.Table, info: EmbeddingsInfo, broken: Sequence[Broken]) -> bytes:
    said = {
        "identity": info.identity, "preprocessing": info.preprocessing, "checkpoint": info.checkpoint,
        "data": info.data, "is_normalised": "true",
        "broken": json.dumps([dataclasses.asdict(b) for b in broken]),
    }  # fmt: skip
    sink = io.BytesIO()
    metadata = {f"{_PREFIX}{key}": value for key, value in said.items()}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def _broken_there(data: bytes) -> list[Broken]:
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return [Broken(**said) for said in json.loads(metadata.get(f"{_PREFIX}broken".encode(), b"[]"))]
