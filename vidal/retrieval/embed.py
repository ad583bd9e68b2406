"""`vidal embed`: writes the embeddings of a dataset as Parquet, one file per shard (`vidal.dataset.embeddings`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import vidal
from vidal.dataset import manifest
from vidal.dataset.embeddings import NAME, PREFIX, TEXT, EmbeddingsInfo, broken_in, read_info, text_key, write
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, SourceError
from vidal.train.data.rows import Broken
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.embeddings import embed_samples, embed_texts
from vidal.train.evaluate.metrics import Floats, normalised
from vidal.train.preprocessing import described, preprocessing_identity, transforms_for
from vidal.train.towers.encoder import Encoder, pairs_of
from vidal.train.towers.load import load_encoder
from vidal.train.towers.weights import digest


@dataclass(slots=True, kw_only=True)
class EmbedResult:
    """The result of `embed`."""

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
    address: str, checkpoint: str, out: str | Storage, *, where: str | None = None, views: TextViews | None = None,
    half: bool = False, workers: int = 0, device: str = "auto",
) -> EmbedResult:  # fmt: skip
    """Embed every modality that encoder and dataset share, and all texts of ``views``; existing shards are skipped.

    ``half`` stores float16: half the bytes, with three digits.
    Raises `SourceError` if they share none, and `OutputError` if ``out`` has other embeddings.
    """
    encoder, storage = load_encoder(checkpoint), out if isinstance(out, Storage) else Storage(out)
    samples = vidal.open(address, where=where)
    transforms = {m: t for m, t in transforms_for(encoder).items() if m in samples.layers}
    if not transforms:
        has = ", ".join(encoder.modalities)
        raise SourceError(f"{address}: has {', '.join(samples.layers)}; the encoder of {checkpoint} supports {has}")
    shards = samples.column("shard").to_numpy()
    info = EmbeddingsInfo(
        checkpoint=str(checkpoint), identity=identity(encoder), data=str(address), where=where,
        fingerprint=samples.fingerprint, modalities=list(transforms),
        transforms=(prepared := described(transforms)), preprocessing=preprocessing_identity(prepared),
        is_half=half, views=sorted(views.weights) if views is not None else [],
        logit_scale={"-".join(pair): encoder.pair_scale(pair).item() for pair in pairs_of(encoder.logit_scale)},
        shards=len(np.unique(shards)),
    )  # fmt: skip
    _claim(storage, info)
    encoder.to("cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device)
    result = EmbedResult(out=storage.address, modalities=[*info.modalities, *([TEXT] if views is not None else [])])
    for shard in np.unique(shards):
        name = f"{manifest.stem_of(int(shard))}.parquet"
        # A file is written whole or not at all, so one that is there is complete.
        if storage.exists(name):
            result.shards_there += 1
            result.broken += [Broken(**one) for one in broken_in(pq.read_schema(pa.BufferReader(storage.read(name))))]
            continue
        numbers = np.flatnonzero(shards == shard).tolist()
        tables, broken = [], []
        for modality, transform in transforms.items():
            embedded = embed_samples([encoder], samples, numbers, modality, transform, workers=workers)
            ids = [samples.clip_id(int(n)) for n in embedded.numbers]
            tables.append(_table(ids, modality, embedded.rows[0], info))
            broken += embedded.broken
        if views is not None:
            columns = views.columns
            of_clips = [(samples.clip_id(n), text) for n in numbers for text in views.every(samples.part(n, columns))]
            found = embed_texts(encoder.encode_texts, [text for _, text in of_clips])
            if of_clips:
                clip_ids, texts = zip(*of_clips, strict=True)
                tables.append(_table(clip_ids, TEXT, np.stack([found[text] for text in texts]), info, texts))
        table = pa.concat_tables(tables)
        write(storage, name, _described(table, info, broken))
        result.rows += table.num_rows
        result.shards += 1
        result.broken += broken
    return result


def identity(encoder: Encoder) -> str:
    """Return a hash of the weights; embeddings of different encoders are never compared."""
    return digest(encoder.towers.state_dict(), encoder.text.weights_digest() if encoder.text is not None else "")


def _claim(storage: Storage, info: EmbeddingsInfo) -> None:
    if storage.is_local:
        storage.local_path().mkdir(parents=True, exist_ok=True)
    if not storage.exists(NAME):
        _describe(storage, info)
        return
    existing = read_info(storage)
    words = {"identity": "encoder", "fingerprint": "dataset", "where": "--where", "modalities": "choice of modalities",
            "transforms": "preparation of the inputs", "views": "choice of texts", "is_half": "precision"}  # fmt: skip
    changed = next((word for key, word in words.items() if getattr(existing, key) != getattr(info, key)), None)
    if changed:
        raise OutputError(
            f"{storage.address}: has embeddings of another {changed}; choose another --out or --name, or delete it"
        )
    if existing.shards != info.shards:
        # A clip was removed, or a shard was built, since the command was interrupted.
        _describe(storage, existing.model_copy(update={"shards": info.shards}))


def _describe(storage: Storage, info: EmbeddingsInfo) -> None:
    storage.write(NAME, (info.model_dump_json(indent=2) + "\n").encode())


def _table(
    clip_ids: Sequence[str], modality: str, rows: Floats, info: EmbeddingsInfo, texts: Sequence[str] | None = None
) -> pa.Table:
    values = normalised(rows).astype(np.float16 if info.is_half else np.float32)
    kind = pa.list_(pa.from_numpy_dtype(values.dtype), rows.shape[1])
    columns = {
        "clip_id": pa.array(clip_ids, pa.string()),
        "modality": pa.array([modality] * len(rows), pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind),
    }
    if info.views:
        columns["text"] = pa.array([*map(text_key, texts)] if texts is not None else [None] * len(rows), pa.string())
    return pa.table(columns)


def _described(table: pa.Table, info: EmbeddingsInfo, broken: Sequence[Broken]) -> pa.Table:
    entries = {
        "identity": info.identity, "preprocessing": info.preprocessing, "checkpoint": info.checkpoint,
        "data": info.data, "is_normalised": "true",
        "broken": json.dumps([dataclasses.asdict(b) for b in broken]),
    }  # fmt: skip
    return table.replace_schema_metadata({f"{PREFIX}{key}": value for key, value in entries.items()})
