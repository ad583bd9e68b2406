"""Finds one clip of a dataset by its id, by its url, or by the beginning of its id."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import NAME, Plan
from vidal.errors import SourceError

_NAMED = 5


def find(dataset: Dataset, name: str) -> dict[str, Any]:
    """The manifest row of a clip. Raises `SourceError` for none, for several, and for one that is not built yet."""
    done, total = len(dataset.committed()), dataset.info.shards
    address, progress = dataset.storage.address, f"{done} of {total} shards committed"
    clips = _matching(dataset, name)
    if not clips:
        raise SourceError(f"{address}: no clip {name} in this dataset" + (f" ({progress})" if done < total else ""))
    if len(clips) > 1:
        named = ", ".join(list(clips)[:_NAMED]) + (", …" if len(clips) > _NAMED else "")
        raise SourceError(f"{address}: {len(clips)} clips match {name}: {named}")
    (clip_id, shard), *_ = clips.items()
    row = dataset.find(clip_id)
    if row is None:
        raise SourceError(f"{address}: clip {clip_id} is in shard {shard}, which is not built yet ({progress})")
    return row


def _matching(dataset: Dataset, name: str) -> dict[str, int]:
    """The shard of the clip with this id; else of the clips of this url; else of those whose ids begin so."""
    places = _plan(dataset).table(["clip_id", "url", "shard"])
    ids, urls = places.column("clip_id"), places.column("url")
    for mask in (pc.equal(ids, name), pc.equal(urls, name), pc.starts_with(ids, name)):
        found: pa.Table = places.filter(mask)
        if found.num_rows:
            return dict(zip(found.column("clip_id").to_pylist(), found.column("shard").to_pylist(), strict=True))
    return {}


def _plan(dataset: Dataset) -> Plan:
    """The dataset's plan; before its last phase begins, that of the first: they name the same candidates."""
    return dataset.plan if dataset.own_storage.exists(NAME) else Plan(dataset.storage.child("phases/1"))
