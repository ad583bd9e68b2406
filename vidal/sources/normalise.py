"""Conversion of lists to candidates, part by part: known columns get their type, and the rest a name of its own."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidal.clip import column_names, crawl_columns, schema
from vidal.dataset.plan import LINE, UNUSABLE, with_notes
from vidal.errors import SourceError
from vidal.listing import Listing, Values, check_names
from vidal.rows import Spill, Stream, TableLike
from vidal.sources.cells import Fault, TypeOfText, read_known, read_own
from vidal.sources.objects import OwnColumns

_OWN = "_own"
"""The text of a row's own columns, until their types are known."""
_NEEDED = ("clip_id", "url")
GIVEN_COLUMNS = (*_NEEDED, *crawl_columns())
"""Columns of a source that keep their name and get the type that `vidal.clip.Clip` declares."""


def normalise(given: pa.Table | Listing | Iterable[Listing], place: str) -> TableLike:
    """Give known columns their type, and the rest a name that collides with none of `Clip`'s.

    A cell that cannot be read is counted in a note; a row whose url or id cannot be used says so to the plan. Raises
    `SourceError` for a list without a candidate, or without a column ``url``.
    """
    if isinstance(given, pa.Table):
        check_names(given.column_names, place)
        columns_of = dict(zip(given.column_names, given.columns, strict=True))
        given = Listing(columns=columns_of, row_count=given.num_rows)
    candidates = _Candidates(place)
    for part in [given] if isinstance(given, Listing) else given:
        candidates.add(part)
    return candidates.rows()


@dataclass(slots=True)
class _Tally:
    """A problem that several cells of a column have, with the first of them."""

    fault: Fault
    first_place: str
    cells: int = 0


