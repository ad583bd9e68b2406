"""Manifest files: Parquet, one row per candidate of a shard. Their presence is the commit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.arrow_types import CATEGORY
from vidal.clip import Clip, manifest_schema, schema, undeclared_column
from vidal.errors import ClipError
from vidal.record import to_row

FOLDER = "manifest"

_SCHEMA = schema()


def name_of(shard: int) -> str:
    """``manifest/000123.parquet``."""
    return f"{FOLDER}/{stem_of(shard)}.parquet"


def stem_of(shard: int) -> str:
    return f"{shard:06d}"


def to_parquet(clips: Sequence[Clip], extra: pa.Schema, metadata: dict[str, str]) -> bytes:
    """The bytes of a shard's manifest; ``extra`` has the columns that `Clip` has no field for."""
    full = manifest_schema(extra)
    full = full.with_metadata({**(full.metadata or {}), **{f"vidal.{k}": v for k, v in metadata.items()}})
    table = pa.Table.from_pylist([to_row(clip) for clip in clips], schema=full)
    return table_to_parquet(table)


def check(clip: Clip, full: pa.Schema) -> None:
    """Refuse a clip whose columns hold what cannot be stored, and empty those: `ClipError` with ``unstorable``.

    What stages set of the columns that they declare becomes what is stored: a NumPy number becomes Python's.
    """
    added = full.names[len(_SCHEMA.names) :]
    undeclared = sorted(clip.extra.keys() - set(added))
    if undeclared:
        clip.extra = {name: clip.extra.get(name) for name in added}
        raise undeclared_column(undeclared[0])
    try:
        rows = pa.RecordBatch.from_pylist([to_row(clip)], schema=full)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    else:
        clip.extra = rows.select(added).to_pylist()[0] if added else {}
        return
    empty, foul = Clip(extra=dict.fromkeys(clip.extra)), []
    for name in full.names:
        try:
            pa.RecordBatch.from_pylist([{name: to_row(clip).get(name)}], schema=pa.schema([full.field(name)]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            foul.append(f"{name}: {error}".encode("ascii", "replace").decode())
            clip[name] = empty[name]
    raise ClipError("unstorable", "; ".join(foul)[:500])


def table_to_parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """Parquet bytes that depend on the table alone, each page with its checksum."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size, write_page_checksum=True)
    return sink.getvalue()


def read(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a manifest file; raises `pyarrow.ArrowException` or `OSError` for damaged bytes.

    Columns that an earlier version of the schema lacks are null. Categories are plain text.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    names = file.schema_arrow.names
    table = without_categories(file.read(columns=None if columns is None else [n for n in columns if n in names]))
    for name in _SCHEMA.names if columns is None else columns:
        if name not in names and name in _SCHEMA.names:
            table = table.append_column(_SCHEMA.field(name), pa.nulls(len(table), _SCHEMA.field(name).type))
    return table if columns is None else table.select([name for name in columns if name in table.column_names])


def without_categories(table: pa.Table) -> pa.Table:
    """The table with plain text for each column that a manifest stores as a dictionary, each shard its own."""
    fields = [field.with_type(pa.string()) if field.type == CATEGORY else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def read_schema(data: bytes) -> pa.Schema:
    """The schema of a manifest file as it was written."""
    return pq.read_schema(pa.BufferReader(data))


def own_metadata(data: bytes) -> dict[str, str]:
    """The metadata to write a manifest anew with: all but what `to_parquet` sets itself."""
    return {name: value for name, value in read_metadata(data).items() if name != "schema_version"}


def read_metadata(data: bytes) -> dict[str, str]:
    """What the writer noted in the file's footer, without the ``vidal.`` prefix."""
    raw: dict[bytes, Any] = read_schema(data).metadata or {}
    return {k.decode().removeprefix("vidal."): v.decode() for k, v in raw.items() if k.startswith(b"vidal.")}
