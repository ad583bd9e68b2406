"""What English words mean, as far as WordNet 3.1 knows: whether a word may stand for another, and what it names.

The file beside this module is an extract of WordNet 3.1, copyright 2011 by Princeton University, made by
`tools.wordnet`; the licence of WordNet is in ``wordnet-license.txt``.
"""

from __future__ import annotations

import functools
import lzma
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("wordnet.tsv.xz")
ANIMALS, FOODS, PERSONS = "05", "13", "18"
# WordNet's files by part of speech: 03 to 28 have nouns, 29 to 43 verbs, 00, 01 and 44 adjectives.
_VERBS = range(29, 44)
_HEIGHT = 9
"""Steps up from a word to a more general one: from a pug to a dog, a mammal, an animal."""


@dataclass(frozen=True, slots=True)
class _WordNet:
    """Synsets by number: lexicographer file, the more general, those of derived words, opposites; senses of words."""

    files: list[str]
    above: list[list[int]]
    derived: list[list[int]]
    opposite: list[list[int]]
    senses: dict[str, list[int]]
    usual: dict[str, set[str]]
    """Lexicographer files of the most frequent sense of a word as a noun, verb, adjective and adverb."""


@functools.cache
def _wordnet() -> _WordNet:
    files, above, derived, opposite, senses, usual = [], [], [], [], dict[str, list[int]](), dict[str, set[str]]()
    for line, text in enumerate(lzma.decompress(FILE.read_bytes()).decode().split("\n")):
        file, words, *related = text.split("\t")
        files.append(file)
        hypernyms, derivations, opposites = ([line + int(step) for step in steps.split()] for steps in related)
        above.append(hypernyms)
        derived.append(derivations)
        opposite.append(opposites)
        for word in words.split(",") if words else ():
            # A plus marks the most frequent sense of a word.
            senses.setdefault(word.rstrip("+"), []).append(line)
            if word.endswith("+"):
                usual.setdefault(word.rstrip("+"), set()).add(file)
    return _WordNet(files, above, derived, opposite, senses, usual)


@functools.lru_cache(100_000)
def senses(word: str) -> frozenset[int]:
    """Return the synsets of a lemma; two words with a common one are synonyms."""
    return frozenset(_wordnet().senses.get(word, ()))


@functools.lru_cache(100_000)
def derived(word: str) -> frozenset[int]:
    """Return the synsets of words derived from a lemma: a guitarist from a guitar."""
    wordnet = _wordnet()
    return frozenset(other for sense in senses(word) for other in wordnet.derived[sense])


@functools.lru_cache(100_000)
def opposite(word: str) -> frozenset[int]:
    """Return the synsets of a lemma's antonyms: to sell is the opposite of to buy."""
    wordnet = _wordnet()
    return frozenset(other for sense in senses(word) for other in wordnet.opposite[sense])


@functools.lru_cache(100_000)
def implied(word: str) -> frozenset[int]:
    """Return the synsets that a lemma implies: its own, those of derived words, and all that are more general."""
    return _above(senses(word) | derived(word))


@functools.lru_cache(100_000)
def kinds_of(word: str) -> frozenset[int]:
    """Return the synsets of a lemma and all that are more general, without those of derived words."""
    return _above(senses(word))


def _above(synsets: frozenset[int]) -> frozenset[int]:
    wordnet = _wordnet()
    found, edge = set[int](), set(synsets)
    for _ in range(_HEIGHT + 1):
        found |= edge
        edge = {other for synset in edge for other in wordnet.above[synset]} - found
    return frozenset(found)


@functools.lru_cache(100_000)
def deeds(word: str) -> frozenset[int]:
    """Return what a person of this name does: a guitarist is a performer and performs, a climber climbs."""
    if not is_usually(word, PERSONS):
        return frozenset()
    wordnet = _wordnet()
    persons = (synset for synset in implied(word) if wordnet.files[synset] == PERSONS)
    return frozenset(other for synset in persons for other in wordnet.derived[synset])


@functools.lru_cache(100_000)
def specific_verb(word: str) -> frozenset[int]:
    """Return the synsets directly above a verb: to slice is a way to cut."""
    wordnet = _wordnet()
    verbs = (sense for sense in senses(word) if int(wordnet.files[sense]) in _VERBS)
    return frozenset(other for sense in verbs for other in wordnet.above[sense])


def is_usually(word: str, file: str) -> bool:
    """Return whether a lemma as a noun or verb is usually of a lexicographer file, such as `ANIMALS` or `PERSONS`."""
    return file in _wordnet().usual.get(word, ())


def is_verb(word: str) -> bool:
    """Return whether a lemma can be a verb."""
    return any(int(file) in _VERBS for file in _wordnet().usual.get(word, ()))


def is_noun(word: str) -> bool:
    """Return whether a lemma can be a noun."""
    return any(3 <= int(file) <= 28 for file in _wordnet().usual.get(word, ()))


def is_adjective(word: str) -> bool:
    """Return whether a lemma can be nothing but an adjective."""
    usual = _wordnet().usual.get(word, set())
    return bool(usual) and usual <= {"00", "01", "44"}


def may_describe(word: str) -> bool:
    """Return whether a lemma can be an adjective, if among others."""
    return bool(_wordnet().usual.get(word, set()) & {"00", "01", "44"})


def is_known(word: str) -> bool:
    """Return whether the extract has a lemma."""
    return word in _wordnet().usual
