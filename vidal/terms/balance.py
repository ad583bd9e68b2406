"""Selection of terms from the candidates: which, in which order, and with which quota of clips.

1. A keyword's frequency is the number of captions that contain it. It is out of bounds below ``min_count`` captions
   and above ``max_share`` of those that were not dropped. A candidate needs one keyword within the bounds; its other
   keywords are ignored.
2. All keywords should get equally many terms. Terms are chosen one by one, and a term counts for all its keywords. The
   next term goes to the keyword with the fewest terms so far, ties broken by a hash of seed and text. Of the source
   with the fewest terms so far, its next 16 candidates in hash order are weighed, and the one is chosen whose most
   frequent keyword among the terms so far is the least frequent. A keyword without candidates drops out. So the first
   n terms are those that ``number: n`` chooses, and every prefix of the list is balanced.
3. All keywords should get equally many clips, which their terms share evenly: a term's quota is the sum of its shares,
   scaled to a mean of ``clips_per_term``, rounded and clipped to [1, ``max_clips_per_term``].
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from vidal.terms.gather import Gathered
from vidal.terms.settings import TermSettings

OFFERED = 16
"""Number of candidates weighed for each term."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequencies:
    """Keyword frequencies; a keyword's id is its place in the alphabetical ``names``."""

    names: list[str]
    captions: Ints
    """Number of captions that contain each keyword."""
    is_rare: npt.NDArray[np.bool_]
    is_common: npt.NDArray[np.bool_]
    keyword: Ints
    candidate: Ints
    """With ``keyword``, pairs of a keyword within the bounds and a candidate that contains it, sorted by candidate."""

    @property
    def is_within(self) -> npt.NDArray[np.bool_]:
        """Whether each keyword is within the bounds."""
        return ~(self.is_rare | self.is_common)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The chosen terms in order of choice: candidate, source and quota of each."""

    candidates: list[int]
    sources: list[int]
    quotas: list[int]


def frequencies(gathered: Gathered, settings: TermSettings) -> Frequencies:
    """Count the captions of each keyword and apply the bounds."""
    vocabulary = list(gathered.vocabulary)
    sizes = np.fromiter(map(len, gathered.keywords), np.int64, len(gathered.keywords))
    held = np.fromiter((each for ids in gathered.keywords for each in ids), np.int64, int(sizes.sum()))
    order = sorted(np.unique(held).tolist(), key=vocabulary.__getitem__)
    rank = np.empty(len(vocabulary), np.int64)
    rank[order] = np.arange(len(order))
    keyword, candidate = rank[held], np.repeat(np.arange(len(sizes)), sizes)
    stands_for = totals(gathered)
    captions = np.bincount(keyword, stands_for[candidate], len(order)).astype(np.int64)
    is_rare = captions < settings.min_count
    is_common = ~is_rare & (captions > settings.max_share * stands_for.sum())
    is_held = ~(is_rare | is_common)[keyword]
    return Frequencies(
        names=[vocabulary[each] for each in order], captions=captions, is_rare=is_rare, is_common=is_common,
        keyword=keyword[is_held], candidate=candidate[is_held],
    )  # fmt: skip


def totals(gathered: Gathered) -> Ints:
    """Return the number of captions that each candidate represents, over all sources."""
    counts = [np.frombuffer(each, np.uint32) for each in gathered.counts]
    return np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(0, np.int64)


def choose(gathered: Gathered, frequency: Frequencies, settings: TermSettings) -> Chosen:
    """Choose up to ``settings.number`` terms, fewer where the candidates do not suffice."""
    queues = _Queues(gathered, frequency, settings.seed)
    lots = [_hash(name, settings.seed) for name in frequency.names]
    waiting = [(0, lots[keyword], keyword) for keyword in np.flatnonzero(frequency.is_within).tolist()]
    heapq.heapify(waiting)
    given = [0] * len(gathered.sources)
    candidates: list[int] = []
    sources: list[int] = []
    while waiting and len(candidates) < settings.number:
        terms, lot, keyword = heapq.heappop(waiting)
        if terms == queues.terms[keyword]:
            taken = queues.take(keyword, sorted(range(len(given)), key=lambda s: (given[s], gathered.sources[s])))
            if taken is None:
                continue
            candidates.append(taken[0])
            sources.append(taken[1])
            given[taken[1]] += 1
        # Terms chosen for other keywords may contain this one too, so it is requeued with its current number.
        heapq.heappush(waiting, (queues.terms[keyword], lot, keyword))
    return Chosen(candidates=candidates, sources=sources, quotas=_quotas(candidates, frequency, settings))


class _Queues:
    """A queue of candidates for each keyword and source, in hash order; each candidate is taken once."""

    def __init__(self, gathered: Gathered, frequency: Frequencies, seed: int) -> None:
        lots = np.fromiter((_hash(text, seed) for text in gathered.texts), np.uint64, len(gathered.texts))
        self._sources = len(gathered.sources)
        queues, candidates = [], []
        for source, counts in enumerate(gathered.counts):
            is_there = np.frombuffer(counts, np.uint32)[frequency.candidate] > 0
            queues.append(frequency.keyword[is_there] * self._sources + source)
            candidates.append(frequency.candidate[is_there])
        queue, candidate = np.concatenate(queues), np.concatenate(candidates)
        order = np.lexsort((lots[candidate], queue))
        self._candidates = candidate[order].tolist()
        self._next, self._end = _slices(queue[order], len(frequency.names) * self._sources)
        self._is_taken = bytearray(len(gathered.texts))
        self._keywords = frequency.keyword.tolist()
        self._first, self._last = _slices(frequency.candidate, len(gathered.texts))
        self.terms = [0] * len(frequency.names)
        """Number of taken candidates that contain each keyword."""

    def take(self, keyword: int, sources: Sequence[int]) -> tuple[int, int] | None:
        """Take a candidate of the first source that has any left; returns it with the source, None if none has."""
        for source in sources:
            queue = keyword * self._sources + source
            place, end = self._next[queue], self._end[queue]
            while place < end and self._is_taken[self._candidates[place]]:
                place += 1
            self._next[queue] = place  # what is taken stays taken, so each place is passed once
            # Bounded, as slicing the whole of a common keyword's queue for each term would be quadratic.
            near = self._candidates[place : min(end, place + 4 * OFFERED)]
            if offered := [each for each in near if not self._is_taken[each]][:OFFERED]:
                taken = min(offered, key=lambda each: max(self.terms[k] for k in self._keywords_of(each)))
                self._is_taken[taken] = 1
                for each in self._keywords_of(taken):
                    self.terms[each] += 1
                return taken, source
        return None

    def _keywords_of(self, candidate: int) -> list[int]:
        keywords: list[int] = self._keywords[self._first[candidate] : self._last[candidate]]
        return keywords


def _slices(sorted_ids: Ints, count: int) -> tuple[list[int], list[int]]:
    """Return where the run of each id starts and ends."""
    edges: list[int] = np.searchsorted(sorted_ids, np.arange(count + 1)).tolist()
    return edges[:-1], edges[1:]


def _hash(text: str, seed: int) -> int:
    # Python's own hash of a string differs from process to process.
    return int.from_bytes(blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest(), "big")


def _quotas(candidates: list[int], frequency: Frequencies, settings: TermSettings) -> list[int]:
    if not candidates:
        return []
    # An array by candidate, -1 for those not chosen, as it is indexed with all pairs at once.
    place = np.full(int(frequency.candidate.max()) + 1, -1)
    place[candidates] = np.arange(len(candidates))
    is_chosen = place[frequency.candidate] >= 0
    keyword, term = frequency.keyword[is_chosen], place[frequency.candidate[is_chosen]]
    terms = np.bincount(keyword, minlength=len(frequency.names))
    owed = np.bincount(term, 1 / terms[keyword], len(candidates))
    quotas = np.rint(settings.clips_per_term * owed / owed.mean()).astype(np.int64)
    return [int(quota) for quota in np.clip(quotas, 1, settings.max_clips_per_term)]
