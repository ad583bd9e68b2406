"""Reading a clip's members back from the data set that it is in."""

from __future__ import annotations

import hashlib

from vidal.clip import Clip
from vidal.dataset.alignment import picture_index
from vidal.dataset.dataset import tar_name
from vidal.dataset.storage import Storage
from vidal.errors import StorageError
from vidal.work import Member


def load_members(clip: Clip, storage: Storage, shard: int) -> None:
    """Read the clip's members, one range per layer, and check them against the manifest."""
    for layer in clip.layers:
        records = [m for m in clip.members if m.layer == layer]
        first = min(m.offset for m in records)
        last = max(m.offset + m.size for m in records)
        data = storage.read_range(tar_name(layer, shard), first, last - first)
        for record in records:
            part = data[record.offset - first : record.offset - first + record.size]
            if hashlib.sha256(part).hexdigest() != record.sha256:
                place = f"{storage.address}/{tar_name(layer, shard)}"
                raise StorageError(
                    f"{place}: {record.name} is not what was written; run `vidal verify` on the data set"
                )
            suffix = record.name.removeprefix(f"{clip.clip_id}.")
            if suffix != "json":
                index = picture_index(suffix)
                time_s = None if index is None else clip.frame_times[index]
                clip.work.members.append(Member(layer=layer, suffix=suffix, data=part, time_s=time_s))
