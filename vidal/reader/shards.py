"""`read_shard`: what of a shard's manifest is kept in memory, from the object store or from the cache.

A manifest in an object store is kept in the cache as it is needed: decoded, without the rows of clips that were not
kept, and with its members as flat arrays. Its name there has the token of the listing that every opening begins with,
so that a manifest that was written anew, as by `vidal remove`, is another one, and the earlier is never read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import vidal
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset, UncommittedError
from vidal.errors import one_line
from vidal.reader.offsets import Part, numbers
from vidal.reader.ranges import RangeCache

_HEAVY = ("ocr_lines", "transcript_segments", "audio_fingerprint", "thumbnail")
"""Columns that training does not use; `Samples.manifest` has them."""
_FORMAT = f"rows 1 of vidal {vidal.__version__}"
"""Of what is in the cache."""
_PER_MEMBER = ("layer", "suffix", "offset", "size", "sum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A shard that cannot be read completely."""

    shard: int
    what: str

    def __str__(self) -> str:
        return f"shard {manifest.stem_of(self.shard)}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of a shard's manifest that is kept in memory."""

    number: int
    schema: pa.Schema
    rows: pa.Table
    """The rows of the kept clips, without empty columns."""
    members: Part


def read_shard(dataset: Dataset, number: int, token: str | None, cache: RangeCache) -> Shard | Damage:
    """Read one shard; ``token`` is its manifest's of the listing, None where the store has none: it is not cached then.

    Damage is returned, not raised: whether it ends a run or is skipped is for the caller to say.
    """
    name = dataset.manifest_name(number)
    key = f"{dataset.storage.address}/{name}#{token} {_FORMAT}"
    if token is not None and (packed := cache.get(key)) is not None:
        return _unpacked(number, packed)
    try:
        data = dataset.manifest_bytes(number)
        shard = _shard(number, data)
    except (pa.ArrowException, OSError, ValueError, KeyError, UncommittedError) as error:
        return Damage(shard=number, what=f"its manifest cannot be read ({one_line(error)})")
    # It may have been written anew since it was listed. The token of a plain put is the MD5 of what was put.
    if token is not None:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if token.strip('"') == md5 or dataset.storage.token(name) == token:
            cache.put(key, _packed(shard))
    return shard


def _shard(number: int, data: bytes) -> Shard:
    # A changed byte in a compressed page often decodes to another value; only the page's checksum shows it.
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    light = [name for name in file.schema_arrow.names if name not in _HEAVY]
    table = manifest.without_categories(file.read(columns=light, use_threads=False))
    # Equality, without a wildcard; `pc.equal` with a Python string imports pandas.
    table = table.filter(pc.match_like(table.column("status"), "kept"))
    members = Part.of(table.column("members").combine_chunks())
    table = table.drop_columns(["members"]).combine_chunks()
    # A column that is null in the whole shard is kept as its name and type alone.
    filled = [name for name in table.column_names if table.column(name).null_count < table.num_rows]
    return Shard(number=number, schema=table.schema, rows=table.select(filled), members=members)


def _packed(shard: Shard) -> bytes:
    """Return the bytes of a shard: four Arrow streams, of the schema, the rows, and the arrays of the members."""
    part = shard.members
    names = {"layers": json.dumps(part.layers), "suffixes": json.dumps(part.suffixes)}
    flat = _table({name: getattr(part, name) for name in _PER_MEMBER}).replace_schema_metadata(names)
    sink, options = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression="zstd")
    # Not a table without rows, which imports pandas.
    pa.ipc.new_stream(sink, shard.schema, options=options).close()
    for table in (shard.rows, _table({"count": part.count}), flat):
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())


def _table(columns: Mapping[str, npt.NDArray[Any]]) -> pa.Table:
    # Not `pa.table`, which imports pandas.
    arrays = [
        pa.Array.from_buffers(pa.from_numpy_dtype(each.dtype), len(each), [None, pa.py_buffer(each)])
        for each in map(np.ascontiguousarray, columns.values())
    ]
    return pa.Table.from_arrays(arrays, list(columns))


def _unpacked(number: int, packed: bytes) -> Shard:
    source = pa.BufferReader(packed)
    empty, rows, counts, flat = (pa.ipc.open_stream(source).read_all() for _ in range(4))
    arrays = {name: numbers(flat.column(name).combine_chunks()) for name in _PER_MEMBER}
    layers, suffixes = (tuple(json.loads(flat.schema.metadata[name])) for name in (b"layers", b"suffixes"))
    members = Part(count=numbers(counts.column("count").combine_chunks()), layers=layers, suffixes=suffixes, **arrays)
    # A shard's rows are one batch, as `Rows` takes them.
    return Shard(number=number, schema=empty.schema, rows=rows.combine_chunks(), members=members)