class _Candidates:
    """The parts of one list, in a temporary file until the types of all its columns are known."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._spill: Spill | None = None
        self._own: OwnColumns | None = None
        self._types: defaultdict[str, TypeOfText] = defaultdict(TypeOfText)
        self._cells: Counter[str] = Counter()
        self._tallies: dict[str, dict[str, _Tally]] = {}
        self._names: list[str] = []
        self._row_count = self._unreadable = self._unusable = 0
        self._first_unreadable = self._first_unusable = ""

    def add(self, part: Listing) -> None:
        self._names = list(dict.fromkeys([*self._names, *part.columns]))
        is_of_objects = all(isinstance(column, list) for column in part.columns.values())
        # A part of a list of objects may lack any column; those of another list all have the same ones.
        if not is_of_objects and "url" not in part.columns and len(part.unreadable) < part.row_count:
            raise self._no_url()
        if not part.columns and part.lines == []:
            raise SourceError(f"{self._place}: the list is empty; it needs an object with `url` on each line")
        unusable = dict(part.unreadable)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        own: dict[str, list[Any]] = {}
        for name, column in part.columns.items():
            self._cells[name] += _cell_count(column)
            if name in GIVEN_COLUMNS:
                columns[name], faults = read_known(column, schema().field(name).type, name)
                unusable |= self._tally(name, faults, part)
            elif isinstance(column, list):
                own[name] = column
            else:
                stored = _stored_name(name, self._names, self._place)
                columns[stored] = read_own(column)
                if part.is_text:
                    self._types[stored].look_at(columns[stored])
        if is_of_objects:
            self._own = self._own or OwnColumns()
            kinds = {name: schema().field(name).type for name in GIVEN_COLUMNS}
            columns = {n: columns[n] if n in columns else pa.nulls(part.row_count, kind) for n, kind in kinds.items()}
            columns[_OWN], faults_of = self._own.add(own, part.row_count)
            for name, faults in faults_of.items():
                self._tally(name, faults, part)
        self._count(part, unusable)
        if part.lines is not None:
            columns[LINE] = pa.array(part.lines, pa.int64())
        columns[UNUSABLE] = pa.array([unusable.get(row) for row in range(part.row_count)], pa.string())
        table = pa.table(columns)
        self._spill = self._spill or Spill(table.schema)
        self._spill.add(table)

    def _tally(self, name: str, faults: Iterable[Fault], part: Listing) -> dict[int, str]:
        """Count the faults of a column's cells; returns why rows cannot be used, if the column is needed."""
        unusable: dict[int, str] = {}
        for fault in faults:
            tallies = self._tallies.setdefault(name, {})
            tally = tallies.setdefault(fault.what, _Tally(fault, part.place(fault.rows[0])))
            tally.cells += len(fault.rows)
            if name in _NEEDED:
                unusable |= {row: f"its {name} cannot be used: {tally.fault.example}" for row in fault.rows}
        return unusable

    def _count(self, part: Listing, unusable: dict[int, str]) -> None:
        if part.unreadable and not self._unreadable:
            row = min(part.unreadable)
            self._first_unreadable = f"{part.place(row)}: {part.unreadable[row]}"
        if unusable and not self._unusable:
            self._first_unusable = f"{part.place(min(unusable))}: {unusable[min(unusable)]}"
        self._row_count += part.row_count
        self._unreadable += len(part.unreadable)
        self._unusable += len(unusable)

    def _no_url(self) -> SourceError:
        return SourceError(f"{self._place}: no column `url` (it has {', '.join(self._names) or 'none'})")

    def rows(self) -> TableLike:
        """Return all candidates, once every part is added."""
        if self._unreadable and self._unreadable == self._row_count:
            raise SourceError(f"{self._place}: no row can be read; {self._first_unreadable}")
        if "url" not in self._names:
            raise self._no_url()
        if self._spill is None or self._row_count == 0:
            raise SourceError(f"{self._place}: no candidate in it; name at least one url")
        notes = [
            _note(name, tally, self._cells[name])
            for name in self._names if name not in _NEEDED
            for tally in self._tallies.get(name, {}).values()
        ]  # fmt: skip
        if self._unusable:
            count = f"{self._unusable} of {self._row_count} rows cannot be used"
            notes.append(f"{count} (first in {self._first_unusable}): failed")
        dropped = [] if self._unusable else [UNUSABLE]
        spill = self._with_own(self._spill, self._own) if self._own else self._spill
        shape = _typed(spill.schema.empty_table(), self._types, dropped)
        described = with_notes(shape.schema, [f"{Path(self._place).name}: {note}" for note in notes])
        return Stream(described, self._row_count, functools.partial(_batches, spill, self._types, dropped))

    def _with_own(self, rows: Spill, own: OwnColumns) -> Spill:
        """Return the rows with their own columns in place of the text of these."""
        stored = {name: _stored_name(name, self._names, self._place) for name in self._names}
        typed: Spill | None = None
        for batch in rows.to_batches():
            columns = {name: batch[name] for name in self._names if name in GIVEN_COLUMNS} | own.read(batch[_OWN])
            last = [name for name in (LINE, UNUSABLE) if name in batch.schema.names]
            columns = {stored[name]: columns[name] for name in self._names} | {name: batch[name] for name in last}
            table = pa.table(columns)
            typed = typed or Spill(table.schema)
            typed.add(table)
        assert typed is not None
        return typed


def _batches(spill: Spill, types: dict[str, TypeOfText], dropped: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in spill.to_batches():
        yield from _typed(pa.Table.from_batches([batch]), types, dropped).to_batches()


def _typed(table: pa.Table, types: dict[str, TypeOfText], dropped: list[str]) -> pa.Table:
    for name, kind in types.items():
        table = table.set_column(table.column_names.index(name), name, kind.applied(table[name]))
    return table.drop_columns(dropped)


def _stored_name(name: str, names: list[str], place: str) -> str:
    # A leading underscore marks the plan's own columns, so a list must not bring one along.
    if name in GIVEN_COLUMNS or (name not in column_names() and not name.startswith("_")):
        return name
    stored = f"crawl_{name.lstrip('_')}"
    if stored in names:
        raise SourceError(f"{place}: column `{stored}` exists, and another column would be renamed to it")
    return stored


def _cell_count(column: Values) -> int:
    if isinstance(column, list):
        return sum(cell is not None for cell in column)
    return int(len(column) - column.null_count)


def _note(name: str, tally: _Tally, total: int) -> str:
    """``age_limit: 1 of 3 cells cannot be read (first in line 3: '18+'): left empty``."""
    fault, first = tally.fault, f"first in {tally.first_place}: {tally.fault.example}"
    return f"{ascii(name)[1:-1]}: {tally.cells} of {total} cells {fault.what} ({first}): {fault.remedy}"
