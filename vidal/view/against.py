"""`Against`: what the viewer says of a dataset beside an earlier one."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import Any

import numpy as np

from vidal.dataset.dataset import Dataset
from vidal.diff import shifts
from vidal.diff.comparison import matching_lines, settings_of
from vidal.diff.pairs import Pairs
from vidal.diff.texts import ChangedTexts
from vidal.view.queries import ManifestTable, Numbers

_EXAMPLES = 50


class Against:
    """A dataset compared with an earlier one; its methods may be called from several threads."""

    def __init__(self, before: Dataset, after: Dataset, table: ManifestTable) -> None:
        self._pairs = Pairs(before, after)
        self.address, _ = self._pairs.addresses()
        self._settings = settings_of(before, after)
        self._moves = self._pairs.moves(_EXAMPLES)
        self._texts = ChangedTexts(self._pairs)
        self._computing = threading.Lock()
        self._move_of = self._moves_of(table)

    def _moves_of(self, table: ManifestTable) -> Numbers:
        """Return the place in the moves of each clip (n,), by its number."""
        sides = ["before_status", "before_stage", "before_reason", "after_status", "after_stage", "after_reason"]
        cursor = self._pairs.cursor()
        keys = [
            (*dataclasses.astuple(move.before), *dataclasses.astuple(move.after), place)
            for place, move in enumerate(self._moves)
        ]
        cursor.execute(f"CREATE TEMP TABLE moves ({', '.join(f'{name} VARCHAR' for name in sides)}, place INTEGER)")
        cursor.executemany(f"INSERT INTO moves VALUES ({', '.join('?' * 7)})", keys)
        same = " AND ".join(f"c.{name} IS NOT DISTINCT FROM m.{name}" for name in sides)
        rows = cursor.sql(
            f"SELECT after_shard, after_row, place FROM clips c JOIN moves m ON {same} WHERE after_shard IS NOT NULL"
        ).fetchnumpy()
        move_of = np.full(len(table), -1, np.int64)
        move_of[table.numbered(rows["after_shard"], rows["after_row"])] = rows["place"]
        return move_of

    def of_move(self, place: int, numbers: Numbers) -> Numbers:
        """Return those of some clips that made one of the moves."""
        return np.asarray(numbers[self._move_of[numbers] == place])

    def summary(self) -> dict[str, Any]:
        """Return moves, how candidates were matched, settings that differ, and how many texts changed."""
        listed = np.bincount(self._move_of[self._move_of >= 0], minlength=len(self._moves))
        moves = [
            # Of clips that are no candidates here only their ids can be shown.
            {**move.as_json(), "move": place, "listed": int(listed[place]),
             "before_text": str(move.before), "after_text": str(move.after)}
            for place, move in enumerate(self._moves)
        ]  # fmt: skip
        matching = matching_lines(self._pairs.matched(), self._pairs.other_files())
        return {
            "against": self.address, "moves": moves, "matching": matching, "settings": self._settings,
            "changed_texts": self._texts.counts(),
        }  # fmt: skip

    def shifts(self) -> dict[str, Any]:
        """Return the numbers of the kept clips that shifted."""
        # One at a time: the page asks again when it is loaded again, and the answer stays.
        with self._computing:
            return self._shifts

    @functools.cached_property
    def _shifts(self) -> dict[str, Any]:
        found = shifts.shifts(self._pairs)
        return {**dataclasses.asdict(found), "all": [dataclasses.asdict(one) for one in found.all if not one.is_none]}

    def texts(self, offset: int, limit: int) -> dict[str, Any]:
        """Return at most ``limit`` of the clips whose texts changed, from ``offset`` on, and how many there are."""
        counts = self._texts.counts()
        return {"clips": counts["clips"], "offset": offset, "rows": self._texts.page(offset, limit)}
