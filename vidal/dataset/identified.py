"""`Identified`: a source's candidates, each with a safe, unique id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset.digests import digests_of, first_of_equal
from vidal.dataset.plan import LINE, UNUSABLE, id_of, with_notes
from vidal.dataset.tars import KEY_PATTERN
from vidal.rows import TableLike

_OPTIONAL = ("clip_id", LINE, UNUSABLE)
Outcome = tuple[str, str, str]
"""Status, reason and detail."""


class Identified:
    """Gives candidates of invalid or repeated ids their outcome, and an id of their own.

    The candidates are read once to find the ids that repeat, and again by each call of `tables`.
    """

    def __init__(self, candidates: TableLike) -> None:
        self._candidates = candidates
        self.metadata = with_notes(candidates.schema, []).metadata
        """The notes of the source, as metadata of a schema."""
        digests, lines = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        for part in self._parts():
            digests.append(digests_of(part.own_id(n) if n in part.outcomes else id_ for n, id_ in enumerate(part.ids)))
            if part.lines is not None:
                lines.append(part.lines)
        self._firsts = first_of_equal(np.concatenate(digests))
        self._lines = np.concatenate(lines)
        self.row_count = len(self._firsts)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the candidates in the source's order, with the columns of an id and an outcome."""
        for part in self._parts():
            firsts = self._firsts[part.first_row : part.first_row + len(part.ids)]
            for number in np.flatnonzero(firsts != part.first_row + np.arange(len(firsts))).tolist():
                part.outcomes.setdefault(number, ("rejected", "repeated", f"{self._place(firsts[number])} has this id"))
            yield part.table()

    def _place(self, row: int) -> str:
        return _place(row, self._lines if len(self._lines) else None, row)

    def _parts(self) -> Iterator[_Part]:
        first_row = 0
        for batch in self._candidates.to_batches():
            yield _Part.of(batch, first_row)
            first_row += batch.num_rows


@dataclass(slots=True)
class _Part:
    """A batch of candidates with the ids that they ask for."""

    batch: pa.RecordBatch
    first_row: int
    urls: list[str | None]
    ids: list[str]
    lines: npt.NDArray[np.int64] | None
    outcomes: dict[int, Outcome]

    @classmethod
    def of(cls, batch: pa.RecordBatch, first_row: int) -> _Part:
        names = batch.schema.names
        urls = batch["url"].to_pylist()
        given, unusable = (
            batch[name].to_pylist() if name in names else [None] * len(urls) for name in ("clip_id", UNUSABLE)
        )
        lines = batch[LINE].to_numpy() if LINE in names else None
        outcomes: dict[int, Outcome] = {}
        ids: list[str] = []
        for number, (url, wanted, why) in enumerate(zip(urls, given, unusable, strict=True)):
            if why is None and url and (wanted is None or KEY_PATTERN.fullmatch(wanted)):
                ids.append(id_of(url) if wanted is None else wanted)
                continue
            place = _place(first_row + number, lines, number)
            if why is not None:
                outcomes[number] = ("failed", "bad_row", f"{place}: {why}")
            elif not url:
                outcomes[number] = ("failed", "no_url", f"{place} names no url")
            else:
                detail = f"{place}: {wanted[:100]!r} is not {KEY_PATTERN.pattern}"
                outcomes[number] = ("failed", "bad_clip_id", detail)
            ids.append(id_of(f"{url}"))
        return cls(batch, first_row, urls, ids, lines, outcomes)

    def own_id(self, number: int) -> str:
        # A row of its own for every candidate, so that nothing of a list is lost without a word.
        return id_of(f"{self.first_row + number}:{self.ids[number]}:{self.urls[number]}")

    def table(self) -> pa.Table:
        ids = list(self.ids)
        outcomes: list[Outcome | None] = [None] * len(ids)
        for number, outcome in self.outcomes.items():
            ids[number], outcomes[number] = self.own_id(number), outcome
        table = pa.Table.from_batches([self.batch])
        table = table.drop_columns([name for name in _OPTIONAL if name in table.column_names])
        table = table.append_column("clip_id", pa.array(ids, pa.string()))
        for index, name in enumerate(("status", "reason", "detail")):
            values = pa.array([outcome and outcome[index] for outcome in outcomes], pa.string())
            table = table.append_column(name, values)
        is_decided = pa.array([outcome is not None for outcome in outcomes])
        table = table.append_column("stage", pc.if_else(is_decided, "plan", pa.scalar(None, pa.string())))
        return table


def _place(row: int, lines: npt.NDArray[np.int64] | None, index: int) -> str:
    return f"row {row + 1} of the source" if lines is None else f"line {lines[index]}"
