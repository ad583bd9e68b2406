from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from vidal.caption.words import tokens
from vidal.record import Column
from vidal.stages.quota import Quota


class RepeatedCaptions(Quota):
    """Keeps the first ``max_repeats`` clips with the same caption in plan order, so that none dominates a dataset.

    Captions are the same if their words are, in any case and with any punctuation. Clips without a caption all stay.
    The kept clips of the earlier datasets in ``against`` precede all others and count, too.
    """

    reads = ("caption",)
    columns: ClassVar[Mapping[str, Column]] = {
        "caption_rank": Column(int, "number of the clip among those with its caption, from 1 in plan order")
    }
    group = "those with its caption"
    reason = "repeated_caption"

    max_repeats: int = Field(ge=1)
    """Largest number of clips with the same caption."""

    @property
    def most(self) -> int:
        return self.max_repeats

    def key(self, row: dict[str, Any]) -> Hashable | None:
        words = " ".join(tokens(row["caption"] or "")).casefold()
        # A hash, as most of millions of captions occur once and would all be kept in memory.
        return hashlib.blake2b(words.encode(), digest_size=8).digest() if words else None
