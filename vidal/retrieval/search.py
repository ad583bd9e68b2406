"""`vidal search`: finds clips by text, image or audio in the embeddings of `vidal embed`.

search("a red car", "data/embeddings")
search("photo.jpg", "data/embeddings", modality="depth")     # depth maps by a photograph
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vidal.dataset.dataset import Dataset
from vidal.dataset.embeddings import TEXT, EmbeddingsInfo, read_info
from vidal.dataset.storage import Storage
from vidal.errors import ClipError, SourceError, UserError, one_line
from vidal.modality.audio import AUDIO
from vidal.modality.image import ImageTransform
from vidal.modality.modality import Transform
from vidal.modality.video import VIDEO
from vidal.retrieval.embed import identity
from vidal.settings import differences
from vidal.train.evaluate.metrics import Floats, normalised
from vidal.train.preprocessing import described, preprocessing_identity, transforms_for
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import load_encoder

_MAX_QUERY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A clip, its best modality, and the cosine similarity."""

    clip_id: str
    modality: str
    score: float
    data: str
    """The dataset of the clip."""
    text: str = ""
    """Caption or title of the clip, if the dataset still exists."""


class Hits(list[Hit]):
    """The results of a search, best first."""

    def lines(self) -> Iterator[str]:
        return (f"{hit.score:.3f}  {hit.clip_id}  {hit.modality}  {hit.text}" for hit in self)

    def as_json(self) -> dict[str, Any]:
        return {"hits": [dataclasses.asdict(hit) for hit in self]}


def search(
    query: str, embeddings: str, *, checkpoint: str | None = None, modality: str | None = None, top: int = 10
) -> Hits:
    """Return the ``top`` clips, each once, best first; an exact search, one shard at a time.

    Raises `UserError` if there are no embeddings, or they are of another encoder or lack the modality.
    """
    storage = Storage(embeddings)
    info = read_info(storage)
    if modality is not None and modality not in info.modalities:
        raise UserError(f"--modality {modality}: these embeddings are of {', '.join(info.modalities)}")
    source = checkpoint or info.checkpoint
    encoder = encoder_of(embeddings, info, source)
    transforms = {m: t for m, t in transforms_for(encoder).items() if m in info.modalities}
    if preprocessing_identity(prepared := described(transforms)) != preprocessing_identity(info.transforms):
        changed = "; ".join(differences(info.transforms, prepared)[:3])
        raise UserError(
            f"{embeddings}: was made with other preprocessing than {source}'s ({changed}); run `vidal embed` with it"
        )
    wanted = normalised(_embedded(query, encoder, transforms))[0]
    best: dict[str, Hit] = {}
    shards: dict[str, str] = {}
    searched = 0
    for name in (name for name in storage.names("") if name.endswith(".parquet")):
        count, hits = _hits(storage.read(name), wanted, modality, top, info.data, f"{embeddings}/{name}")
        searched += count
        for hit in hits:
            if hit.clip_id not in best or hit.score > best[hit.clip_id].score:
                best[hit.clip_id], shards[hit.clip_id] = hit, name.removesuffix(".parquet")
    if not searched:
        of = f" of {modality}" if modality else ""
        raise SourceError(f"{embeddings}: holds no embedding{of}; run `vidal embed` to its end")
    # Ties by id, whatever the order of the shards.
    found = sorted(best.values(), key=lambda hit: (-hit.score, hit.clip_id))[:top]
    texts = _texts(info.data, {shards[hit.clip_id] for hit in found})
    return Hits(dataclasses.replace(hit, text=texts.get(hit.clip_id, "")) for hit in found)


def encoder_of(embeddings: str, info: EmbeddingsInfo, checkpoint: str) -> Encoder:
    """Load the encoder that embeddings were made with; raises `UserError` if ``checkpoint`` is another one."""
    encoder = load_encoder(checkpoint)
    if identity(encoder) != info.identity:
        raise UserError(f"{checkpoint}: is not the encoder that {embeddings} was made with; run `vidal embed` with it")
    return encoder


def _texts(address: str, shards: set[str]) -> dict[str, str]:
    """The caption or title of each clip of some shards of a dataset, of which only their manifests are read."""
    texts: dict[str, str] = {}
    try:
        dataset = Dataset.open(address)
        for shard in shards:
            table = dataset.table(int(shard))
            rows = table.select([c for c in ("clip_id", "caption", "title") if c in table.column_names]).to_pylist()
            texts |= {row["clip_id"]: row.get("caption") or row.get("title") or "" for row in rows}
    except (UserError, OSError, ValueError, pa.ArrowException):
        # The dataset may have been moved or deleted since; its embeddings are found all the same.
        return {}
    return texts


def _hits(
    data: bytes, wanted: Floats, modality: str | None, top: int, dataset: str, place: str
) -> tuple[int, list[Hit]]:
    """Return the number of embeddings of a shard that were compared, and the best hits."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        kinds = np.asarray(table.column("modality").to_pylist(), object)
        vectors = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(kinds), len(wanted))
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise SourceError(f"{place}: cannot be read as embeddings: {one_line(error)}") from None
    # Texts are there for training: a search is for clips.
    rows = np.flatnonzero(kinds == modality if modality is not None else kinds != TEXT)
    scores = vectors[rows] @ wanted
    # Stable, so that clips of equal score come in the same order each time; a clip can have one hit per modality.
    order = np.argsort(-scores, kind="stable")[: top * max(1, len(set(kinds)))]
    ids = table.column("clip_id")
    return len(rows), [
        Hit(clip_id=ids[int(rows[k])].as_py(), modality=kinds[rows[k]], score=float(scores[k]), data=dataset)
        for k in order
    ]


@torch.no_grad()
def _embedded(query: str, encoder: Encoder, transforms: dict[str, Transform]) -> Floats:
    path = Path(query)
    ending = path.suffix.lower().removeprefix(".")
    modality = next((m for m in (VIDEO, AUDIO) if ending in m.endings), None)
    if modality is None:
        if not query.strip():
            raise UserError("the query is empty; give a text, or the path of an image or audio file")
        return np.asarray(encoder.encode_texts([query]).float().cpu().numpy(), np.float32)
    kind = modality.layer
    transform = transforms.get(kind)
    if transform is None:
        raise UserError(f"{query}: these embeddings' encoder takes {', '.join(transforms)} and text, but no {kind}")
    try:
        if path.stat().st_size > _MAX_QUERY_BYTES:
            raise UserError(f"{path}: larger than {_MAX_QUERY_BYTES >> 20} MiB")
        array = modality.decode({ending: path.read_bytes()})
        if isinstance(transform, ImageTransform):
            # A still image stands for all frames that the tower takes.
            array = np.repeat(array, transform.frames, axis=0)
        pixels = transform(array, None)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ClipError as error:
        raise UserError(f"{query}: cannot be read: {error.detail}") from None
    return np.asarray(encoder.encode(kind, pixels[None]).float().cpu().numpy(), np.float32)
