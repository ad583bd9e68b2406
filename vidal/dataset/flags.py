"""Flags: what people who looked at clips say of them, beside the manifests and for every revision.

    flags/20261126T120824Z-1f2e3d4c.parquet     clip_id, flag, is_set, note, flagged_at

Each writer has a file of its own, which it replaces atomically, so that any number of them write at once. Of several
rows of one clip and flag the latest counts.
"""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidal.dataset.manifest import table_to_parquet
from vidal.dataset.storage import Storage
from vidal.errors import SourceError, StorageError, one_line

FOLDER = "flags"
NAMES = ("wrong_caption", "misaligned", "unsafe", "remove")
PREFIX = "flag_"
"""Of the columns of conditions: ``flag_unsafe``."""
SCHEMA = pa.schema([
    ("clip_id", pa.string()), ("flag", pa.string()), ("is_set", pa.bool_()), ("note", pa.string()),
    ("flagged_at", pa.timestamp("us", "UTC")),
])  # fmt: skip


class FlagWriter:
    """Writes flags to one file of a dataset; its methods may be called from several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._name = f"{FOLDER}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.parquet"
        self._lock = threading.Lock()

    def write(self, clip_id: str, flag: str, *, is_set: bool = True, note: str = "") -> None:
        """Set or clear a flag of a clip, durably; raises `SourceError` for an unknown flag, and `StorageError`."""
        if flag not in NAMES:
            raise SourceError(f"no flag `{flag}`; choose from {', '.join(NAMES)}")
        row = {"clip_id": clip_id, "flag": flag, "is_set": is_set, "note": note, "flagged_at": datetime.now(UTC)}
        with self._lock:
            # Read anew: `vidal remove` may have taken clips out of the file.
            try:
                before = [_read(self._storage, self._name)]
            except FileNotFoundError:
                before = []
            table = pa.concat_tables([*before, pa.Table.from_pylist([row], schema=SCHEMA)])
            self._storage.write(self._name, table_to_parquet(table))


def current(storage: Storage) -> dict[str, dict[str, str]]:
    """Return the clips that have each flag now, with the notes; raises `StorageError` for a damaged file."""
    rows = [row for name in _files(storage) for row in _read(storage, name).to_pylist()]
    states = {(row["flag"], row["clip_id"]): row for row in sorted(rows, key=lambda row: row["flagged_at"])}
    # A later vidal may know further ones.
    flags: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    for (flag, clip_id), row in states.items():
        if row["is_set"] and flag in flags:
            flags[flag][clip_id] = row["note"]
    return flags


def with_columns(table: pa.Table, flagged: Mapping[str, Collection[str]]) -> pa.Table:
    """Return a table of clips with a boolean column for each flag (``flag_unsafe``), of what `current` returned."""
    for flag, clips in flagged.items():
        has = pc.is_in(table["clip_id"], value_set=pa.array(list(clips), pa.string()))
        table = table.append_column(f"{PREFIX}{flag}", has)
    return table


def erase(storage: Storage, clip_ids: Collection[str]) -> None:
    """Take the flags and notes of clips out of all files."""
    erased = pa.array(sorted(clip_ids), pa.string())
    for name in _files(storage):
        table = _read(storage, name)
        left = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=erased)))
        if left.num_rows < table.num_rows:
            storage.write(name, table_to_parquet(left))


def _files(storage: Storage) -> list[str]:
    return [f"{FOLDER}/{name}" for name in storage.names(FOLDER) if name.endswith(".parquet")]


def _read(storage: Storage, name: str) -> pa.Table:
    data: Any = storage.read(name)
    try:
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True).select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise StorageError(f"{storage.address}/{name}: is no file of flags ({one_line(error)}); delete it") from None
