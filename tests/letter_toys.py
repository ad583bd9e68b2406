"""Stages and a decision with columns of their own: the letters of a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vidal.clip import Clip
from vidal.record import Column
from vidal.rows import TableLike, whole
from vidal.stage import Decision, Resources, Stage


class Letters(Stage):
    """Counts the letters of the title, in columns of its own; certain titles make it do what it must not."""

    reads = ("title",)
    columns: ClassVar[Mapping[str, Column]] = {
        "letters": Column(int, "letters of the title"),
        "letter_share": Column(float, "letters among the characters of the title"),
        "letter_words": Column(list[str], "words of the title", group="texts"),
        "letter_rule": Column(str, "rule that counted", group="provenance"),
        "is_shouted": Column(bool, "whether the title has capitals alone"),
    }
    default_resources = Resources(batch_size=4)

    def process(self, clip: Clip) -> None:
        title = clip["title"] or ""
        letters = np.char.isalpha(list(title)) if title else np.zeros(0, bool)
        clip["letters"] = np.int64(letters.sum())
        clip["letter_share"] = np.float32(0.5) if title == "half" else int(letters.all())
        clip["letter_words"], clip["letter_rule"] = title.split(), "isalpha"
        if title == "undeclared":
            clip["vowels"] = 3
        if title == "behind its back":
            clip.extra["vowels"] = 3
        if title == "unread":
            clip["is_shouted"] = clip["vowels"] > 2
        if title == "unstorable":
            clip["letters"] = "many"
        if title == "raises":
            raise ValueError("no such letter")


class FewLetters(Stage):
    """Rejects titles of few letters."""

    reads = ("letters",)
    min: int = 3

    def process(self, clip: Clip) -> None:
        if (letters := clip["letters"]) < self.min:
            clip.reject("few_letters", f"{letters} < {self.min}", value=letters, limit=self.min)


class Rank(Decision):
    """Writes how many clips have more letters, in a column of its own; ``also`` is one that it does not declare."""

    reads = ("letters",)
    columns: ClassVar[Mapping[str, Column]] = {"rank": Column(int, "clips with more letters")}
    also: str | None = None

    def decide(self, rows: TableLike) -> pa.Table:
        letters = whole(rows).column("letters").to_pylist()
        ranks = [sum((other or 0) > (mine or 0) for other in letters) for mine in letters]
        table = whole(rows).select(["clip_id"]).append_column("rank", pa.array(ranks))
        return table.append_column(self.also, pa.array(ranks)) if self.also else table


class HalfLetters(Stage):
    """Declares ``letters`` as something else than `Letters` does."""

    columns: ClassVar[Mapping[str, Column]] = {"letters": Column(float, "half the letters of the title")}

    def process(self, clip: Clip) -> None:
        clip["letters"] = len(clip.title or "") / 2
