"""`load_members`: reads a clip's members back from its dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from vidal.clip import Clip
from vidal.dataset.alignment import image_index
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import suffix_of
from vidal.errors import StorageError
from vidal.work import Member


def load_members(clip: Clip, dataset: Dataset, shard: int, layers: Collection[str] | None = None) -> None:
    """Read the clip's members of some layers (by default all) into its working state, one range request per layer.

    ``shard`` is their shard in ``dataset``. Raises `StorageError` for a member that does not match its hash.
    """
    for layer in (layer for layer in clip.layers if layers is None or layer in layers):
        records = [m for m in clip.members if m.layer == layer]
        # The writer adds clip after clip, so a clip's members lie side by side, and the range holds little else.
        first = min(m.offset for m in records)
        last = max(m.offset + m.size for m in records)
        tar = dataset.tar(layer, shard)
        data = dataset.storage.read_range(tar, first, last - first)
        for record in records:
            part = data[record.offset - first : record.offset - first + record.size]
            if hashlib.sha256(part).hexdigest() != record.sha256:
                raise StorageError(
                    f"{dataset.storage.address}/{tar}: {record.name} is damaged; run `vidal verify {dataset.address}`"
                )
            # A segment has another id than the clip whose members they are.
            suffix = suffix_of(record.name)
            # The writer makes the json member anew, from the row as it will be.
            if suffix != "json":
                index = image_index(suffix)
                time_s = None if index is None else clip.frame_times[index]
                clip.work.members.append(Member(layer=layer, suffix=suffix, data=part, time_s=time_s))
