"""`Tagger`: what the selection of terms and the check for benchmark captions need of a part-of-speech tagger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """The lemmas of a caption."""

    keywords: tuple[str, ...]
    """Lemmas of its nouns and verbs, sorted and unique."""
    content: tuple[str, ...]
    """Lemmas of all words except articles, prepositions, pronouns and auxiliaries, sorted and unique."""


class Tagger(Protocol):
    """Tags a caption's lower-case words; ``name`` is recorded in the file of terms."""

    name: str

    def tag(self, words: list[str]) -> Tagged: ...
