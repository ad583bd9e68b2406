"""What belongs to what: a caption of the right words may still count, deny or order them as no view does.

No grammar is parsed. Three marks that survive without one are held against the views: which thing a number
counts, which word a "not" denies, and who stands on which side of what is done.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from vidal.caption.words import content_words, lemmas, number, tokens

Lemmas = frozenset[str]

_CLAUSE = re.compile(r"[.!?;:,\n]+\s|\b(?:but|so|and|while|because|as)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?]\s+")
_NEGATIONS = frozenset(["not", "no", "never", "nobody", "none", "nothing", "neither", "nor", "without", "cannot"])
_REACH = 6
"""Content words within which three words belong together."""


def miscounted(text: str, views: Sequence[str]) -> str | None:
    """A thing that the views count by another number."""
    counted: dict[str, set[str]] = {}
    for value, things in itertools.chain.from_iterable(map(_counts, views)):
        for thing in things:
            counted.setdefault(thing, set()).add(value)
    for value, things in _counts(text):
        known = set().union(*(counted.get(thing, set()) for thing in things))
        if known and value not in known:
            return f"{value} {min(things)}"
    return None


def _counts(text: str) -> Iterator[tuple[str, Lemmas]]:
    """Each number with the word that it counts: ``3 eggs``; an age counts nobody's years."""
    for sentence in _SENTENCE.split(text):
        words = content_words(re.sub(r"(?i)[ -]years?[ -]olds?\b", " ", sentence))
        for word, after in itertools.pairwise(words):
            value = number(word)
            if value is not None and number(after) is None:
                yield value, lemmas(after)


def misdenied(text: str, views: Sequence[str]) -> str | None:
    """A word that the views deny and the text does not, or the other way round."""
    denied, told = _denied_and_told(views)
    text_denied, text_told = _denied_and_told([text])
    wrong = ((text_told - text_denied) & (denied - told)) | (text_denied & (told - denied))
    return min(wrong, default=None)


def _denied_and_told(texts: Sequence[str]) -> tuple[Lemmas, Lemmas]:
    """Base forms of the word after each negation, and of every other word."""
    denied: set[str] = set()
    told: set[str] = set()
    for clause in itertools.chain.from_iterable(map(_CLAUSE.split, texts)):
        is_next = False
        for word in tokens(clause):
            if word.casefold() in _NEGATIONS or word.casefold().endswith("n't"):
                is_next = True
            elif content_words(word):
                (denied if is_next else told).update(lemmas(word))
                is_next = False
    return frozenset(denied), frozenset(told)


def reversed_order(text: str, views: Sequence[str]) -> str | None:
    """Three words that a view has in the opposite order: who does it and to whom, or which thing has which colour."""
    passive = re.search(r"\b(?:is|are|was|were|being|been)\b.*\bby\b", text, re.IGNORECASE)
    if passive:
        return None  # "a chair is sanded by a man" orders man and chair as no view must
    forwards = {three for view in views for words in _triples(view) for three in itertools.product(*words)}
    # Of a word that stands twice nobody can tell which of the two it is.
    often = Counter(lemma for word in content_words(text) for lemma in lemmas(word))
    for words in _triples(text):
        threes = [three for three in itertools.product(*words) if all(often[lemma] == 1 for lemma in three)]
        if any(three[::-1] in forwards for three in threes) and not forwards.intersection(threes):
            return " ".join(max(word, key=len) for word in words)
    return None


def _triples(text: str) -> Iterator[tuple[Lemmas, Lemmas, Lemmas]]:
    """Every three different words of a sentence in their order, near each other, by all their base forms."""
    for sentence in _SENTENCE.split(text):
        words = [lemmas(word) for word in content_words(sentence) if number(word) is None]
        for start, one in enumerate(words):
            for middle, other in itertools.combinations(words[start + 1 : start + _REACH], 2):
                if not (one & middle or one & other or middle & other):
                    yield one, middle, other
