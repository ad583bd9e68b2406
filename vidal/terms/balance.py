"""Which candidates become terms, in which order, and how many clips each is to bring.

1. A keyword's frequency is the number of captions that hold it. Out of bounds: fewer than ``min_count``, more than
   ``max_share`` of those that were not dropped. A candidate needs one keyword within the bounds; its others count for
   nothing.
2. Every keyword is owed the same number of terms. They are chosen one by one, and a term counts for all its keywords.
   The keyword with the fewest terms so far is served, of several the first by lot (a hash of seed and text). It looks
   at its next 16 candidates, in the order of their lots, of the source that has given the fewest terms so far, and
   takes the one whose most served keyword has the fewest terms. A keyword without candidates drops out. So the first
   n terms are those that ``number: n`` gives, and any beginning of the list is balanced.
3. Every keyword is owed the same number of clips, which its terms share evenly: a term's quota is the sum of its
   shares, scaled to a mean of ``clips_per_term``, rounded, at least 1 and at most ``max_clips_per_term``.
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
"""Candidates that are weighed for each term."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequencies:
    """Keywords by their place in the alphabet, and which candidates hold which."""

    names: list[str]
    captions: Ints
    """How many captions hold each keyword."""
    is_rare: npt.NDArray[np.bool_]
    is_common: npt.NDArray[np.bool_]
    keyword: Ints
    candidate: Ints
    """Pairs of a keyword within the bounds and a candidate that holds it, by candidate."""

    @property
    def is_within(self) -> npt.NDArray[np.bool_]:
        return ~(self.is_rare | self.is_common)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Terms in the order in which they were chosen."""

    candidates: list[int]
    sources: list[int]
    quotas: list[int]


def frequencies(gathered: Gathered, settings: TermSettings) -> Frequencies:
    sizes = np.fromiter(map(len, gathered.keywords), np.int64, len(gathered.keywords))
    held = np.fromiter((each for ids in gathered.keywords for each in ids), np.int64, int(sizes.sum()))
    order = sorted(np.unique(held).tolist(), key=gathered.vocabulary.__getitem__)
    rank = np.empty(len(gathered.vocabulary), np.int64)
    rank[order] = np.arange(len(order))
    keyword, candidate = rank[held], np.repeat(np.arange(len(sizes)), sizes)
    stands_for = totals(gathered)
    captions = np.bincount(keyword, stands_for[candidate], len(order)).astype(np.int64)
    is_rare = captions < settings.min_count
    is_common = ~is_rare & (captions > settings.max_share * stands_for.sum())
    is_held = ~(is_rare | is_common)[keyword]
    return Frequencies(
        names=[gathered.vocabulary[each] for each in order], captions=captions, is_rare=is_rare, is_common=is_common,
        keyword=keyword[is_held], candidate=candidate[is_held],
    )  # fmt: skip


def totals(gathered: Gathered) -> Ints:
    """How many captions each candidate stands for."""
    counts = [np.frombuffer(each, np.uint32) for each in gathered.counts]
    return np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(0, np.int64)


def choose(gathered: Gathered, found: Frequencies, settings: TermSettings) -> Chosen:
    candidates, sources = _serve(gathered, found, settings)
    return Chosen(candidates=candidates, sources=sources, quotas=_quotas(candidates, found, settings))


def _serve(gathered: Gathered, found: Frequencies, settings: TermSettings) -> tuple[list[int], list[int]]:
    queues = _Queues(gathered, found, settings.seed)
    lots = [_hash(name, settings.seed) for name in found.names]
    waiting = [(0, lots[keyword], keyword) for keyword in np.flatnonzero(found.is_within).tolist()]
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
        # Terms chosen for other keywords may have served this one too: it waits again with its true number.
        heapq.heappush(waiting, (queues.terms[keyword], lot, keyword))
    return candidates, sources


class _Queues:
    """For each keyword and source the candidates in the order of their lots; each candidate is taken once."""

    def __init__(self, gathered: Gathered, found: Frequencies, seed: int) -> None:
        lots = np.fromiter((_hash(text, seed) for text in gathered.texts), np.uint64, len(gathered.texts))
        self._sources = len(gathered.sources)
        queues, candidates = [], []
        for source, counts in enumerate(gathered.counts):
            is_there = np.frombuffer(counts, np.uint32)[found.candidate] > 0
            queues.append(found.keyword[is_there] * self._sources + source)
            candidates.append(found.candidate[is_there])
        queue, candidate = np.concatenate(queues), np.concatenate(candidates)
        order = np.lexsort((lots[candidate], queue))
        self._candidates = candidate[order].tolist()
        self._next, self._end = _slices(queue[order], len(found.names) * self._sources)
        self._is_taken = bytearray(len(gathered.texts))
        self._keywords = found.keyword.tolist()
        self._first, self._last = _slices(found.candidate, len(gathered.texts))
        self.terms = [0] * len(found.names)
        """How many of those taken hold each keyword."""

    def take(self, keyword: int, sources: Sequence[int]) -> tuple[int, int] | None:
        """A candidate of the first source that has one left, and that source."""
        for source in sources:
            if offered := self._offer(keyword * self._sources + source):
                taken = min(offered, key=self._burden)
                self._is_taken[taken] = 1
                for each in self._keywords_of(taken):
                    self.terms[each] += 1
                return taken, source
        return None

    def _offer(self, queue: int) -> list[int]:
        place, end = self._next[queue], self._end[queue]
        while place < end and self._is_taken[self._candidates[place]]:
            place += 1
        self._next[queue] = place
        offered: list[int] = []
        end = min(end, place + 4 * OFFERED)
        while place < end and len(offered) < OFFERED:
            if not self._is_taken[self._candidates[place]]:
                offered.append(self._candidates[place])
            place += 1
        return offered

    def _burden(self, candidate: int) -> int:
        return max(self.terms[each] for each in self._keywords_of(candidate))

    def _keywords_of(self, candidate: int) -> list[int]:
        keywords: list[int] = self._keywords[self._first[candidate] : self._last[candidate]]
        return keywords


def _slices(sorted_ids: Ints, count: int) -> tuple[list[int], list[int]]:
    """Where the run of each id begins and ends."""
    edges: list[int] = np.searchsorted(sorted_ids, np.arange(count + 1)).tolist()
    return edges[:-1], edges[1:]


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest(), "big")


def _quotas(candidates: list[int], found: Frequencies, settings: TermSettings) -> list[int]:
    if not candidates:
        return []
    place = np.full(int(found.candidate.max()) + 1, -1)
    place[candidates] = np.arange(len(candidates))
    is_chosen = place[found.candidate] >= 0
    keyword, term = found.keyword[is_chosen], place[found.candidate[is_chosen]]
    terms = np.bincount(keyword, minlength=len(found.names))
    owed = np.bincount(term, 1 / terms[keyword], len(candidates))
    quotas = np.rint(settings.clips_per_term * owed / owed.mean()).astype(np.int64)
    return [int(quota) for quota in np.clip(quotas, 1, settings.max_clips_per_term)]
