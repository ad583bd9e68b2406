"""Conversion of a list's cells to typed columns; a cell that cannot be read becomes null and is counted.

Columns that `vidal.clip.Clip` declares get its type. Of the source's own columns, those of a csv get the type that fits
all their cells; those of jsonl and parquet keep theirs.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.errors import SourceError
from vidal.listing import Values, text_of

_INT64 = range(-(2**63), 2**63)
# Bounded, as the time to convert digits grows faster than their number, and a cell is a stranger's.
_NUMBER = re.compile(r"[+-]?\d{1,400}(?:\.\d{0,400})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_CELL = 65_536
"""Longest cell that is parsed, in characters."""

# 007 and 01.5 are identifiers, not numbers.
_WHOLE = r"^-?(?:0|[1-9][0-9]{0,18})$"
_REAL = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,3})?$"
_TRUTH = r"^(?:[Tt]rue|TRUE|[Ff]alse|FALSE)$"

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = rf"\s*({_QUOTED}|[^\s,'\"\[\](){{}}]+)\s*"
_PYTHON_LIST = re.compile(rf"\[\s*\]|\[{_ITEM}(?:,{_ITEM})*,?\s*\]", re.DOTALL)
_NOTHING = ("None", "nan", "NaN", "null")
_HASHTAG = re.compile(r"[^\s,;#]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


class CellError(SourceError):
    """A cell that cannot be stored as given; ``left`` is the value stored in its place."""

    def __init__(self, what: str = "cannot be read", remedy: str = "left empty", left: Any = None) -> None:
        super().__init__(what)
        self.what, self.remedy, self.left = what, remedy, left


@dataclass(slots=True, kw_only=True)
class Fault:
    """Cells of one column with the same problem; ``rows`` are their row numbers, from 0."""

    what: str
    remedy: str
    example: str
    rows: list[int] = field(default_factory=list)


def read_known(column: Values, kind: pa.DataType, name: str) -> tuple[pa.Array, list[Fault]]:
    """Convert a column that `Clip` declares to its type ``kind``; returns it with the faults of its cells."""
    convert: Callable[[Any], Any]
    if pa.types.is_list(kind):
        convert = split_hashtags if name == "hashtags" else split_tags
    else:
        array = _as_arrow(column)
        if array is not None and _may_cast(array, kind):
            # Arrow's cast is all or nothing: where it fails, the cells are converted one by one, for their faults.
            with contextlib.suppress(pa.ArrowException):
                return array.cast(kind), []
        convert = _to_int if pa.types.is_integer(kind) else _to_text
    values, faults = _each(column if isinstance(column, list) else column.to_pylist(), convert)
    return pa.array(values, kind), faults


def read_own(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column of the source's own as it is stored; text stays text, see `TypeOfText`."""
    array = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def whole_texts(values: Iterable[Any]) -> tuple[list[Any], list[Fault]]:
    """Return JSON values with U+FFFD for every lone surrogate in them, which Arrow cannot store, and the faults."""
    return _each(values, _whole_text)


def spelled(values: Iterable[Any]) -> pa.Array:
    """Return a column without a common type: text unchanged, anything else as JSON."""
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for value in values
    ]
    return pa.array(texts, pa.string())


