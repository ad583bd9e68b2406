"""`vidal embed`: the embeddings of a data set as Parquet, one file for each shard, written once."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import vidal
from vidal.dataset import manifest
from vidal.dataset.samples import Samples
from vidal.dataset.storage import Storage
from vidal.errors import OutputError
from vidal.stage import digest
from vidal.train.data.transforms import TRANSFORMS, Transform
from vidal.train.evaluate.embeddings import embed_samples
from vidal.train.evaluate.metrics import normalised
from vidal.train.run import transforms_of
from vidal.train.run_folder import RunFolder
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import load_encoder

INFO = "embeddings.json"


@dataclass(slots=True, kw_only=True)
class EmbedResult:
    """What was written."""

    rows: int = 0
    shards: int = 0
    shards_there: int = 0
    modalities: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def embed(address: str, checkpoint: str, out: str, *, where: str | None = None, workers: int = 0) -> EmbedResult:
    """Embed every modality that encoder and data set share; shards that are there are left as they are."""
    encoder, storage = load_encoder(checkpoint), Storage(out)
    samples = vidal.open(address, where=where)
    transforms = transforms_for(checkpoint, encoder)
    modalities = [m for m in transforms if m in samples.layers]
    _claim(storage, {
        "checkpoint": str(checkpoint), "identity": identity(encoder), "data": str(address), "where": where,
        "fingerprint": samples.fingerprint, "modalities": modalities, "is_normalised": True,
    })  # fmt: skip
    result = EmbedResult(modalities=modalities)
    shards = samples.column("shard").to_numpy()
    for shard in np.unique(shards):
        name = f"{manifest.stem_of(int(shard))}.parquet"
        if storage.exists(name):
            result.shards_there += 1
            continue
        numbers = np.flatnonzero(shards == shard).tolist()
        table = _table(encoder, samples, numbers, {m: transforms[m] for m in modalities}, workers, result)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        storage.write(name, sink.getvalue())
        result.rows += table.num_rows
        result.shards += 1
    return result


def transforms_for(checkpoint: str, encoder: Encoder) -> dict[str, Transform]:
    """Those of the run that the encoder comes from, or the modalities' own at the towers' sizes."""
    if (Path(checkpoint) / "run.json").is_file():
        return transforms_of(RunFolder(checkpoint).read().settings(), encoder)
    made: dict[str, Transform] = {}
    for modality in (m for m in encoder.modalities if m in TRANSFORMS):
        settings = encoder.tower(modality).settings
        height, width = settings.height_width
        sizes: dict[str, Any] = {"size": height, "frames": 8 if modality == "video" else settings.frames}
        if modality == "audio":
            sizes = {"mel_bins": height, "length": width}
        made[modality] = TRANSFORMS[modality].model_validate(sizes)
    return made


def identity(encoder: Encoder) -> str:
    """Stands for the weights: embeddings of two encoders are never compared."""
    state = encoder.trainable_state()
    sums = {name: [float(x.double().sum()), float(x.double().abs().sum())] for name, x in sorted(state.items())}
    return digest(sums)


def _claim(storage: Storage, info: dict[str, Any]) -> None:
    if storage.is_local:
        storage.local_path().mkdir(parents=True, exist_ok=True)
    if storage.exists(INFO):
        there = json.loads(storage.read(INFO))
        changed = next((k for k in ("identity", "fingerprint", "where", "modalities") if there.get(k) != info[k]), None)
        if changed:
            raise OutputError(f"{storage.address}: holds embeddings of another {changed}; choose another --out")
        return
    storage.write(INFO, (json.dumps(info, indent=2) + "\n").encode())


def _table(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: dict[str, Transform], workers: int,
    result: EmbedResult,
) -> pa.Table:  # fmt: skip
    tables = []
    for modality, transform in transforms.items():
        made = embed_samples(encoder, samples, numbers, modality, transform, workers=workers)
        result.broken += [broken.clip_id for broken in made.broken]
        rows = normalised(made.rows)
        kind = pa.list_(pa.float32(), rows.shape[1])
        tables.append(pa.table({
            "clip_id": pa.array([samples.clip_id(int(n)) for n in made.numbers], pa.string()),
            "modality": pa.array([modality] * len(rows), pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=kind),
        }))  # fmt: skip
    return pa.concat_tables(tables)
