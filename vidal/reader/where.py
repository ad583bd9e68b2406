"""Conditions on manifest columns in SQL: ``blur < 0.3 and title_language = 'en'``.

DuckDB evaluates them. It has access to one table and nothing else, and parses the condition as an expression, never as
part of a statement.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError

_ROW = "_vidal_row"
_KINDS_OF_ERROR = re.compile(r"^(?:[A-Z][a-z]+ )+Error: ")


def matching(table: pa.Table, condition: str) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows that meet the condition; raises `SourceError` for an invalid condition."""
    import duckdb

    # A condition may come from elsewhere: it reads no file and no address.
    # Several threads would draw from `random()` in another order each time.
    with duckdb.connect(config={"enable_external_access": "false", "threads": "1"}) as connection:
        # `random() < 0.1` must select the same tenth on every rank, and when a run is resumed.
        connection.execute("SELECT setseed(0)")
        # The condition cannot turn external access on again.
        connection.execute("SET lock_configuration = true")
        numbered = table.append_column(_ROW, pa.array(np.arange(table.num_rows)))
        with parsed(condition, table.column_names) as meets:
            numbers = connection.from_arrow(numbered).filter(meets).project(_ROW).fetchnumpy()[_ROW]
    mask = np.zeros(table.num_rows, np.bool_)
    mask[np.asarray(numbers, np.int64)] = True
    return mask


def matching_by_shard(dataset: Dataset, condition: str) -> Iterator[tuple[pa.Table, npt.NDArray[np.bool_]]]:
    """Yield the rows of each committed shard, kept or not, with a mask of those that meet a condition.

    The condition may name flags. Raises `SourceError` for an invalid one.
    """
    flagged = flags.current(dataset.storage) if flags.PREFIX in condition.lower() else {}
    for shard in dataset.committed():
        table = flags.with_columns(dataset.table(shard), flagged)
        yield table, matching(table, condition)


@contextlib.contextmanager
def parsed(condition: str, columns: Sequence[str]) -> Iterator[Any]:
    """Give a condition as an expression of DuckDB; the caller evaluates it within, over a table with the ``columns``.

    Raises `SourceError` for a condition that is no single expression, or whose evaluation fails.
    """
    import duckdb

    option = f"--where {' '.join(condition.split())}"
    if not condition.strip():
        raise SourceError("--where is empty; leave it out, or give a condition such as blur < 0.3")
    try:
        yield duckdb.SQLExpression(condition)
    except duckdb.Error as error:
        # The first line of DuckDB's error has the place.
        line = str(error).splitlines()[0]
        unknown = re.search(r'Referenced column "([^"]*)"', line) or re.search(r'Referenced table "([^"]*)"', line)
        why = no_column(unknown[1], columns) if unknown else _KINDS_OF_ERROR.sub("", line)
        raise SourceError(f"{option}: {why}") from None


def no_column(name: str, columns: Sequence[str]) -> str:
    """Return the message about an unknown column, with similar names or all of them."""
    near = difflib.get_close_matches(name.lower(), columns, n=3)
    return f"no column `{name}`; " + (f"near it: {', '.join(near)}" if near else f"there is {', '.join(columns)}")
