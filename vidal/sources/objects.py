"""The own columns of rows that are JSON objects, part by part; their types are those of all their values together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.sources.cells import Fault, spelled, whole_texts

_DEEPEST = 60
"""Brackets within brackets that Arrow writes; what is nested deeper has no type, and is stored as JSON text."""


class OwnColumns:
    """Spells parts of rows as JSON text, and gives them back as Arrow columns once all parts have been added."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kinds] = {}

    def add(self, columns: Mapping[str, list[Any]], row_count: int) -> tuple[pa.Array, dict[str, list[Fault]]]:
        """Return the text of each row, and the faults of each column's cells, which are mended."""
        mended, faults = dict[str, list[Any]](), dict[str, list[Fault]]()
        for name, values in columns.items():
            array = _inferred(values)
            if array is None:
                values, faults[name] = whole_texts(values)
                array = _inferred(values)
            mended[name] = values
            self._kinds.setdefault(name, _Kinds()).add_all(values, array)
        cells = zip(*mended.values(), strict=True) if mended else [()] * row_count
        rows = (dict(zip(mended, row, strict=True)) for row in cells)
        return pa.array([json.dumps(row, ensure_ascii=False) for row in rows], pa.string()), faults

    def read(self, texts: pa.Array) -> dict[str, pa.Array]:
        """Return the columns of some rows in the type that Arrow infers of all values; JSON text if there is none."""
        rows = [json.loads(text) for text in texts.to_pylist()] if self._kinds else []
        return {name: _typed([row.get(name) for row in rows], kinds) for name, kinds in self._kinds.items()}


def _typed(values: list[Any], kinds: _Kinds) -> pa.Array:
    array = None if kinds.is_too_deep else _inferred(kinds.examples())
    if array is None:
        return spelled(values)
    return pa.nulls(len(values), pa.string()) if pa.types.is_null(array.type) else pa.array(values, array.type)


def _inferred(values: list[Any]) -> pa.Array | None:
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeError, OverflowError):
        return None


@dataclass(slots=True)
class _Kinds:
    """The kinds of values that there are, which is as much of them as their common type depends on."""

    scalars: dict[str, Any] = field(default_factory=dict)
    """A value of each kind; of whole numbers the smallest and the largest, as a float does not hold every one."""
    items: _Kinds | None = None
    fields: dict[str, _Kinds] | None = None
    is_too_deep: bool = False

    def add_all(self, values: list[Any], array: pa.Array | None) -> None:
        """Add values; ``array`` has them if Arrow finds a common type."""
        if array is not None and pa.types.is_integer(array.type):
            for each in pc.min_max(array).as_py().values():
                self._add(each, 0)
        elif array is not None and not pa.types.is_nested(array.type):
            # If there are whole numbers among floats, they are such that a float holds them.
            self._add(pc.drop_null(array)[0].as_py() if array.null_count < len(array) else None, 0)
        else:
            for value in values:
                self._add(value, 0)

    def _add(self, value: Any, depth: int) -> bool:
        """Add a value; returns whether it is nested too deeply."""
        if depth > _DEEPEST:
            self.is_too_deep = True
        elif isinstance(value, list):
            self.items = self.items or _Kinds()
            # Of a list and not a generator: all items have to be added, those behind a deep one, too.
            self.is_too_deep |= any([self.items._add(item, depth + 1) for item in value])
        elif isinstance(value, dict):
            self.fields = {} if self.fields is None else self.fields
            inner = [self.fields.setdefault(key, _Kinds())._add(item, depth + 1) for key, item in value.items()]
            self.is_too_deep |= any(inner)
        elif isinstance(value, int) and not isinstance(value, bool):
            self.scalars["least"] = min(value, self.scalars.get("least", value))
            self.scalars["most"] = max(value, self.scalars.get("most", value))
        else:
            self.scalars.setdefault(type(value).__name__, value)
        return self.is_too_deep

    def examples(self) -> list[Any]:
        """Return a few values of which Arrow infers the same type as of all."""
        values = list(self.scalars.values())
        if self.items is not None:
            values.append(self.items.examples())
        if self.fields is not None:
            values += _rows_of({name: kinds.examples() for name, kinds in self.fields.items()})
        return values


def _rows_of(columns: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for row in range(max(1, *map(len, columns.values()))):
        yield {name: values[row] for name, values in columns.items() if row < len(values)}
