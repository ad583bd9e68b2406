"""`Comparison`: what differs between two datasets, for the terminal and for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from vidal.dataset.dataset import Dataset
from vidal.diff.pairs import SIDES, Move, Pairs
from vidal.diff.shifts import Shift, Shifts, shifts
from vidal.diff.texts import ChangedTexts
from vidal.settings import differences

_MOST_CHARS = 300
_CHANGES = {"went": "went", "came": "came", "other": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two datasets side by side; ``limit`` bounds what is listed, not what is counted."""

    addresses: tuple[str, str]
    matched: dict[str, int]
    """How many candidates were matched, by what."""
    other_files: int
    """Number of candidates that have the same id, and another file."""
    moves: list[Move]
    shifts: Shifts
    text_counts: dict[str, int]
    texts: list[dict[str, Any]]
    settings: list[str]
    """What differs between the resolved recipes, a line each."""
    limit: int

    @classmethod
    def of(cls, before: Dataset, after: Dataset, limit: int = 10) -> Comparison:
        """Compare two datasets, builds or revisions.

        Raises `SourceError` if no shard of one is committed, and `StorageError`.

        Example: ``Comparison.of(Dataset.open("data/shorts@0"), Dataset.open("data/shorts")).moves``.
        """
        pairs = Pairs(before, after)
        texts = ChangedTexts(pairs)
        return cls(
            addresses=pairs.addresses(), matched=pairs.matched(), other_files=pairs.other_files(),
            moves=pairs.moves(limit), shifts=shifts(pairs), text_counts=texts.counts(), texts=texts.page(0, limit),
            settings=settings_of(before, after), limit=limit,
        )  # fmt: skip

    def kept(self) -> tuple[int, int]:
        """Return how many clips are kept before and after."""
        before, after = (
            sum(move.clips for move in self.moves if getattr(move, side).status == "kept") for side in SIDES
        )
        return before, after

    def lines(self) -> Iterator[str | Table]:
        before, after = self.kept()
        yield f"{self.addresses[0]} → {self.addresses[1]}: {before} → {after} clips kept"
        yield from matching_lines(self.matched, self.other_files)
        if any(move.kind in _CHANGES for move in self.moves):
            yield self._moves_table()
        for kind, words in {"kept": "kept in both", "same": "out of both for the same reason"}.items():
            if count := sum(move.clips for move in self.moves if move.kind == kind):
                yield f"{count} candidates {words}"
        shown = [shift for shift in self.shifts.all if not shift.is_none]
        if shown[: self.limit]:
            yield self._shifts_table(shown[: self.limit])
        if (unlisted := len(shown) - self.limit) > 0:
            yield f"{unlisted} more numbers shifted; --limit lists them"
        yield f"{len(self.shifts.all) - len(shown)} other numbers did not change"
        for side, address in zip(SIDES, self.addresses, strict=True):
            if self.shifts.only[side]:
                yield f"only {address} has {', '.join(self.shifts.only[side])}"
        if self.texts:
            yield self._texts_table()
        if self.settings:
            yield "settings that differ:"
            yield from (f"  {line}" for line in self.settings)

    def as_json(self) -> dict[str, Any]:
        before, after = self.kept()
        return {
            "before": self.addresses[0], "after": self.addresses[1], "kept_before": before, "kept_after": after,
            "matched": self.matched, "other_files": self.other_files, "moves": [move.as_json() for move in self.moves],
            "shifts": [dataclasses.asdict(shift) for shift in self.shifts.all], "drawn": self.shifts.drawn,
            "only_before": self.shifts.only["before"], "only_after": self.shifts.only["after"],
            "changed_texts": self.text_counts, "texts": self.texts, "settings": self.settings,
        }  # fmt: skip

    def _moves_table(self) -> Table:
        table = _table("clips", ["", self.addresses[0], self.addresses[1]], ["clips"], ["such as"])
        for move in (move for move in self.moves if move.kind in _CHANGES):
            examples = ", ".join(move.examples[:3])
            cells = (_CHANGES[move.kind], str(move.before), str(move.after), str(move.clips), examples)
            table.add_row(*map(Text, cells))
        return table

    def _shifts_table(self, shown: list[Shift]) -> Table:
        drawn, kept = self.shifts.drawn, self.shifts.kept
        of = "" if drawn == kept else f", distances over {drawn} of {kept} clips"
        heads = ["mean before", "mean after", "distance", "95 %", "changed", "mean change", "95 %"]
        table = _table(f"numbers of kept clips{of}", ["number"], heads, [])
        for one in shown:
            change = ("", "") if one.change is None else (f"{one.change:+.4g}", _interval(one.change_interval))
            row = [one.column, *(f"{mean:.4g}" for mean in one.means), f"{one.distance:.3f}"]
            row += [_interval(one.distance_interval), f"{one.changed} of {one.paired}", *change]
            table.add_row(*map(Text, row))
        return table

    def _texts_table(self) -> Table:
        each = ", ".join(f"{name} {count}" for name, count in self.text_counts.items() if name != "clips")
        title = f"texts of {self.text_counts['clips']} clips changed: {each}"
        table = _table(title, ["clip", "text"], [], [*self.addresses], lines=True)
        for clip in self.texts:
            for text in clip["texts"]:
                cells = (clip["clip_id"], text["column"], _cut(text["before"]), _cut(text["after"]))
                # As it is: a text may hold what looks like markup.
                table.add_row(*map(Text, cells))
        return table


def settings_of(before: Dataset, after: Dataset) -> list[str]:
    """Return what differs between the resolved recipes of two datasets, a line each."""
    recipes = [{k: v for k, v in dataset.info.recipe.items() if k != "revision_of"} for dataset in (before, after)]
    return differences(*recipes)


def matching_lines(matched: dict[str, int], other_files: int) -> list[str]:
    """Return how the candidates were matched, and what makes one doubt it."""
    by = ", ".join(f"{count} by {name}" for name, count in matched.items())
    lines = [f"candidates matched: {by}" if by else "no candidate of one is in the other, by id, url or file"]
    if other_files:
        lines.append(
            f"{other_files} candidates of the same id have another file: the lists may number other videos alike"
        )
    return lines


def _table(title: str, left: list[str], right: list[str], more: list[str], *, lines: bool = False) -> Table:
    table = Table(title=Text(title), title_justify="left", show_edge=False, show_lines=lines)
    for heading in left:
        table.add_column(Text(heading))
    for heading in right:
        table.add_column(Text(heading), justify="right")
    for heading in more:
        table.add_column(Text(heading))
    return table


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
