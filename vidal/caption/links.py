"""Finds words that a caption links to each other's partners: a view's new car and old man made an old car and new man.

Two links of a text are crossed in a caption if it has the words of both and pairs each with a word of the other. Links
are those of an adjective to its noun, of the words of one clause, and of two events to their order. A place is crossed
if the caption says "from" of what a view says "to".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from vidal.caption.lexicon import is_adjective, is_noun, is_verb
from vidal.caption.support import is_used_as_verb
from vidal.caption.words import content_words, lemma_set, lemmas, number, tokens

Lemmas = frozenset[str]

_CLAUSE = re.compile(r"[.!?;:,|]+\s|\b(?:and(?: then)?|while|but|then|before|after|when|whereas|as)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?;|]\s+")
_EARLIER = re.compile(
    r"^(.*?)(?:,? (?:and )?(?:then|before|afterwards|followed by|later|finally)\b)(.*)$", re.IGNORECASE
)
_COMPARED = re.compile(
    r"^(.*?)\b(?P<more>\w+er|better|worse|more \w+|less \w+)\b(?: \w+){0,2}? than\b(?P<than>.*)$", re.IGNORECASE
)
# Prepositions of one place and of its opposite.
_PLACES = (
    ("from|off|out of|away from", "to|into|onto|towards?"),
    ("in front of|before", "behind|after"),
    ("above|over|on top of", "below|under|underneath|beneath"),
    ("inside", "outside"),
)
_PLACED = [
    [re.compile(rf"(?<!\w)(?:{side}) (?!which\b|whom\b)((?:[\w'’-]+ ?){{1,4}})", re.IGNORECASE) for side in sides]
    for sides in _PLACES
]
_LATER = re.compile(r"^(.*?)\bafter\b(.*)$", re.IGNORECASE)


def crossed(text: str, views: Sequence[str]) -> str | None:
    """Return two words that ``text`` links and a view links to others, such as ``new motorcycle``, or None."""
    for view in views:
        checks = (_moved_modifier, _moved_between_clauses, _other_order, _other_comparison, _other_place)
        if wrong := next((found for check in checks if (found := check(text, view))), None):
            return wrong
    return None


def _moved_modifier(text: str, view: str) -> str | None:
    there, words = list(_modified(view)), lemma_set(text)
    for modifier, noun in _modified(text):
        if any(modifier & m and noun & n for m, n in there):
            continue
        nouns = [n for m, n in there if modifier & m]
        modifiers = [m for m, n in there if noun & n]
        # A caption that moves a word mentions what it was taken from, or moves a second word there.
        if nouns and modifiers and any(words & other for other in (*nouns, *modifiers)):
            return f"{min(modifier)} {min(noun)}"
    return None


def _modified(text: str) -> Iterator[tuple[Lemmas, Lemmas]]:
    """Yield the lemmas of each adjective or noun before a noun in one phrase, and of the nouns that follow in it."""
    for phrase in re.split(r"[^\w\s'’-]+", text):
        words = tokens(phrase)
        for at, word in enumerate(words):
            if not content_words(word) or not (any(map(is_adjective, lemmas(word))) or word.casefold() in lemmas(word)):
                continue
            end = at + 1
            while end < len(words) and _is_named(words, end):
                end += 1
            if end > at + 1:
                yield lemmas(word), frozenset[str]().union(*map(lemmas, words[at + 1 : end]))


def _is_named(words: Sequence[str], at: int) -> bool:
    """Return whether a word is used as a noun."""
    is_noun_here = any(map(is_noun, lemmas(words[at]))) and not is_used_as_verb(words, at)
    return bool(content_words(words[at])) and is_noun_here


def _moved_between_clauses(text: str, view: str) -> str | None:
    here, there = _clauses(text), _clauses(view)
    for (one, two), (first, second) in itertools.product(
        itertools.combinations(here, 2), itertools.permutations(there, 2)
    ):
        # Each word must be in one clause of each text alone.
        kept, came = (one - two) & (first - second), (one - two) & (second - first)
        stayed, left = (two - one) & (second - first), (two - one) & (first - second)
        if kept and came and stayed and left:
            return f"{min(kept)} {min(came)}"
    return None


def _clauses(text: str) -> list[Lemmas]:
    return [found for clause in _CLAUSE.split(text) if (found := lemma_set(clause))]


def _other_order(text: str, view: str) -> str | None:
    for (first, then), (first_there, then_there) in itertools.product(_orders(text), _orders(view)):
        late, early = (first - then) & (then_there - first_there), (then - first) & (first_there - then_there)
        if any(map(is_verb, late)) and any(map(is_verb, early)):
            return f"{min(late)} before {min(early)}"
    return None


def _other_comparison(text: str, view: str) -> str | None:
    """Return what ``text`` says to be more than what a view says to be more, as in "cheap paint covers better"."""
    here, there = _COMPARED.match(text), _COMPARED.match(view)
    if not here or not there or here["more"].casefold() != there["more"].casefold():
        return None
    (one, two), (first, second) = ((lemma_set(found[1]), lemma_set(found["than"])) for found in (here, there))
    # "Than" may have its other side in a sentence of its own.
    came, went = (one - two) & (second - first), (two - one) & (first - second)
    return f"{min(came)} {here['more']} {min(went)}" if came and went else None


def _other_place(text: str, view: str) -> str | None:
    """Return a noun that ``text`` has after a preposition and the view after its opposite alone."""
    for sides in _PLACED:
        here, there = ([_placed(side, of) for side in sides] for of in (text, view))
        for side, other in ((0, 1), (1, 0)):
            if wrong := (here[side] - here[other]) & (there[other] - there[side]):
                return f"{min(wrong)} in another place"
    return None


def _placed(side: re.Pattern[str], text: str) -> Lemmas:
    """Return the lemmas of the first noun after each preposition of one side."""
    found = set[str]()
    for phrase in side.finditer(text):
        nouns = (word for word in tokens(phrase[1]) if content_words(word))
        noun = next((word for word in nouns if number(word) is None and any(map(is_noun, lemmas(word)))), None)
        found |= lemmas(noun) if noun else set()
    return frozenset(found)


def _orders(text: str) -> Iterator[tuple[Lemmas, Lemmas]]:
    """Yield the lemmas of what happens first and of what happens then, in each sentence that tells an order."""
    for sentence in _SENTENCE.split(text):
        if found := _EARLIER.match(sentence):
            yield lemma_set(found[1]), lemma_set(found[2])
        elif found := _LATER.match(sentence):
            yield lemma_set(found[2]), lemma_set(found[1])
