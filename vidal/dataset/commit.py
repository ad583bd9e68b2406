"""`ShardWriter`: the only way that members and rows get into a dataset.

Tars are written under temporary names while clips come in; `commit` syncs and renames them, then writes the manifest.
A shard is committed by its manifest: a crash before that leaves the shard unbuilt.

On a local disk a manifest of an earlier owner cannot come late, as the next owner has deleted its temporary file. In an
object store nobody can call a request back, so a writer first puts a reservation in the manifest's place, before it
changes a tar, and then replaces its own reservation alone: whoever reserves the shard after it makes its put fail.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from vidal.clip import Clip, schema
from vidal.dataset import alignment, manifest
from vidal.dataset.storage import Storage
from vidal.dataset.tars import TarWriter, member_order
from vidal.dataset.thumbnail import thumbnail
from vidal.errors import ClipError, StorageError, storage_errors
from vidal.record import json_member


def revoke(storage: Storage, shard: int) -> str | None:
    """Take back the commit of a shard, and any that is still on its way to an object store.

    Returns the token of the reservation that is in the manifest's place; None on a local disk, where nothing is.
    """
    name = manifest.name_of(shard)
    while True:
        token = storage.token(name)
        if storage.is_local:
            if token is None or storage.swap(name, None, token):
                return None
            continue
        data = manifest.reservation()
        if held := storage.create(name, data) if token is None else storage.swap(name, data, token):
            return held


class ShardWriter:
    """Writes one shard; used as a context manager, so that an unfinished shard leaves no files."""

    def __init__(
        self, storage: Storage, shard: int, layers: Sequence[str], scratch: Path, extra: pa.Schema,
        inherited: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Begin a shard with a tar for each of ``layers``; ``extra`` has the columns without a field in `Clip`.

        Members of ``inherited`` layers lie in the tars of an earlier revision, and stay in the clip's row whatever its
        outcome.
        """
        self._storage = storage
        self._shard = shard
        self._place = f"{storage.address} (shard {manifest.stem_of(shard)})"
        self._extra, self._schema = extra, schema(extra)
        self._inherited = frozenset(inherited)
        self._clips: list[Clip] = []
        self._files: dict[str, tuple[Path, BinaryIO, TarWriter]] = {}
        for layer in layers:
            name = manifest.tar_name(layer, shard)
            # An object store has no rename: its tars are written here and uploaded whole.
            path = storage.temporary(name) if storage.is_local else scratch / f"{layer}-{manifest.stem_of(shard)}.tar"
            with storage_errors(self._place):
                handle = path.open("wb")
            self._files[layer] = (path, handle, TarWriter(handle, layer))

    def add(self, clip: Clip) -> None:
        """Write the members of a kept clip and add its row; a misaligned clip becomes a failed row."""
        clip.members = [member for member in clip.members if member.layer in self._inherited]
        clip.layers = [layer for layer in clip.layers if layer in self._inherited]
        # What a stage left behind is that clip's failure; it must not end the shard, nor reach a tar.
        try:
            manifest.check(clip, self._schema)
            if clip.status == "kept":
                if self._files and not clip.work.members and not clip.members:
                    raise ClipError("misaligned", "kept without a single member")
                layers = {member.layer for member in clip.work.members}
                if undeclared := layers - set(self._files) - self._inherited:
                    line = f"a stage put members into {min(undeclared)} without naming the layer"
                    raise ClipError("undeclared_layer", line)
                alignment.check(clip)
        except ClipError as error:
            clip.stage = "pack"
            clip.fail(error.reason, error.detail)
        if clip.status == "kept":
            self._write_members(clip)
        if clip.status != "rejected":
            clip.thumbnail = None
        elif clip.thumbnail is None and (frames := clip.work.frame_members()):
            clip.thumbnail = thumbnail(frames[len(frames) // 2].data)
        # Written: until the commit only the row is needed, and a shard's media would fill the memory.
        clip.work.members = []
        clip.work.forget_decoded()
        self._clips.append(clip)

    def _write_members(self, clip: Clip) -> None:
        text = json_member(clip, self._extra)
        with storage_errors(self._place):
            for layer, (_, _, tar) in self._files.items():
                data = {m.suffix: m.data for m in clip.work.members if m.layer == layer}
                if data:
                    # In the tar of every layer, so that each can be used without the others.
                    data["json"] = text
                    clip.layers.append(layer)
                    clip.members += [tar.add(clip.clip_id, suffix, data[suffix]) for suffix in member_order(data)]

    def commit(self, metadata: dict[str, str]) -> None:
        """Make the whole shard visible: tars first, the manifest last. Raises `StorageError`."""
        # Encoded before anything is final: an error here leaves an earlier commit of the shard as it is.
        rows = manifest.to_parquet(self._clips, self._extra, {**metadata, "shard": str(self._shard)})
        with storage_errors(self._place):
            for _, handle, tar in self._files.values():
                tar.close()
                # To the disk before any name is final: the manifest must not survive a power cut that its tars do not.
                handle.flush()
                os.fsync(handle.fileno())
                handle.close()
        name = manifest.name_of(self._shard)
        if not self._files:
            # Nothing but the manifest changes: a revision's would be lost with a crash, as nothing builds it again.
            self._storage.write(name, rows)
            return
        # Of a shard that is rewritten the commit is revoked before its tars change. A crash from here on costs a shard
        # that is built again; the other order could leave a manifest that speaks of other tars.
        held = revoke(self._storage, self._shard)
        for layer, (path, _, _) in self._files.items():
            final = manifest.tar_name(layer, self._shard)
            if self._storage.is_local:
                self._storage.rename_temporary(path, final)
            else:
                self._storage.upload(path, final)
                path.unlink()
        # The files have their final names: nothing is left for `__exit__` to delete.
        self._files.clear()
        if (self._storage.create(name, rows) if held is None else self._storage.swap(name, rows, held)) is None:
            place = f"{self._storage.address}/{name}"
            if self._storage.fence is not None:
                self._storage.fence.check()
            raise StorageError(f"{place}: another process writes this shard, too; run the same command again")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for path, handle, _ in self._files.values():
            with contextlib.suppress(OSError):
                handle.close()
            path.unlink(missing_ok=True)
        self._files.clear()
