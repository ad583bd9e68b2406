"""Conditions on manifest columns, as SQL writes them: ``blur < 0.3 and title_language = 'en'``.

DuckDB decides; it is given one table and no way to anything else.
"""

from __future__ import annotations

import difflib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidal.errors import SourceError


def matching(table: pa.Table, condition: str) -> npt.NDArray[np.bool_]:
    """Which rows meet the condition; raises `SourceError` in one line for one that cannot be decided."""
    import duckdb

    with duckdb.connect(config={"enable_external_access": "false", "threads": "1"}) as connection:
        connection.execute("SET lock_configuration = true")
        connection.register("manifest", table.append_column("_row", pa.array(range(table.num_rows), pa.int64())))
        try:
            statement = f"SELECT _row FROM manifest WHERE ({condition}\n)"
            if len(connection.extract_statements(statement)) != 1:
                raise SourceError(f"--where {condition}: one condition, not several statements")
            numbers = connection.execute(statement).fetchnumpy()["_row"]
        except duckdb.Error as error:
            raise SourceError(f"--where {condition}: {_said(str(error), table.column_names)}") from None
    if np.asarray(numbers).dtype.kind != "i" or not np.isin(numbers, np.arange(table.num_rows)).all():
        raise SourceError(f"--where {condition}: one condition, not a statement of its own")
    mask = np.zeros(table.num_rows, np.bool_)
    mask[np.asarray(numbers, np.int64)] = True
    return mask


def _said(text: str, columns: list[str]) -> str:
    """DuckDB's first line; for a column that is not there, the nearest that are."""
    line = text.splitlines()[0]
    if "Referenced column" in line or "not found" in line:
        name = line.split('"')[1] if line.count('"') >= 2 else ""
        near = difflib.get_close_matches(name, columns, n=3)
        return f"no column `{name}`; " + (f"near it: {', '.join(near)}" if near else f"there is {', '.join(columns)}")
    return line.removeprefix("Parser Error: ").removeprefix("Binder Error: ")
