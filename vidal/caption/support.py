"""Decides whether texts support a word: they contain it, or one that implies it, as ``pug`` implies ``dog``.

What has no near-synonym is held to the letter: numbers, units of time, colours, and names.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vidal.caption.genre import permitted
from vidal.caption.lexicon import (
    ANIMALS,
    PERSONS,
    deeds,
    derived,
    implied,
    is_adjective,
    is_known,
    is_noun,
    is_usually,
    is_verb,
    kinds_of,
    opposite,
    senses,
    specific_verb,
)  # fmt: skip
from vidal.caption.spelling import is_misspelt
from vidal.caption.synonyms import near
from vidal.caption.words import FRAMING_WORDS, FUNCTION_WORDS, content_words, lemmas, number, tokens

_UNITS = frozenset(
    ["second", "minute", "hour", "day", "week", "month", "year",
     "hourly", "daily", "nightly", "weekly", "monthly", "yearly", "annual", "annually"]
)  # fmt: skip
COLOURS = frozenset(
    ["red", "green", "blue", "yellow", "orange", "purple", "violet", "pink", "brown", "black", "white", "grey", "gray",
     "golden", "silver", "beige", "cream"]
)  # fmt: skip
_BEFORE_NOUNS = frozenset(
    ["a", "an", "the", "his", "her", "its", "their", "this", "that", "these", "those", "of", "with", "in", "on", "at"]
)
_BEFORE_VERBS = frozenset(
    ["to", "not", "may", "can", "could", "might", "will", "who", "people", "men", "women", "children"]
)
_ONE_OF = frozenset(["a", "an", "another", "one", "his", "her", "my", "their"])
_FINITE = frozenset(
    ["is", "are", "was", "were", "has", "have", "had", "does", "did", "makes", "made", "takes", "took", "gets", "got",
     "goes", "went", "comes", "came", "should", "must", "can", "will"]
)  # fmt: skip
# What WordNet does not say of a relative or a young animal.
_MALE = "he brother father dad daddy papa grandfather grandpa granddad uncle husband boyfriend groom"
_FEMALE = "she sister mother mom mum mummy grandmother grandma granny aunt wife girlfriend bride"
_YOUNG = "baby cub calf puppy kitten chick foal lamb kid child toddler infant duckling teenager teen"
_KIN = {
    "man": frozenset(_MALE.split()),
    "woman": frozenset(_FEMALE.split()),
    "male": frozenset([*_MALE.split(), "man", "son", "boy", "grandson", "nephew", "king"]),
    "female": frozenset([*_FEMALE.split(), "woman", "daughter", "girl", "granddaughter", "niece", "queen"]),
    "young": frozenset(_YOUNG.split()),
}
_ENDS = ("man", "woman")
_GROWN = {"kitten": "cat", "puppy": "dog", "calf": "cow", "foal": "horse", "lamb": "sheep", "duckling": "duck",
          "chick": "chicken", "piglet": "pig", "gosling": "goose", "tadpole": "frog", "fawn": "deer"}  # fmt: skip
_GENDERED = {"he": "male", "him": "male", "his": "male", "she": "female", "her": "female", "hers": "female"}


@dataclass(frozen=True, slots=True)
class Known:
    """The lemmas of texts, their synsets with those of deeds, all that they imply, words that are none, own synsets."""

    lemmas: frozenset[str]
    senses: frozenset[int]
    implied: frozenset[int]
    unknown: frozenset[str]
    literal: frozenset[int]


@functools.lru_cache(1000)
def known(texts: tuple[str, ...]) -> Known:
    """Return what ``texts`` support."""
    words = {lemma for text in texts for word in tokens(text) for lemma in _positive(word.casefold())}
    words |= {lemma for text in texts for forms in forms_of(tokens(text)) for lemma in forms}
    # A fisherman is a man.
    words |= {end for word in words for end in _ENDS if word.endswith(end) and word not in ("woman", "human")}
    words |= {_GROWN[word] for word in words & _GROWN.keys()}
    words |= {name for name, kin in _KIN.items() if words & kin}
    done = frozenset[int]().union(*map(deeds, words))
    return Known(
        frozenset(words | permitted(texts)),
        frozenset[int]().union(done, *map(senses, words)),
        frozenset[int]().union(done, *map(implied, words)),
        frozenset(
            word for text in texts for word in tokens(text) if word.islower() and not any(map(is_known, lemmas(word)))
        ),
        frozenset[int]().union(*map(senses, words)),
    )


def forms_of(words: Sequence[str]) -> Iterator[frozenset[str]]:
    """Yield the possible lemmas of each word, also those of the compound or phrasal verb that it is in."""
    folded = [word.casefold() for word in words]
    # "3/5" is three of five; who is fastest is fast, but who is young is not the youngest.
    alone = [
        lemmas(word)
        | (_positive(word) if not word.endswith("est") else set())
        | {word, *(re.findall(r"\d+", word) if "/" in word else ())}
        for word in folded
    ]
    for at, forms in enumerate(alone):
        after = folded[at + 1] if at + 1 < len(folded) else ""
        before = folded[at - 1] if at else ""
        joined = {f"{form}{sign}{after}" for form in forms for sign in ("_", "")} if after else set()
        joined |= {f"{before}{sign}{form}" for form in forms for sign in ("_", "")} if before else set()
        yield frozenset(forms | joined)


def _positive(word: str) -> set[str]:
    """Return the adjectives of which a word may be the comparative, superlative or adverb."""
    bases = {word.removesuffix(suffix) for suffix in ("er", "est", "ly", "r", "st") if word.endswith(suffix)}
    bases |= {f"{base[:-1]}y" for base in bases if base.endswith("i")}
    bases |= {base[:-1] for base in bases if len(base) > 3 and base[-1] == base[-2]}
    return {base for base in bases if len(base) > 2 and is_adjective(base)}


def is_supported(word: str, forms: frozenset[str], by: Known, *, is_name: bool) -> bool:
    """Return whether ``word`` with lemmas ``forms`` is one of the known words or implied by one."""
    if forms & by.lemmas:
        return True
    if (
        is_name
        or is_exact(word)
        or any(opposite(form) & by.literal and not senses(form) & by.implied for form in forms)
    ):
        return False
    forms |= lemmas(_GENDERED.get(word.casefold(), word))
    if any(is_misspelt(other, form) for other in by.unknown for form in forms):
        return True
    if any(near(form) & by.lemmas for form in forms):
        return True
    if _is_compound_of(word.casefold(), by):
        return True
    # A butcher is more than somebody who cuts.
    ways = frozenset[int]() if is_animate(word) else frozenset[int]().union(*map(specific_verb, forms))
    # A guitarist has a guitar, but an architect is more than somebody with a plan.
    if is_animate(word) and not any(other[:3] == word[:3].casefold() for other in by.lemmas):
        return any(senses(form) & (kinds_of(other) | deeds(other)) for form in forms for other in by.lemmas)
    return bool(ways & by.senses) or any(senses(form) & by.implied or derived(form) & by.senses for form in forms)


def together(text: str, noun: str) -> int:
    """Return how many of a noun ``text`` names one by one: a man and a woman are two people."""
    words, mine, count = tokens(text), lemmas(noun), 0
    for at, word in enumerate(words):
        if word.casefold() in _ONE_OF:
            head = next((n for n, w in enumerate(words[at + 1 : at + 5]) if any(map(is_noun, lemmas(w)))), None)
            if head is None:
                count += word.casefold() == "another"
                continue
            ends = words[at + 1 + head : at + 5]
            named = itertools.takewhile(lambda w: content_words(w) and any(map(is_noun, lemmas(w))), ends)
            heads = frozenset[str]().union(*map(lemmas, named))
            # A woman is of man, as WordNet has it.
            is_kind = not mine & _KIN.keys() and any(senses(form) & kinds_of(head) for form in mine for head in heads)
            count += bool(is_kind or heads & mine)
    return count


def unsupported(text: str, by: Sequence[str]) -> list[str]:
    """Return the content words of ``text`` that the texts ``by`` neither contain nor imply."""
    words, support = tokens(text), known(tuple(by))
    return [
        word
        for word, forms in zip(words, forms_of(words), strict=True)
        if word.casefold() not in FUNCTION_WORDS | FRAMING_WORDS
        and not is_supported(word, forms, support, is_name=False)
    ]


def is_exact(word: str) -> bool:
    """Return whether no other word may stand for a number, a colour or a unit of time."""
    return number(word) is not None or word.casefold() in COLOURS or bool(lemmas(word) & _UNITS)


def _is_compound_of(word: str, by: Known) -> bool:
    """Return whether a noun begins with a known noun: a stallholder at a stall, a haircut of hair."""
    return not word.endswith("est") and any(
        word[:end] in by.lemmas and is_noun(word[:end]) for end in range(4, len(word) - 1)
    )


def is_animate(word: str) -> bool:
    """Return whether a word usually names a person or an animal."""
    return any(is_usually(lemma, PERSONS) or is_usually(lemma, ANIMALS) for lemma in lemmas(word))


def is_used_as_verb(words: Sequence[str], at: int) -> bool:
    """Return whether the word can be a verb and has the form of one, or stands where a verb does."""
    word, before = words[at].casefold(), words[at - 1].casefold() if at else ""
    is_subject = words[at + 1 : at + 2] and words[at + 1].casefold() in ("is", "are", "was", "were")
    if is_subject or word in FUNCTION_WORDS or before in _BEFORE_NOUNS or not any(map(is_verb, lemmas(word))):
        return False
    if is_adjective(before):
        return False
    is_plural = before.endswith("s") and any(map(is_noun, lemmas(before)))
    return word not in lemmas(word) or len(lemmas(word)) > 1 or is_plural or before in _BEFORE_VERBS


def is_statement(words: Sequence[str]) -> bool:
    """Return whether words have a finite verb: not "tips for building a boat" but "a man builds a boat"."""
    folded = [word.casefold() for word in words]
    return any(
        word in _FINITE or (is_used_as_verb(words, at) and not word.endswith("ing") and folded[at - 1] != "to")
        for at, word in enumerate(folded)
        if at
    )
