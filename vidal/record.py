"""Conversion of the record to rows and JSON, and the columns that stages add to it.

    class Colourfulness(Stage):
        columns = {"colourfulness": Column(float, "how far the colours are from grey")}

A dataset's schema is `vidal.clip.Clip`, the source's own columns, and what the recipe's stages declare. Such a column
is in the manifest, in conditions, in ``vidal why`` and, by its group, in the ``json`` members and the report.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import pyarrow as pa
from pydantic import BeforeValidator, PlainSerializer

from vidal.arrow_types import arrow_type
from vidal.clip import Clip, MatchScore, MemberRecord, OcrLine, Segment, Statement, column_names, columns

# These groups describe how the row was made, not the clip, and stay out of the json member.
_MANIFEST_ONLY_GROUPS = ("outcome", "provenance", "members", "fingerprints")

GROUPS = ("media", "texts", "scores", "modalities", "fingerprints", "provenance")
"""Groups of columns that stages may declare."""

_TYPES = {kind.__name__: kind for kind in (str, int, float, bool)}


def type_name(kind: Any) -> str:
    """Return the name of a type, ``float`` or ``list[str]``; raises `TypeError` for one that no column can have."""
    if get_origin(kind) is list:
        return f"list[{type_name(get_args(kind)[0])}]"
    if kind not in _TYPES.values():
        raise TypeError(f"{kind!r} is none of {', '.join(_TYPES)} and no list of one")
    return str(kind.__name__)


def _type_of(name: str) -> Any:
    """Return the type with a name of `type_name`, as ``dataset.json`` stores it."""
    if name.startswith("list[") and name.endswith("]"):
        return list[_type_of(name[5:-1])]  # type: ignore[misc]
    # A dataset.json is a stranger's: only these names become types.
    if name not in _TYPES:
        raise ValueError(f"no column has the type {name!r}")
    return _TYPES[name]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a stage adds to the record; its value is null until the stage sets it."""

    type: Annotated[Any, BeforeValidator(_type_of), PlainSerializer(type_name)]
    """``str``, ``int``, ``float``, ``bool``, or a list of one of them."""
    doc: str
    """The column's meaning, in one line."""
    group: str = "scores"
    """One of `GROUPS`: the report shows scores; fingerprints and provenance stay out of the ``json`` member."""

    @property
    def kind(self) -> dict[str, str]:
        """The part of the declaration that the output depends on."""
        return {"type": type_name(self.type), "group": self.group}


def fields(declared: Mapping[str, Column]) -> list[pa.Field]:
    """Return the Arrow fields of declared columns."""
    return [pa.field(name, arrow_type(c.type), metadata={"group": c.group}) for name, c in declared.items()]


_STRUCT_COLUMNS = {
    "stated": Statement,
    "ocr_lines": OcrLine,
    "transcript_segments": Segment,
    "text_match": MatchScore,
    "members": MemberRecord,
}


_stored_values = operator.attrgetter(*column_names())


def to_row(clip: Clip) -> dict[str, Any]:
    """Return the clip as a manifest row, including the columns in `Clip.extra`."""
    row = dict(zip(column_names(), _stored_values(clip), strict=True))
    for name, kind in _STRUCT_COLUMNS.items():
        if row[name]:
            row[name] = [{f.name: getattr(part, f.name) for f in dataclasses.fields(kind)} for part in row[name]]
    return {**row, **clip.extra}


def from_row(row: dict[str, Any]) -> Clip:
    """Return the clip of a manifest or plan row; columns that `Clip` has no field for go to ``extra``."""
    known = set(column_names())
    given = {name: value for name, value in row.items() if name in known and value is not None}
    for name, kind in _STRUCT_COLUMNS.items():
        if name in given:
            given[name] = [kind(**part) for part in given[name]]
    return Clip(**given, extra={name: value for name, value in row.items() if name not in known})


def to_json(clip: Clip, extra: pa.Schema) -> dict[str, Any]:
    """Return the content of the ``json`` member: the clip's description, texts and scores.

    ``extra`` is the schema of the columns that `Clip` has no field for. Every key is always present, null where nothing
    is known, so that readers that infer columns from the first samples miss none. NaN and infinity become null, too.
    """
    row = to_row(clip)
    kept = [f.name for f in columns() if f.metadata["group"] not in _MANIFEST_ONLY_GROUPS]
    # Where a clip lies in this dataset is not about the clip.
    kept = [name for name in kept if name not in ("shard", "position")]
    added = [f.name for f in extra if (f.metadata or {}).get(b"group", b"").decode() not in _MANIFEST_ONLY_GROUPS]
    return {name: finite(row.get(name)) for name in [*kept, *sorted(added)]}


def json_member(clip: Clip, extra: pa.Schema) -> bytes:
    """Return the bytes of the ``json`` member."""
    return json.dumps(to_json(clip, extra), ensure_ascii=False, sort_keys=True, default=str).encode()


def finite(value: Any) -> Any:
    """Return the value with null for each number that JSON cannot represent."""
    if value is None or isinstance(value, str):
        # Most values are, of nearly a hundred a clip.
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(part) for part in value]
    return {name: finite(part) for name, part in value.items()} if isinstance(value, dict) else value
