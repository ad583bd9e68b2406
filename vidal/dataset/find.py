"""`find`: looks up one clip of a dataset by its id, its URL or a prefix of its id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import NAME, Plan
from vidal.errors import SourceError

_MAX_LISTED = 5
# The id leads the first line; of the others, one value fills a screen.
_NOT_PRINTED = (
    "clip_id", "members", "audio_fingerprint", "ocr_lines", "thumbnail", "video_embedding", "caption_embedding",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one clip: its manifest row."""

    dataset: str
    row: dict[str, Any]

    def lines(self) -> Iterator[str]:
        row, clip_id = self.row, self.row["clip_id"]
        sentence = f"{clip_id} is {row['status']}"
        if row["status"] != "kept":
            sentence += f": stage {row['stage']}, {row['reason']} ({row['detail']})"
        if row["duplicate_of"]:
            sentence += f", repeats {row['duplicate_of']}"
        if row["is_transient"]:
            sentence += f"; a retry may succeed: vidal retry {self.dataset} --clip {clip_id}"
        yield sentence
        for name, value in row.items():
            if value not in (None, [], "") and name not in _NOT_PRINTED:
                yield f"  {name}: {value}"

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.row.items() if name not in ("members", "thumbnail")}


def find(dataset: Dataset, name: str) -> Outcome:
    """Return the outcome of a clip by its id, its URL or a prefix of its id.

    Raises `SourceError` if no clip or several match, or if the clip's shard is not built yet.
    """
    done, total = len(dataset.committed()), dataset.info.shards
    address, progress = dataset.storage.address, f"{done} of {total} shards committed"
    # Before the last phase begins there is only the plan of the first, which has the same candidates.
    plan = dataset.plan if dataset.own_storage.exists(NAME) else Plan(dataset.storage.child("phases/1"))
    places = plan.table(["clip_id", "url", "shard"])
    ids, urls = places.column("clip_id"), places.column("url")
    # Exact matches come first: one clip's id may be the prefix of another's.
    masks = (pc.equal(ids, name), pc.equal(urls, name), pc.starts_with(ids, name))
    matches = next((found for mask in masks if (found := places.filter(mask)).num_rows), places.slice(0, 0))
    clips = dict(zip(matches.column("clip_id").to_pylist(), matches.column("shard").to_pylist(), strict=True))
    if not clips:
        raise SourceError(f"{address}: no clip {name} in this dataset" + (f" ({progress})" if done < total else ""))
    if len(clips) > 1:
        named = ", ".join(list(clips)[:_MAX_LISTED]) + (", …" if len(clips) > _MAX_LISTED else "")
        raise SourceError(f"{address}: {len(clips)} clips match {name}: {named}")
    (clip_id, shard), *_ = clips.items()
    row = dataset.find(clip_id)
    if row is None:
        raise SourceError(f"{address}: clip {clip_id} is in shard {shard}, which is not built yet ({progress})")
    return Outcome(dataset=address, row=row)
