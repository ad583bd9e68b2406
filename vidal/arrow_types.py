"""The mapping from Python annotations to the Arrow types of columns."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa

CATEGORY = pa.dictionary(pa.int32(), pa.string())
"""Text with few distinct values, which pandas reads as a category."""

_SCALARS: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}


def arrow_type(hint: Any) -> pa.DataType:
    """Return the Arrow type of a column's annotation; raises `TypeError` for one that has none.

    ``arrow_type(list[str] | None)`` is ``list<item: string>``.
    """
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin = get_origin(hint)
    if origin is Literal:
        return pa.string()
    if origin in (types.UnionType, typing.Union):
        # `T | None`: a column of any Arrow type can hold null.
        return arrow_type(next(a for a in get_args(hint) if a is not type(None)))
    if origin is list:
        return pa.list_(arrow_type(get_args(hint)[0]))
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return pa.struct([pa.field(f.name, arrow_type(hints[f.name])) for f in dataclasses.fields(hint)])
    raise TypeError(f"no Arrow type for {hint!r}")
