"""A source yields candidates: an Arrow table with a column ``url`` and whatever else is known of each.

Columns that `vidal.clip.Clip` declares in its crawl group keep their name; any other keeps its name as a
crawl column of the source, or gets ``crawl_`` in front where `Clip` uses the name for something else.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from vidal.clip import crawl_columns, schema
from vidal.errors import SourceError
from vidal.fetch.files import ALL_SCHEMES

_GIVEN_COLUMNS = ["clip_id", "url", *crawl_columns()]


class Source(BaseModel):
    """One line of the recipe that says where candidates come from."""

    model_config = ConfigDict(extra="forbid")

    def candidates(self) -> pa.Table:
        """Every candidate, in the source's own order; raises `SourceError` where there is none."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What stands for the source's content in the fingerprint."""
        raise NotImplementedError

    def base(self) -> str:
        """The folder that relative urls start from; empty where there are none."""
        return ""

    def schemes(self) -> tuple[str, ...]:
        """What kinds of address its candidates may have, where the recipe does not say so in ``fetch.schemes``."""
        return ALL_SCHEMES

    def columns(self) -> set[str]:
        """Columns and layers that a clip of this source brings with it."""
        return set(_GIVEN_COLUMNS)

    def layers(self) -> list[str]:
        """Layers that a clip of this source brings with it."""
        return []


def normalise(table: pa.Table, place: str) -> pa.Table:
    """Give known columns their type and the rest a name that collides with none of `Clip`'s."""
    if "url" not in table.column_names:
        raise SourceError(f"{place}: no column `url` (it has {', '.join(table.column_names) or 'none'})")
    if table.num_rows == 0:
        raise SourceError(f"{place}: no candidate in it; name at least one url")
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise SourceError(f"{place}: two columns of one name: {', '.join(repeated)}")
    wanted = schema()
    taken = set(wanted.names)
    arrays, names = [], []
    for name in table.column_names:
        column = table.column(name)
        if name == "hashtags":
            column = pa.array(map(split_hashtags, column.to_pylist()), pa.list_(pa.string()))
        elif name in _GIVEN_COLUMNS:
            column = _as(wanted.field(name).type, column, name, place)
        elif name in taken or name.startswith("_"):
            name = f"crawl_{name.lstrip('_')}"
        arrays.append(column)
        names.append(name)
        if names.count(name) > 1:
            raise SourceError(f"{place}: column `{name}` is there, and is also what another column is renamed to")
    return pa.table(arrays, names=names)


def _as(wanted: pa.DataType, column: pa.ChunkedArray, name: str, place: str) -> pa.ChunkedArray:
    try:
        return column.cast(wanted) if column.type != wanted else column
    except pa.ArrowException as error:
        raise SourceError(f"{place}: column `{name}` holds {column.type}, not {wanted}") from error


def split_hashtags(value: Any) -> list[str]:
    """Hashtags from a list, or from text such as ``#cat #funny`` or ``cat, funny``."""
    parts = value if isinstance(value, list) else re.split(r"[\s,]+|(?=#)", str(value or ""))
    return [tag for tag in (str(part).strip().lstrip("#") for part in parts if part) if tag]


def file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
