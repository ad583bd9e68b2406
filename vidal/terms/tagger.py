"""Parts of speech and base forms, by HanTa: its English model comes in its wheel."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from vidal.terms.wording import MAX_WORD_CHARACTERS

# BNC's tags. VB, VH and VD are be, have and do, VM modals: verbs that name no action.
_NOUNS = ("NN", "NP")
_VERBS = ("VV",)
_EMPTY = (
    "AT0", "PRP", "PRF", "DPS", "DT0", "DTQ", "CJC", "CJS", "CJT", "PNI", "PNP", "PNQ", "PNX", "EX0", "TO0", "POS",
    "VM0", "VB", "VH", "VD", "PU",
)  # fmt: skip
_BEFORE_NOUNS = ("AT0", "DPS", "DT0")
# The tagger takes the s of a word that it does not know for a plural's: abacus, iris, moss.
_SINGULAR_S = ("us", "is", "ss")
_CACHED_WORDS = 200_000
_OFTEN_ENOUGH = math.log(1 / 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """What a caption says."""

    keywords: tuple[str, ...]
    """Base forms of its nouns and verbs, sorted, each once."""
    content: tuple[str, ...]
    """Base forms of all its words but articles, prepositions, pronouns and auxiliaries, sorted, each once."""


class Tagger(Protocol):
    """Anything that reads a caption's lower-case words; ``name`` stands in the file that is written."""

    name: str

    def tag(self, words: list[str]) -> Tagged: ...


class HanTaTagger:
    """HanTa, with what it says of a single word remembered: the result is the same, three times as fast."""

    def __init__(self) -> None:
        from HanTa.HanoverTagger import HanoverTagger

        self.name = f"HanTa {version('HanTa')} morphmodel_en"
        self.model: Any = HanoverTagger("morphmodel_en.pgz")
        self.model.analyze_forward = functools.lru_cache(_CACHED_WORDS)(self.model.analyze_forward)
        self._reading = functools.lru_cache(_CACHED_WORDS)(self._read)

    def tag(self, words: list[str]) -> Tagged:
        words = [word for word in words if len(word) <= MAX_WORD_CHARACTERS]
        keywords, content = set(), set()
        before = ""
        # Labels are written in any case, so case is no sign of a name.
        for word, tag in zip(words, self.model.tag_sent(words, taglevel=0, casesensitive=False), strict=True):
            lemma, is_keyword, is_content = self._reading(word, tag, before.startswith(_BEFORE_NOUNS))
            before = tag
            if is_keyword:
                keywords.add(lemma)
            if is_content:
                content.add(lemma)
        return Tagged(keywords=tuple(sorted(keywords)), content=tuple(sorted(content)))

    def _read(self, word: str, tag: str, is_after_article: bool) -> tuple[str, bool, bool]:
        if word.endswith("ing") and not tag.startswith("V") and not is_after_article:
            tag = self._participle(word) or tag
        lemma = str(self.model.analyze(word, pos=tag)[0]).casefold() or word
        if word.endswith(_SINGULAR_S) and lemma == word[:-1]:
            lemma = word
        is_named = len(lemma) > 1 and lemma.replace("'", "").isalpha()
        return lemma, is_named and tag.startswith(_NOUNS + _VERBS), not tag.startswith(_EMPTY)

    def _participle(self, word: str) -> str | None:
        """The verb's tag, if the word is a verb often enough.

        In labels ("playing guitar", "baby crawling") the tagger takes nearly every participle for a noun.
        """
        if word not in self.model.cache:
            return None
        log_shares = dict(self.model.tag_word(word, cutoff=20, casesensitive=False))
        enough = max(log_shares.values()) + _OFTEN_ENOUGH
        return next((tag for tag in ("VVG", "VDG", "VHG", "VBG") if log_shares.get(tag, -math.inf) >= enough), None)
