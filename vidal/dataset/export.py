"""A data set in other shapes: joint tars, and the annotation JSON that VIDAL-10M was released as."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.tars import TarWriter, member_order, suffix_of
from vidal.errors import OutputError


def write_joint(dataset: Dataset, out: str) -> int:
    """One tar per shard in which a kept clip is one sample with the members of all layers; gives the clips."""
    storage, count = Storage(out), 0
    for shard in dataset.committed():
        name = f"{manifest.stem_of(shard)}.tar"
        if storage.is_local:
            path = storage.temporary(name)
            try:
                with path.open("wb") as handle:
                    count += _write_joint_shard(dataset, shard, handle)
                    handle.flush()
                    os.fsync(handle.fileno())
                storage.rename_temporary(path, name)
            finally:
                path.unlink(missing_ok=True)
            continue
        with tempfile.NamedTemporaryFile() as file:
            count += _write_joint_shard(dataset, shard, file)  # type: ignore[arg-type]
            file.flush()
            storage.upload(Path(file.name), name)
    return count


def _write_joint_shard(dataset: Dataset, shard: int, handle: BinaryIO) -> int:
    tar, count = TarWriter(handle, "joint"), 0
    for row in dataset.table(shard).to_pylist():
        if row["status"] != "kept":
            continue
        # The json member is the same in every layer: once is enough.
        suffixes = {suffix_of(m["name"]).lower(): m["name"] for m in row["members"]}
        for suffix in member_order(suffixes):
            tar.add(row["clip_id"], suffix, dataset.read_member(row, suffixes[suffix]))
        count += 1
    tar.close()
    return count


def write_vidal_json(dataset: Dataset, out: Path) -> int:
    """The kept clips' texts under VIDAL-10M's keys, one object keyed by clip id; gives the clips."""
    annotations = {row["clip_id"]: vidal_annotation(row) for row in dataset.rows() if row["status"] == "kept"}
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; --out names a file for this format")
    text = json.dumps(annotations, ensure_ascii=False, indent=1, sort_keys=True)
    Storage(str(out.absolute().parent)).write(out.name, (text + "\n").encode())
    return len(annotations)


def vidal_annotation(row: dict[str, Any]) -> dict[str, Any]:
    """``raw`` is title and hashtags, ``ofa`` the frame captions, ``mplug`` and ``polish_mplug`` the captions."""
    return {
        "folder": manifest.stem_of(row["shard"]),
        "raw": "#".join([row["title"] or "", *row["hashtags"]]),
        "ofa": row["frame_captions"],
        "mplug": row["video_caption"] or "",
        "polish_mplug": row["caption"] or "",
        "sound_mplug": row["sound_caption"] or "",
    }
