"""The base class of sources, which yield an Arrow table of candidates with a column ``url`` and any other columns.

Columns that `vidal.clip.Clip` declares in its crawl group keep their name. Any other column keeps its name, unless
`Clip` uses it for something else: then it is prefixed with ``crawl_``. Two more columns are for the plan: the line of
each candidate, and why it is unusable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from vidal.addresses import ALL_SCHEMES
from vidal.clip import column_names, crawl_columns, schema
from vidal.dataset.plan import LINE, UNUSABLE, with_notes
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.listing import Listing, check_names
from vidal.record import Column
from vidal.sources.cells import Fault, read_known, read_own
from vidal.stage import Stage

_NEEDED = ("clip_id", "url")
_GIVEN_COLUMNS = [*_NEEDED, *crawl_columns()]


class Source(BaseModel):
    """Where candidates come from: the ``source`` of a recipe."""

    model_config = ConfigDict(extra="forbid")

    asks: ClassVar[bool] = False
    """Whether candidates have to be asked for, so that a dataset's folder has something in it before its plan."""

    def candidates(self) -> pa.Table:
        """Return every candidate, in the source's own order; raises `SourceError` if there is none."""
        raise NotImplementedError

    def discover(self, storage: Storage, stages: Sequence[Stage], removals: Removals) -> pa.Table:
        """The candidates of the plan that a dataset is about to get.

        A source that `asks` keeps the answers in the dataset's ``storage``, without what is on the list of
        ``removals``, and asks as the recipe's ``stages`` visit. Raises `SourceError` where there is no candidate,
        `RecipeError` where no stage says how to visit.
        """
        return self.candidates()

    def earlier_datasets(self) -> list[str]:
        """Return the addresses of the datasets that the clips come from, with their rows and members; mostly none."""
        return []

    def removals(self) -> list[str]:
        """Return the lists of removals that those datasets remember; raises `SourceError` for one that is gone."""
        return []

    def removed(self) -> Removals:
        """Return what was removed from one of several such datasets, which the others may have."""
        return Removals()

    def identity(self) -> dict[str, Any]:
        """What stands for the source's content in the fingerprint."""
        raise NotImplementedError

    def base(self) -> str:
        """Return the folder against which relative urls are resolved, empty for none."""
        return ""

    def schemes(self) -> tuple[str, ...]:
        """What kinds of address its candidates may have, where the recipe does not say so in ``fetch.schemes``."""
        return ALL_SCHEMES

    def columns(self) -> set[str]:
        """Return the columns and layers that clips of this source come with."""
        return set(_GIVEN_COLUMNS)

    def own_columns(self) -> set[str]:
        """Columns that `Clip` has no field for; reads the source, so it is asked only where a step reads one."""
        return set()

    def declared(self) -> dict[str, Column]:
        """Return the columns that stages have declared in the dataset that the clips come from."""
        return {}

    def layers(self) -> list[str]:
        """Return the layers that clips of this source come with."""
        return []

    def modalities(self) -> dict[str, str]:
        """Return the ``package.module:NAME`` of each of those layers' modalities that is not vidal's own."""
        return {}


def normalise(given: pa.Table | Listing, place: str) -> pa.Table:
    """Give known columns their type, and the rest a name that collides with none of `Clip`'s.

    A cell that cannot be read is counted in a note; a row whose url or id cannot be used says so to the plan.
    """
    if isinstance(given, Listing):
        listing = given
    else:
        check_names(given.column_names, place)
        columns_of = dict(zip(given.column_names, given.columns, strict=True))
        listing = Listing(columns=columns_of, row_count=given.num_rows)
    if listing.unreadable and len(listing.unreadable) == listing.row_count:
        raise SourceError(f"{place}: no row can be read; {listing.place(0)}: {listing.unreadable[0]}")
    if "url" not in listing.columns:
        raise SourceError(f"{place}: no column `url` (it has {', '.join(listing.columns) or 'none'})")
    if listing.row_count == 0:
        raise SourceError(f"{place}: no candidate in it; name at least one url")
    unusable, notes = dict(listing.unreadable), []
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for name, column in listing.columns.items():
        if name in _GIVEN_COLUMNS:
            array, faults = read_known(column, schema().field(name).type, name)
        else:
            array, faults = read_own(column, infer=listing.is_text)
        columns[_stored_name(name, listing, place)] = array
        for fault in faults:
            if name in _NEEDED:
                unusable |= {row: f"its {name} cannot be used: {fault.example}" for row in fault.rows}
            else:
                notes.append(_note(fault, name, listing))
    if listing.lines is not None:
        columns[LINE] = pa.array(listing.lines, pa.int64())
    if unusable:
        columns[UNUSABLE] = pa.array([unusable.get(row) for row in range(listing.row_count)], pa.string())
        first = min(unusable)
        count = f"{len(unusable)} of {listing.row_count} rows cannot be used"
        notes.append(f"{count} (first in {listing.place(first)}: {unusable[first]}): failed")
    return with_notes(pa.table(columns), [f"{Path(place).name}: {note}" for note in notes])


def _stored_name(name: str, listing: Listing, place: str) -> str:
    # A leading underscore marks the plan's own columns, so a list must not bring one along.
    if name in _GIVEN_COLUMNS or (name not in column_names() and not name.startswith("_")):
        return name
    name = f"crawl_{name.lstrip('_')}"
    if name in listing.columns:
        raise SourceError(f"{place}: column `{name}` exists, and another column would be renamed to it")
    return name


def _note(fault: Fault, name: str, listing: Listing) -> str:
    """``age_limit: 1 of 3 cells cannot be read (first in line 3: '18+'): left empty``."""
    column = listing.columns[name]
    cells = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
    total = sum(cell is not None for cell in cells)
    first = f"first in {listing.place(fault.rows[0])}: {fault.example}"
    return f"{ascii(name)[1:-1]}: {len(fault.rows)} of {total} cells {fault.what} ({first}): {fault.remedy}"


def file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
