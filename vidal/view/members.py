"""`ClipReader`: one clip of a dataset with all that its row says, and its members as a browser shows them."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from vidal import modality as modalities
from vidal.dataset import thumbnail
from vidal.dataset.dataset import Dataset, UncommittedError
from vidal.dataset.tars import suffix_of
from vidal.errors import SourceError
from vidal.modality.modality import Shown
from vidal.report.texts import MODEL_OF

_TYPES = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "mp4": "video/mp4",
    "webm": "video/webm", "flac": "audio/flac", "wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg",
}  # fmt: skip
"""What a browser may interpret; every other member is bytes to it, whatever a stranger put in."""
_UNTYPED = "application/octet-stream"
_BLOCK_BYTES = 1 << 20
_CACHED_SHARDS, _CACHED_CLIPS = 8, 32


class ClipReader:
    """The clips of one revision by id; its methods may be called from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._table = functools.lru_cache(_CACHED_SHARDS)(dataset.table)
        self.row = functools.lru_cache(_CACHED_CLIPS)(self._row)
        self.shown = functools.lru_cache(_CACHED_CLIPS)(self._show)

    def _row(self, clip_id: str, shard: int | None = None) -> dict[str, Any]:
        """Return the row of a clip; its ``shard`` saves looking it up in the plan. Raises `SourceError` for no clip."""
        row = None
        if shard is None:
            row = self._dataset.find(clip_id)
        else:
            with contextlib.suppress(UncommittedError):
                table: pa.Table = self._table(shard)
                row = next(iter(table.filter(pc.equal(table["clip_id"], clip_id)).to_pylist()), None)
        if row is None:
            place = "" if shard is None else f" in shard {shard}"
            raise SourceError(f"{self._dataset.address}: no clip {clip_id}{place}")
        return row

    def texts(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the texts of a clip with the columns they are in, and the models that made them."""
        return [
            {"column": text, "text": row[text], "model": row.get(model) if model else None}
            for text, model in MODEL_OF.items()
            if any(row.get(text) or "")
        ]

    def provenance(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return each member's layer, name, tar, offset and size in bytes, SHA-256 and media type."""
        members = []
        for member in row["members"] or []:
            storage, tar = self._dataset.storage.place(self._dataset.tar(member["layer"], row["shard"]))
            address = f"{storage.address}/{tar}" if tar else storage.address
            members.append({**member, "tar": address, "type": media_type(member["name"])})
        return members

    def member(self, row: dict[str, Any], layer: str, name: str) -> dict[str, Any]:
        """Return the record of a member; raises `SourceError` if the row has none of that name."""
        for member in row["members"] or []:
            if (member["layer"], member["name"]) == (layer, name):
                return dict(member)
        raise SourceError(f"clip {row['clip_id']}: no member {name} in {layer}")

    def blocks(self, row: dict[str, Any], member: dict[str, Any], first: int, last: int) -> Iterator[bytes]:
        """Yield a member's bytes from ``first`` to ``last``, both included, in blocks."""
        storage, tar = self._dataset.storage.place(self._dataset.tar(member["layer"], row["shard"]))
        for start in range(first, last + 1, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, last + 1 - start)
            yield storage.read_range(tar, member["offset"] + start, size)

    def thumbnail(self, row: dict[str, Any]) -> bytes | None:
        """Return a small JPEG of a clip: what a rejected one keeps, or its middle frame; None without frames."""
        return thumbnail.thumbnail_of(row, self._dataset.read_member)

    def preview(self, clip_id: str, shard: int | None, layer: str, frame: int) -> bytes:
        """Return frame k of a layer as a report shows it, as an 8-bit PNG; raises `SourceError` if there is none."""
        images = self.shown(clip_id, shard, layer).images
        if not 0 <= frame < len(images):
            raise SourceError(f"clip {clip_id}: {layer} has no frame {frame} of {len(images)}")
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(images[frame])).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def peaks(self, clip_id: str, shard: int | None, count: int) -> list[tuple[float, float]]:
        """Return the lowest and the highest sample, in [-1, 1], of each of ``count`` parts of a clip's audio.

        Raises `SourceError` if it has none.
        """
        samples = self.shown(clip_id, shard, "audio").samples
        if samples is None:
            raise SourceError(f"clip {clip_id}: no audio")
        parts = (part for part in np.array_split(samples, count) if len(part))
        return [(round(float(part.min()), 4), round(float(part.max()), 4)) for part in parts]

    def _show(self, clip_id: str, shard: int | None, layer: str) -> Shown:
        row, modality = self.row(clip_id, shard), modalities.get(layer)
        names = {suffix_of(m["name"]): m["name"] for m in row["members"] or [] if m["layer"] == layer}
        stored = modality.members(list(names))
        if not stored:
            raise SourceError(f"clip {clip_id}: nothing in {layer}")
        # Of all frames at once, as they are coloured on one scale.
        members = {suffix: self._dataset.read_member(row, names[suffix]) for suffix in stored.values()}
        return modality.show(modality.decode(members), row)


def media_type(name: str) -> str:
    """Return the media type of a member by the ending of its name; bytes for all that is no image, video or audio."""
    return _TYPES.get(name.rpartition(".")[2].lower(), _UNTYPED)
