"""Conditions on manifest columns, as SQL writes them: ``blur < 0.3 and title_language = 'en'``.

DuckDB decides. It is given one table and no way to anything else, and takes the condition as one expression, never as
a part of a statement's text.
"""

from __future__ import annotations

import difflib
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidal.errors import SourceError

_ROW = "_vidal_row"
_KINDS_OF_ERROR = re.compile(r"^(?:[A-Z][a-z]+ )+Error: ")


def matching(table: pa.Table, condition: str) -> npt.NDArray[np.bool_]:
    """Which rows meet the condition; raises `SourceError` in one line for one that cannot be decided."""
    import duckdb

    said = f"--where {' '.join(condition.split())}"
    if not condition.strip():
        raise SourceError("--where is empty; leave it out, or give a condition such as blur < 0.3")
    with duckdb.connect(config={"enable_external_access": "false", "threads": "1"}) as connection:
        # `random() < 0.1` is to be the same tenth on every rank, and when a run goes on.
        connection.execute("SELECT setseed(0)")
        connection.execute("SET lock_configuration = true")
        numbered = table.append_column(_ROW, pa.array(np.arange(table.num_rows)))
        try:
            meets = duckdb.SQLExpression(condition)
            numbers = connection.from_arrow(numbered).filter(meets).project(_ROW).fetchnumpy()[_ROW]
        except duckdb.Error as error:
            raise SourceError(f"{said}: {_explained(str(error), table.column_names)}") from None
    mask = np.zeros(table.num_rows, np.bool_)
    mask[np.asarray(numbers, np.int64)] = True
    return mask


def _explained(text: str, columns: list[str]) -> str:
    """DuckDB's first line, which tells the place; for a column that is not there, the nearest that are."""
    line = text.splitlines()[0]
    found = re.search(r'Referenced column "([^"]*)"', line) or re.search(r'Referenced table "([^"]*)"', line)
    if found is None:
        return _KINDS_OF_ERROR.sub("", line)
    return no_column(found[1], columns)


def no_column(name: str, columns: list[str]) -> str:
    """What to say of a column that is not there: the nearest that are."""
    near = difflib.get_close_matches(name.lower(), columns, n=3)
    return f"no column `{name}`; " + (f"near it: {', '.join(near)}" if near else f"there is {', '.join(columns)}")
