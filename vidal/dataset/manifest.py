"""Manifest files: Parquet with one row per candidate of a shard. A shard is committed when its manifest exists.

In an object store, a shard that is being written has a reservation in its manifest's place: a few random bytes, which
are shorter than any Parquet file.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.arrow_types import CATEGORY
from vidal.clip import Clip, manifest_schema, schema, undeclared_column
from vidal.errors import ClipError
from vidal.record import to_row

FOLDER = "manifest"
_RESERVATION_BYTES = 10
MIN_BYTES = 12
"""The length of the shortest Parquet file: its magic number twice, and the length of its footer."""

_SCHEMA = schema()


def name_of(shard: int) -> str:
    """Return ``manifest/000123.parquet``."""
    return f"{FOLDER}/{stem_of(shard)}.parquet"


def tar_name(layer: str, shard: int) -> str:
    """Return ``depth/000123.tar``."""
    return f"{layer}/{stem_of(shard)}.tar"


def stem_of(shard: int) -> str:
    """Return ``000123``."""
    # Padded with zeros, so that names sorted as text are in the order of the plan.
    return f"{shard:06d}"


def reservation() -> bytes:
    """Return the content of a reservation, which no other one has: an object's token is a hash of its content."""
    return secrets.token_hex(_RESERVATION_BYTES // 2).encode()


def is_reservation(data: bytes) -> bool:
    """Return whether these are the bytes of a reservation, and of no manifest."""
    return len(data) == _RESERVATION_BYTES and data.isalnum()


def to_parquet(clips: Sequence[Clip], extra: pa.Schema, metadata: dict[str, str]) -> bytes:
    """Return the bytes of a shard's manifest; ``extra`` has the columns without a field in `Clip`."""
    full = manifest_schema(extra)
    # The prefix keeps vidal's entries apart from those that Arrow and pandas write into a footer.
    full = full.with_metadata({**(full.metadata or {}), **{f"vidal.{k}": v for k, v in metadata.items()}})
    return table_to_parquet(pa.Table.from_pylist([to_row(clip) for clip in clips], schema=full))


def check(clip: Clip, full: pa.Schema) -> None:
    """Raise `ClipError` with reason ``unstorable`` for a clip with values that cannot be stored, and clear those.

    Values of declared columns become what is stored: a NumPy number becomes a Python number.
    """
    added = full.names[len(_SCHEMA.names) :]
    undeclared = sorted(clip.extra.keys() - set(added))
    if undeclared:
        clip.extra = {name: clip.extra.get(name) for name in added}
        raise undeclared_column(undeclared[0])
    try:
        # Tried clip by clip: at the commit, one value that Arrow refuses would cost the whole shard. One struct
        # takes a third of the time of as many columns.
        rows = pa.RecordBatch.from_struct_array(pa.array([to_row(clip)], type=pa.struct(list(full))))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    else:
        clip.extra = rows.select(added).to_pylist()[0] if added else {}
        return
    # Column by column, to name and clear what Arrow refuses, and keep the rest of the row.
    empty, errors = Clip(extra=dict.fromkeys(clip.extra)), []
    for name in full.names:
        try:
            pa.RecordBatch.from_pylist([{name: to_row(clip).get(name)}], schema=pa.schema([full.field(name)]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            errors.append(f"{name}: {error}".encode("ascii", "replace").decode())
            clip[name] = empty[name]
    raise ClipError("unstorable", "; ".join(errors)[:500])


def table_to_parquet(table: pa.Table) -> bytes:
    """Return Parquet bytes that depend on the table alone, with a checksum per page."""
    sink = io.BytesIO()
    # Of 400 single changed bytes, 23 % were read as other rows without the checksums, and 3 % with them.
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return the table of a manifest file; raises `pyarrow.ArrowException` or `OSError` for damaged bytes.

    Columns that an earlier schema version lacks are null. Dictionary columns are decoded to plain strings.
    """
    # Without its checksum, a changed byte in a compressed page often decodes to another value.
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    names = file.schema_arrow.names
    table = without_categories(file.read(columns=None if columns is None else [n for n in columns if n in names]))
    for name in _SCHEMA.names if columns is None else columns:
        if name not in names and name in _SCHEMA.names:
            table = table.append_column(_SCHEMA.field(name), pa.nulls(len(table), _SCHEMA.field(name).type))
    return table if columns is None else table.select([name for name in columns if name in table.column_names])


def without_categories(table: pa.Table) -> pa.Table:
    """Return the table with dictionary columns decoded to strings, as each shard has a dictionary of its own."""
    fields = [field.with_type(pa.string()) if field.type == CATEGORY else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def read_schema(data: bytes) -> pa.Schema:
    """Return the schema of a manifest file as written."""
    return pq.read_schema(pa.BufferReader(data))


def own_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata to rewrite a manifest with: all entries except those that `to_parquet` sets."""
    return {name: value for name, value in metadata_of(read_schema(data)).items() if name != "schema_version"}


def metadata_of(schema: pa.Schema) -> dict[str, str]:
    """Return vidal's entries in the footer of a file with this schema, without the ``vidal.`` prefix."""
    raw: dict[bytes, Any] = schema.metadata or {}
    return {k.decode().removeprefix("vidal."): v.decode() for k, v in raw.items() if k.startswith(b"vidal.")}
