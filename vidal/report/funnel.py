"""Outcome counts of a run, and an even sample of rows for a page that cannot show them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelLine:
    """The ``count`` clips that one ``stage`` dropped for one ``reason``; ``left`` clips remain after it.

    ``share`` is of all candidates, in [0, 1].
    """

    stage: str
    outcome: str
    reason: str
    count: int
    share: float
    left: int


@dataclass(slots=True)
class Funnel:
    """Counts of rows by outcome, which reconcile: candidates = kept + the lines' counts + open."""

    candidates: int = 0
    kept: int = 0
    open: int = 0
    """Rows without an outcome: candidates of an unfinished run."""
    departures: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def count(self, row: Row, clips: int = 1) -> None:
        """Count one row, or ``clips`` alike, by its ``status``, ``stage`` and ``reason``."""
        self.candidates += clips
        if row["status"] == "kept":
            self.kept += clips
        elif row["status"] in ("rejected", "failed"):
            self.departures[(row["stage"] or "", row["status"], row["reason"] or "")] += clips
        else:
            self.open += clips

    def lines(self, stage_order: Sequence[str] = ()) -> list[FunnelLine]:
        """Return the lines in the recipe's order of stages, then by name; rejections before failures."""
        places = {stage: place for place, stage in enumerate(stage_order)}

        def order(departure: tuple[str, str, str]) -> tuple[int, str, bool, str]:
            stage, outcome, reason = departure
            return places.get(stage, len(places)), stage, outcome == "failed", reason

        left, lines = self.candidates, []
        for stage, outcome, reason in sorted(self.departures, key=order):
            count = self.departures[(stage, outcome, reason)]
            left -= count
            share = count / self.candidates
            lines.append(FunnelLine(stage=stage, outcome=outcome, reason=reason, count=count, share=share, left=left))
        return lines


class EvenChoice:
    """Samples up to ``most`` rows, evenly spread over all that are offered, in one pass and bounded memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen = 0
        self._stride = 1
        self._rows: list[Row] = []

    def offer(self, row: Row) -> None:
        """Offer the next row."""
        if self.most and self.seen % self._stride == 0:
            self._rows.append(row)
            if len(self._rows) == 4 * self.most:
                # At four times the size, so that at least twice as many as are shown stay to choose from.
                self._rows = self._rows[::2]
                self._stride *= 2
        self.seen += 1

    def rows(self) -> list[Row]:
        """Return the sample, in the order of the rows offered."""
        if len(self._rows) <= self.most:
            return self._rows
        return [self._rows[place * len(self._rows) // self.most] for place in range(self.most)]

    @property
    def is_all(self) -> bool:
        """Whether the sample holds every row offered."""
        return self.seen <= self.most