class TypeOfText:
    """The type that fits every cell of a text column, of which it is shown one part after the other."""

    def __init__(self) -> None:
        self._fitting = {pa.int64(): _WHOLE, pa.float64(): _REAL, pa.bool_(): _TRUTH}
        self._is_empty = True
        self._too_large: set[pa.DataType] = set()

    def look_at(self, column: pa.Array | pa.ChunkedArray) -> None:
        if column.null_count == len(column):
            return
        self._is_empty = False
        self._fitting = {kind: pattern for kind, pattern in self._fitting.items() if _all_match(column, pattern)}
        for kind in self._fitting:
            # A number of 19 digits may exceed int64; the column then stays text.
            try:
                _of_type(column, kind)
            except pa.ArrowException:
                self._too_large.add(kind)

    def applied(self, column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """Return a part of the column in the type that fits all the parts."""
        return column if self.kind is None else _of_type(column, self.kind)

    @property
    def kind(self) -> pa.DataType | None:
        """The type; None for text."""
        kind = None if self._is_empty else next(iter(self._fitting), None)
        return None if kind in self._too_large else kind


def _of_type(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return pc.utf8_lower(column).cast(kind)


def _as_arrow(column: Values) -> pa.Array | pa.ChunkedArray | None:
    """Return the column as an Arrow array, None where its values have no common type."""
    if not isinstance(column, list):
        return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        return pa.array(column)
    except (pa.ArrowException, UnicodeError, OverflowError):
        return None


def _may_cast(array: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Return whether Arrow's cast, where it succeeds, equals `_to_int` or `_to_text`."""
    given, of = array.type, pa.types
    if given == kind or of.is_null(given) or of.is_integer(given):
        return True
    if of.is_integer(kind):
        return bool(of.is_floating(given) or (of.is_string(given) and _all_match(array, _WHOLE)))
    return bool(of.is_boolean(given) or of.is_large_string(given) or of.is_temporal(given))


def _all_match(column: pa.Array | pa.ChunkedArray, pattern: str) -> bool:
    """Return whether the column has non-null cells and all of them match."""
    return column.null_count < len(column) and bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def _each(values: Iterable[Any], convert: Callable[[Any], Any]) -> tuple[list[Any], list[Fault]]:
    faults: dict[str, Fault] = {}
    converted = []
    for row, value in enumerate(values):
        try:
            converted.append(convert(value))
        except CellError as bad:
            converted.append(bad.left)
            # The example is a stranger's text and ends up on a terminal: escaped and short.
            example = ascii(value)[:60] + "…" * (len(ascii(value)) > 60)
            faults.setdefault(bad.what, Fault(what=bad.what, remedy=bad.remedy, example=example)).rows.append(row)
    return converted, list(faults.values())


def _to_int(value: Any) -> int | None:
    """Convert 1200, ``"1200"``, 1200.0 and ``"1200.0"`` alike."""
    # NaN, which alone differs from itself, is how pandas writes a missing number.
    if value is None or value != value or value == "":
        return None
    text = str(value).strip()
    # To Python, True is a 1; in a list it is a column of another meaning.
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        raise CellError
    # Decimal, as a float would round what exceeds 2**53 and could not tell 1e400 from infinity.
    number = Decimal(text)
    if number != number.to_integral_value() or int(number) not in _INT64:
        raise CellError
    return int(number)


def _to_text(value: Any) -> str | None:
    try:
        text = text_of(value)
    except ValueError:
        raise CellError from None
    return None if text is None else _whole_text(text)


def _whole_text(value: Any) -> Any:
    """Return the value; raises `CellError` for a lone surrogate in its text, with U+FFFD in its place."""
    if isinstance(value, str):
        if not _SURROGATE.search(value):
            return value
        # Half an emoji, as text cut by UTF-16 units has at its end: Arrow's UTF-8 cannot store it.
        mended = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        raise CellError("hold half a surrogate pair", "replaced by U+FFFD", mended)
    if not isinstance(value, list | dict):
        return value
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    keys, key_faults = _each([key for key, _ in pairs], _whole_text)
    parts, faults = _each([part for _, part in pairs], _whole_text)
    whole = dict(zip(keys, parts, strict=True)) if isinstance(value, dict) else parts
    for fault in (*key_faults, *faults):
        raise CellError(fault.what, fault.remedy, whole)
    return value


def split_hashtags(value: Any) -> list[str]:
    """Split hashtags given as a list, or as text: ``#cat #funny``, ``cat, funny`` or ``['cat', 'funny']``."""
    # Most are plain text, which one pattern takes apart.
    if isinstance(value, str) and len(value) <= _MAX_CELL and "[" not in value and not _SURROGATE.search(value):
        return _HASHTAG.findall(value)
    return _split(value, _HASHTAG.findall)


def split_tags(value: Any) -> list[str]:
    """Split tags as `split_hashtags` does; a tag may have several words."""
    return _split(value, lambda text: re.split(r"[,;]+|(?=#)" if text.startswith("#") else r"[,;]+", text))


def _split(value: Any, split: Callable[[str], list[str]]) -> list[str]:
    """Split a cell into words; raises `CellError`, with an empty list in its place, for anything else."""
    if value is None or value != value:
        return []
    parts = value if isinstance(value, list) else [value]
    if isinstance(value, str):
        parts = _listed(value.strip(), split)
    try:
        words = [(text_of(part) or "").strip().lstrip("#").strip() for part in parts]
    except ValueError:
        raise CellError(left=[]) from None
    whole, faults = _each([word for word in words if word], _whole_text)
    for fault in faults:
        raise CellError(fault.what, fault.remedy, whole)
    return whole


def _listed(text: str, split: Callable[[str], list[str]]) -> list[Any]:
    """Parse a list in JSON or Python syntax, or delimited words."""
    # A stranger's text: neither the JSON parser nor the regular expressions get one of unlimited length.
    if len(text) > _MAX_CELL:
        raise CellError(left=[])
    if not (text.startswith("[") and text.endswith("]")):
        return split(text)
    with contextlib.suppress(ValueError, RecursionError):
        return list(json.loads(text))
    # ['cat', "dog's", None], as Python and pandas write a list; only its strings are evaluated.
    if not _PYTHON_LIST.fullmatch(text):
        raise CellError(left=[])
    items = re.findall(rf"{_QUOTED}|[^\s,\[\]]+", text[1:-1], re.DOTALL)
    # Python warns of an unknown escape such as "\\d" and keeps it; here that is a string that cannot be read.
    try:
        with warnings.catch_warnings(action="error"):
            return [ast.literal_eval(item) if item[0] in "'\"" else item for item in items if item not in _NOTHING]
    except (ValueError, SyntaxError, Warning):
        raise CellError(left=[]) from None
