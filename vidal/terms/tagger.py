"""Part-of-speech tagging and lemmatisation with HanTa, whose English model is in its wheel."""

from __future__ import annotations

import functools
import math
from importlib.metadata import version
from typing import Any

from vidal.terms.tagged import Tagged
from vidal.terms.wording import MAX_WORD_CHARACTERS

# BNC tags. VB, VH and VD are be, have and do, VM are modals: verbs that name no action.
_NOUNS = ("NN", "NP")
_VERBS = ("VV",)
_EMPTY = (
    "AT0", "PRP", "PRF", "DPS", "DT0", "DTQ", "CJC", "CJS", "CJT", "PNI", "PNP", "PNQ", "PNX", "EX0", "TO0", "POS",
    "VM0", "VB", "VH", "VD", "PU",
)  # fmt: skip
_BEFORE_NOUNS = ("AT0", "DPS", "DT0")
# The tagger takes the final s of an unknown word for a plural: abacus, iris, moss.
_SINGULAR_S = ("us", "is", "ss")
_CACHED_WORDS = 200_000
_OFTEN_ENOUGH = math.log(1 / 4)


class HanTaTagger:
    """Tags with HanTa, and caches its analysis of single words: the same result, three times as fast."""

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
        # Labels come in any case, so an upper-case initial does not mark a name.
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
        """Return the verb's tag if the word is a verb at least a quarter as often as its likeliest reading.

        In labels ("playing guitar", "baby crawling") the tagger takes nearly every participle for a noun.
        """
        if word not in self.model.cache:
            return None
        log_shares = dict(self.model.tag_word(word, cutoff=20, casesensitive=False))
        enough = max(log_shares.values()) + _OFTEN_ENOUGH
        return next((tag for tag in ("VVG", "VDG", "VHG", "VBG") if log_shares.get(tag, -math.inf) >= enough), None)
