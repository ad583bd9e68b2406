"""`vidal search`: clips that fit words, a picture or a sound, over the embeddings of `vidal embed`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vidal.dataset.storage import Storage
from vidal.errors import ClipError, SourceError, UserError
from vidal.train.data.decode import decode_picture, decode_sound
from vidal.train.data.transforms import AudioTransform
from vidal.train.embed import INFO, identity, transforms_for
from vidal.train.evaluate.metrics import normalised
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import load_encoder

_PICTURES = (".jpg", ".jpeg", ".png")
_SOUNDS = (".flac", ".wav", ".mp3", ".ogg")
_MAX_QUERY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A clip, the modality that fitted, the cosine, and what the clip is."""

    clip_id: str
    modality: str
    score: float
    text: str


def search(
    query: str, embeddings: str, *, checkpoint: str | None = None, modality: str | None = None, top: int = 10
) -> list[Hit]:
    """The best clips, each once, best first; raises `UserError` where the embeddings are of another encoder."""
    storage = Storage(embeddings)
    try:
        info = json.loads(storage.read(INFO))
    except FileNotFoundError:
        raise SourceError(f"{embeddings}: no embeddings there (no {INFO}); `vidal embed` makes them") from None
    if modality is not None and modality not in info["modalities"]:
        raise UserError(f"--modality {modality}: these embeddings are of {', '.join(info['modalities'])}")
    source = checkpoint or info["checkpoint"]
    encoder = load_encoder(source)
    if identity(encoder) != info["identity"]:
        raise UserError(f"{source}: is not the encoder of these embeddings; embed again with it")
    wanted = normalised(_embedded(query, encoder, source))[0]
    best: dict[str, Hit] = {}
    for name in storage.names(""):
        if name.endswith(".parquet"):
            for hit in _hits(storage.read(name), wanted, modality, top):
                if hit.clip_id not in best or hit.score > best[hit.clip_id].score:
                    best[hit.clip_id] = hit
    found = sorted(best.values(), key=lambda hit: (-hit.score, hit.clip_id))[:top]
    return _with_texts(found, info["data"])


def _hits(data: bytes, wanted: npt.NDArray[np.float32], modality: str | None, top: int) -> list[Hit]:
    table = pq.read_table(pa.BufferReader(data))
    if table.num_rows == 0:
        return []
    column = table.column("embedding").combine_chunks()
    scores = column.flatten().to_numpy().reshape(table.num_rows, -1) @ wanted
    kinds = table.column("modality").to_pylist()
    if modality is not None:
        scores = np.where([kind == modality for kind in kinds], scores, -np.inf)
    # A clip may fill as many places as there are modalities.
    places = np.argsort(-scores, kind="stable")[: top * max(1, len(set(kinds)))]
    ids = table.column("clip_id")
    return [
        Hit(clip_id=ids[int(p)].as_py(), modality=kinds[p], score=float(scores[p]), text="")
        for p in places
        if np.isfinite(scores[p])
    ]


@torch.no_grad()
def _embedded(query: str, encoder: Encoder, checkpoint: str) -> npt.NDArray[np.float32]:
    path = Path(query)
    ending = path.suffix.lower()
    is_file = ending in (*_PICTURES, *_SOUNDS) and path.is_file()
    if not is_file:
        return np.asarray(encoder.encode_texts([query]).float().cpu().numpy(), np.float32)
    kind = "audio" if ending in _SOUNDS else "video"
    transforms = transforms_for(checkpoint, encoder)
    if kind not in transforms:
        raise UserError(f"{query}: the encoder has no tower for {kind}, only {', '.join(transforms)}")
    if path.stat().st_size > _MAX_QUERY_BYTES:
        raise UserError(f"{query}: larger than {_MAX_QUERY_BYTES >> 20} MiB")
    data, transform = path.read_bytes(), transforms[kind]
    try:
        if isinstance(transform, AudioTransform):
            pixels = transform(decode_sound(data), None)
        else:
            pixels = transform(np.stack([decode_picture("video", data, path.name)] * transform.frames), None)
    except ClipError as error:
        raise UserError(f"{query}: cannot be read: {error.detail}") from None
    return np.asarray(encoder.encode(kind, pixels[None]).float().cpu().numpy(), np.float32)


def _with_texts(hits: list[Hit], address: str) -> list[Hit]:
    """What the data set says of each clip, where it still is."""
    import vidal

    try:
        samples = vidal.open(address)
    except UserError:
        return hits
    said = samples.rows(["clip_id", "caption", "title"])
    texts = {row["clip_id"]: row.get("caption") or row.get("title") or "" for row in said}
    return [Hit(clip_id=h.clip_id, modality=h.modality, score=h.score, text=texts.get(h.clip_id, "")) for h in hits]
