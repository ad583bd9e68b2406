"""Exclusion of benchmark captions, which must not seed a crawl whose clips are later evaluated on them."""

from __future__ import annotations

from collections.abc import Iterable

from vidal.terms.captions import Input, Unreadable
from vidal.terms.tagged import Tagger
from vidal.terms.wording import MAX_CHARACTERS, digest, display, words

# Fewer words in common are no evidence, as captions of anything have them.
_SHORTEST_RUN = 5
_SHORTEST_CONTENT = 3


class Benchmark:
    """Detects captions that are a benchmark's, and gives the reason, None for any other caption.

    With ``overlap_words`` 8, the reasons are ``benchmark``: the same words in the same order; ``benchmark_overlap``: 8
    consecutive words in common, or a whole benchmark caption of 5 to 7 words contained; ``benchmark_reworded``: the
    same content words, 3 or more, in any form and order, which a ``tagger`` finds.
    """

    def __init__(self, inputs: Iterable[Input], tagger: Tagger | None, overlap_words: int) -> None:
        self._exact: set[bytes] = set()
        self._runs: dict[int, set[bytes]] = {}
        self._contents: set[bytes] = set()
        self.captions = 0
        """How many captions the inputs hold, repeats included."""
        for caption in (caption for source in inputs for caption in source.captions()):
            if isinstance(caption, Unreadable) or not (its_words := words(display(caption[:MAX_CHARACTERS]))):
                continue
            self.captions += 1
            exact = digest(its_words)
            if exact in self._exact:
                continue
            self._exact.add(exact)
            # A short benchmark caption has no run of that length: contained as a whole, it counts as well.
            length = min(overlap_words, len(its_words))
            if length >= min(_SHORTEST_RUN, overlap_words):
                self._runs.setdefault(length, set()).update(_runs(its_words, length))
            content = tagger.tag(its_words).content if tagger else ()
            if len(content) >= _SHORTEST_CONTENT:
                self._contents.add(digest(list(content)))

    def match_words(self, its_words: list[str]) -> str | None:
        """Return the reason that a caption's words give, ``benchmark`` or ``benchmark_overlap``."""
        if digest(its_words) in self._exact:
            return "benchmark"
        for length, known in self._runs.items():
            if not known.isdisjoint(_runs(its_words, length)):
                return "benchmark_overlap"
        return None

    def common_words(self, its_words: list[str]) -> int:
        """Return how many consecutive words a caption has in common with a benchmark's, 0 if too few to be one."""
        if not its_words:
            return 0
        if digest(its_words) in self._exact:
            return len(its_words)
        runs = (length for length, known in self._runs.items() if not known.isdisjoint(_runs(its_words, length)))
        return max(runs, default=0)

    def match_content(self, content: bytes) -> str | None:
        """Return ``benchmark_reworded`` if the digest of a caption's content words is a benchmark's."""
        return "benchmark_reworded" if content in self._contents else None


def _runs(its_words: list[str], length: int) -> list[bytes]:
    return [digest(its_words[start : start + length]) for start in range(len(its_words) - length + 1)]
