"""Captions of benchmarks, which must not seed a crawl whose clips are later measured on them."""

from __future__ import annotations

from collections.abc import Iterable

from vidal.terms.captions import Input, Unreadable
from vidal.terms.tagger import Tagger
from vidal.terms.wording import MAX_CHARACTERS, digest, display, words

_SHORTEST_RUN = 5
_SHORTEST_CONTENT = 3


class Benchmark:
    """Says why a caption is a benchmark's: ``benchmark``, ``benchmark_overlap``, ``benchmark_reworded``, or None.

    With ``overlap_words`` 8: the same words in the same order; a run of 8 words in common, or a whole benchmark caption
    of 5 to 7 words inside; the same content words, 3 or more, in any form and order.
    """

    def __init__(self, inputs: Iterable[Input], tagger: Tagger, overlap_words: int) -> None:
        self._overlap_words = overlap_words
        self._exact: set[bytes] = set()
        self._runs: dict[int, set[bytes]] = {}
        self._contents: set[bytes] = set()
        self.captions = 0
        for source in inputs:
            for caption in source.captions():
                if not isinstance(caption, Unreadable):
                    self._add(words(display(caption[:MAX_CHARACTERS])), tagger)

    def _add(self, its_words: list[str], tagger: Tagger) -> None:
        if not its_words:
            return
        self.captions += 1
        exact = digest(its_words)
        if exact in self._exact:
            return
        self._exact.add(exact)
        length = min(self._overlap_words, len(its_words))
        if length >= min(_SHORTEST_RUN, self._overlap_words):
            self._runs.setdefault(length, set()).update(runs(its_words, length))
        content = tagger.tag(its_words).content
        if len(content) >= _SHORTEST_CONTENT:
            self._contents.add(digest(list(content)))

    def match_words(self, its_words: list[str]) -> str | None:
        if digest(its_words) in self._exact:
            return "benchmark"
        for length, known in self._runs.items():
            if not known.isdisjoint(runs(its_words, length)):
                return "benchmark_overlap"
        return None

    def match_content(self, content: bytes) -> str | None:
        return "benchmark_reworded" if content in self._contents else None


def runs(its_words: list[str], length: int) -> list[bytes]:
    """Every run of so many words."""
    return [digest(its_words[start : start + length]) for start in range(len(its_words) - length + 1)]
