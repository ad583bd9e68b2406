"""All captions of all inputs, gathered into candidate terms; about half a kilobyte of memory for each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from vidal.terms.benchmark import Benchmark
from vidal.terms.captions import Caption, Input, Unreadable
from vidal.terms.tagger import Tagger
from vidal.terms.wording import MAX_CHARACTERS, digest, display, refusal, words


class Gathered:
    """Candidates: wordings that say the same are one, and the shortest wording stands for it.

    Nothing here depends on the order of inputs or lines.
    """

    def __init__(self, tagger: Tagger, benchmark: Benchmark, max_words: int) -> None:
        self._tagger, self._benchmark, self._max_words = tagger, benchmark, max_words
        self.sources: list[str] = []
        self.captions: list[int] = []
        """How many captions each source gave."""
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Captions turned away, by source and reason."""
        self.repeats = 0
        """Captions with the same words as one before, whatever case and punctuation."""
        self.near_duplicates = 0
        """Wordings merged into one that says the same."""
        self.texts: list[str] = []
        self.keywords: list[tuple[int, ...]] = []
        self.counts: list[array[int]] = []
        """For each source, how many captions each candidate stands for."""
        self.vocabulary: list[str] = []
        self._keyword_ids: dict[str, int] = {}
        self._seen: dict[bytes, int | str] = {}
        self._by_content: dict[bytes, int] = {}

    def add(self, inputs: Iterable[Input]) -> None:
        for given in inputs:
            source = self._source(given.source)
            for caption in given.captions():
                self.captions[source] += 1
                outcome = self._place(caption)
                if isinstance(outcome, str):
                    self.dropped[given.source, outcome] += 1
                else:
                    self.counts[source][outcome] += 1

    def _source(self, name: str) -> int:
        if name not in self.sources:
            self.sources.append(name)
            self.captions.append(0)
            self.counts.append(array("I", bytes(4 * len(self.texts))))
        return self.sources.index(name)

    def _place(self, caption: Caption) -> int | str:
        """The candidate that a caption is, or why it is none."""
        if isinstance(caption, Unreadable):
            return caption.reason
        if len(caption) > MAX_CHARACTERS:
            return "too_long"
        text = display(caption)
        its_words = words(text)
        if (reason := refusal(text, its_words, self._max_words)) is not None:
            return reason
        key = digest(its_words)
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = self._judge(its_words, text)
        elif isinstance(known, int):
            self.repeats += 1
            self._prefer(known, text)
        return known

    def _judge(self, its_words: list[str], text: str) -> int | str:
        if (reason := self._benchmark.match_words(its_words)) is not None:
            return reason
        tagged = self._tagger.tag(its_words)
        if not tagged.keywords:
            return "no_keyword"
        content = digest(list(tagged.content))
        if (reason := self._benchmark.match_content(content)) is not None:
            return reason
        ids = tuple(self._keyword_id(keyword) for keyword in tagged.keywords)
        candidate = self._by_content.setdefault(content, len(self.texts))
        if candidate == len(self.texts):
            self.texts.append(text)
            self.keywords.append(ids)
            for counts in self.counts:
                counts.append(0)
        else:
            self.near_duplicates += 1
            self._prefer(candidate, text, ids)
        return candidate

    def _prefer(self, candidate: int, text: str, keywords: tuple[int, ...] | None = None) -> None:
        """Let the wording stand for the candidate if it is the shorter one, or comes first in the alphabet."""
        if _rank(text) < _rank(self.texts[candidate]):
            self.texts[candidate] = text
            if keywords is not None:
                self.keywords[candidate] = keywords

    def _keyword_id(self, keyword: str) -> int:
        found = self._keyword_ids.setdefault(keyword, len(self.vocabulary))
        if found == len(self.vocabulary):
            self.vocabulary.append(keyword)
        return found


def _rank(text: str) -> tuple[int, str, int, str]:
    # Words before characters: texts of the same words have the same keywords.
    said = " ".join(words(text))
    return len(said), said, len(text), text
