"""Compares how a caption combines words with how the views combine them.

A caption may consist of supported words and still state a wrong number, a wrong negation or swapped roles. Nothing is
parsed: the checks compare which noun a number precedes, which word a negation precedes, and the order of words.
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
"""Number of consecutive content words within which three words are compared."""


def miscounted(text: str, views: Sequence[str]) -> str | None:
    """Return a counted noun of ``text`` that the views count differently, such as ``3 egg``, or None."""
    values: dict[str, set[str]] = {}
    for value, nouns in itertools.chain.from_iterable(map(_counts, views)):
        for noun in nouns:
            values.setdefault(noun, set()).add(value)
    for value, nouns in _counts(text):
        known = set().union(*(values.get(noun, set()) for noun in nouns))
        if known and value not in known:
            return f"{value} {min(nouns)}"
    return None


def _counts(text: str) -> Iterator[tuple[str, Lemmas]]:
    """Yield each number and the lemmas of the word after it: ``3 eggs``; ages are ignored."""
    for sentence in _SENTENCE.split(text):
        words = content_words(re.sub(r"(?i)[ -]years?[ -]olds?\b", " ", sentence))
        for word, after in itertools.pairwise(words):
            value = number(word)
            if value is not None and number(after) is None:
                yield value, lemmas(after)


def misnegated(text: str, views: Sequence[str]) -> str | None:
    """Return a word that the views negate and ``text`` asserts, or vice versa, or None."""
    negated, asserted = _negated_and_asserted(views)
    text_negated, text_asserted = _negated_and_asserted([text])
    wrong = ((text_asserted - text_negated) & (negated - asserted)) | (text_negated & (asserted - negated))
    return min(wrong, default=None)


def _negated_and_asserted(texts: Sequence[str]) -> tuple[Lemmas, Lemmas]:
    """Return the lemmas of the content word after each negation, and those of every other content word."""
    negated: set[str] = set()
    asserted: set[str] = set()
    for clause in itertools.chain.from_iterable(map(_CLAUSE.split, texts)):
        is_next = False
        for word in tokens(clause):
            if word.casefold() in _NEGATIONS or word.casefold().endswith("n't"):
                is_next = True
            elif content_words(word):
                (negated if is_next else asserted).update(lemmas(word))
                is_next = False
    return frozenset(negated), frozenset(asserted)


def reversed_order(text: str, views: Sequence[str]) -> str | None:
    """Return three words of ``text`` that a view has only in the opposite order (swapped roles or colours), or None."""
    passive = re.search(r"\b(?:is|are|was|were|being|been)\b.*\bby\b", text, re.IGNORECASE)
    if passive:
        return None  # "a chair is sanded by a man" legitimately reverses the order
    forwards = {three for view in views for words in _triples(view) for three in itertools.product(*words)}
    # Words that occur more than once are ambiguous and are not compared.
    counts = Counter(lemma for word in content_words(text) for lemma in lemmas(word))
    for words in _triples(text):
        threes = [three for three in itertools.product(*words) if all(counts[lemma] == 1 for lemma in three)]
        if any(three[::-1] in forwards for three in threes) and not forwards.intersection(threes):
            return " ".join(max(word, key=len) for word in words)
    return None


def _triples(text: str) -> Iterator[tuple[Lemmas, Lemmas, Lemmas]]:
    """Yield the lemmas of every three different words of a sentence that are near each other, in order."""
    for sentence in _SENTENCE.split(text):
        words = [lemmas(word) for word in content_words(sentence) if number(word) is None]
        for start, one in enumerate(words):
            for middle, other in itertools.combinations(words[start + 1 : start + _REACH], 2):
                if not (one & middle or one & other or middle & other):
                    yield one, middle, other
