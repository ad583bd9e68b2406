"""Deduplication of all inputs' captions into candidate terms, at about half a kilobyte of memory each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from vidal.terms.benchmark import Benchmark
from vidal.terms.captions import Caption, Input, Unreadable
from vidal.terms.tagged import Tagger
from vidal.terms.wording import MAX_CHARACTERS, digest, display, refusal, words


class Gathered:
    """Candidate terms: captions with the same content words are one candidate, worded as the shortest of them.

    The result does not depend on the order of inputs or lines.
    """

    def __init__(self, tagger: Tagger, benchmark: Benchmark, max_words: int) -> None:
        self._tagger, self._benchmark, self._max_words = tagger, benchmark, max_words
        self.sources: list[str] = []
        self.captions: list[int] = []
        """Captions of each source."""
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Captions dropped, by source and reason."""
        self.repeats = 0
        """Captions with the same words as an earlier one, ignoring case and punctuation."""
        self.near_duplicates = 0
        """Wordings merged into another with the same content words."""
        self.texts: list[str] = []
        self.keywords: list[tuple[int, ...]] = []
        self.counts: list[array[int]] = []
        """For each source, the number of captions that each candidate represents."""
        self.vocabulary: dict[str, int] = {}
        """The id of each keyword, in the order of ids."""
        self._seen: dict[bytes, int | str] = {}
        self._by_content: dict[bytes, int] = {}

    def add(self, inputs: Iterable[Input]) -> None:
        """Read the inputs and count each caption under its candidate, or under why it was dropped."""
        for given in inputs:
            if given.source not in self.sources:
                self.sources.append(given.source)
                self.captions.append(0)
                # Candidates of earlier sources are there already, with no caption in this one.
                self.counts.append(array("I", bytes(4 * len(self.texts))))
            source = self.sources.index(given.source)
            for caption in given.captions():
                self.captions[source] += 1
                outcome = self._candidate(caption)
                if isinstance(outcome, str):
                    self.dropped[given.source, outcome] += 1
                else:
                    self.counts[source][outcome] += 1

    def _candidate(self, caption: Caption) -> int | str:
        """Return the candidate that a caption belongs to, or the reason to drop it."""
        if isinstance(caption, Unreadable):
            return caption.reason
        if len(caption) > MAX_CHARACTERS:
            return "too_long"
        text = display(caption)
        its_words = words(text)
        if (reason := refusal(text, its_words, self._max_words)) is not None:
            return reason
        # The tagger takes most of the time, so it sees each wording once.
        key = digest(its_words)
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = self._new_wording(its_words, text)
        elif isinstance(known, int):
            self.repeats += 1
            self._prefer(known, text)
        return known

    def _new_wording(self, its_words: list[str], text: str) -> int | str:
        if (reason := self._benchmark.match_words(its_words)) is not None:
            return reason
        tagged = self._tagger.tag(its_words)
        if not tagged.keywords:
            return "no_keyword"
        content = digest(list(tagged.content))
        if (reason := self._benchmark.match_content(content)) is not None:
            return reason
        ids = tuple(self.vocabulary.setdefault(keyword, len(self.vocabulary)) for keyword in tagged.keywords)
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
        """Let the wording represent the candidate if it is shorter, or as long and first in the alphabet."""

        def rank(wording: str) -> tuple[int, str, int, str]:
            # Words before characters: texts of the same words have the same keywords.
            normalised = " ".join(words(wording))
            return len(normalised), normalised, len(wording), wording

        if rank(text) < rank(self.texts[candidate]):
            self.texts[candidate] = text
            if keywords is not None:
                self.keywords[candidate] = keywords
