"""Compares how a caption combines words with how the views combine them.

A caption may consist of supported words and still attach a number or colour to another noun, assert what is denied, or
swap who does what to whom. Nothing is parsed: the checks go by which word stands before or after which in a clause.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vidal.caption.lexicon import (
    ANIMALS,
    PERSONS,
    implied,
    is_known,
    is_noun,
    is_usually,
    is_verb,
    may_describe,
    senses,
    specific_verb,
)
from vidal.caption.support import COLOURS, is_used_as_verb
from vidal.caption.words import NEGATIONS, content_words, lemma_set, lemmas, number, tokens

Lemmas = frozenset[str]

_CLAUSE = re.compile(r"[.!?;:,|\n]+\s|\b(?:but|so|and|while|because|as)\b", re.IGNORECASE)
_ROLE_CLAUSE = re.compile(r"[.!?;:,|\n]+\s|\b(?:but|while|because|as|before|after|when)\b", re.IGNORECASE)
_AGE = re.compile(r"\b(\w+)[ -]years?[ -]olds?\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?;|]\s+")
_AUXILIARIES = frozenset(["is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "gets", "got"])
_GROUPS = frozenset(["pair", "couple", "duo", "trio", "quartet", "quintet", "dozen"])
_REFUSALS = frozenset(["refuse", "fail", "decline", "unable"])
_NOBODY = frozenset(["nobody", "none", "nothing"])
_PASSIVE_REACH = 6
"""Number of words after a participle within which "by" makes it passive."""


def misattached(text: str, views: Sequence[str]) -> str | None:
    """Return a number or colour of ``text`` with a noun that has another in the views, such as ``3 egg``, or None."""
    values: dict[tuple[bool, str], set[str]] = {}
    for value, nouns in itertools.chain.from_iterable(map(_modifiers, views)):
        for noun in nouns:
            values.setdefault((value in COLOURS, noun), set()).add(value)
    literal = lemma_set("\n".join(views))
    counted = list(itertools.chain.from_iterable(map(_modifiers, views)))
    # "One" may be a pronoun, and a quintet counts no noun after it.
    is_counting = not _GROUPS & {word.casefold() for word in tokens(text)}
    for value, nouns in _modifiers(text):
        counts = [others for other, others in counted if other == value]
        # "Two lifeguards" of a lifeguard and two swimmers.
        is_number = is_counting and value != "1" and value not in COLOURS
        if counts and is_number and nouns <= literal and not any(nouns & others for others in counts):
            return f"{value} {min(nouns)}"
        found = set().union(*(values.get((value in COLOURS, noun), set()) for noun in nouns))
        if found and value not in found:
            return f"{value} {min(nouns)}"
    return None


def _modifiers(text: str) -> Iterator[tuple[str, Lemmas]]:
    """Yield each number and colour with the lemmas of the noun after it, and of what stands between; ages too."""
    if text.isupper() and not text[0].isdigit():
        return  # on a screen the number may follow, as in "KEYS 3"
    for sentence in _SENTENCE.split(text):
        for age in _AGE.finditer(sentence):
            if value := number(age[1]):
                yield value, frozenset(["years old"])
        plain = _AGE.sub(" ", sentence)
        # "At four in the morning" counts no mornings.
        plain = re.sub(
            r"(\w+)(?= (?:in|at|from|to) (?:the|a)\b)", lambda found: "" if number(found[1]) else found[1], plain
        )
        words = [word for word in tokens(plain) if number(word) is not None or content_words(word)]
        for at, word in enumerate(words):
            value = number(word) or (word.casefold() if word.casefold() in COLOURS else None)
            after = words[at + 1 : at + 4]
            if value is None or not after or number(after[0]) is not None:
                continue
            nouns = next((n for n, w in enumerate(after) if any(map(is_noun, lemmas(w))) or number(w)), 0)
            # "Two little girls" are girls, though "little" can be a noun.
            following = lemmas(after[nouns + 1]) if nouns + 1 < len(after) else frozenset[str]()
            nouns += any(map(may_describe, lemmas(after[nouns]))) and any(map(is_noun, following))
            yield value, frozenset().union(*map(lemmas, after[: nouns + 1]))


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
        is_next, before, is_inside = False, "", False
        words = tokens(clause)
        for at, word in enumerate(words):
            is_against = before == "against" and word.endswith("ing")
            if is_against:
                negated.update(lemmas(word))
            elif word.casefold() in NEGATIONS or word.casefold().endswith("n't") or _refuses(words, at):
                is_next = is_inside = True
            elif content_words(word):
                # "He did not reach the summit" neither denies the summit nor says that he was there.
                if is_next or not is_inside:
                    (negated if is_next else asserted).update(lemmas(word))
                is_next = False
            elif before in _NOBODY and word.casefold() not in _AUXILIARIES:
                is_next = False  # "nobody came to the concert" denies no concert
            before = word.casefold()
    return frozenset(negated), frozenset(asserted)


def _refuses(words: Sequence[str], at: int) -> bool:
    return bool(lemmas(words[at]) & _REFUSALS) and words[at + 1 : at + 2] == ["to"]


@dataclass(frozen=True, slots=True)
class _Role:
    """A verb of a clause, the persons or animals that do it, the nearest first, and the nouns around it, as lemmas."""

    verb: Lemmas
    agents: list[Lemmas]
    before: list[Lemmas]
    after: list[Lemmas]


def swapped_roles(text: str, views: Sequence[str]) -> str | None:
    """Return a verb of ``text`` with its doer if the views have another doer, or doer and object swapped; or None."""
    for role, view in itertools.product(_roles(text), map(list, map(_roles, views))):
        same = [other for other in view if _is_same_verb(role.verb, other.verb)]
        if not same or not role.before:
            continue
        doers = [agent for other in same for agent in other.agents]
        # A name may be that of the doer.
        is_named = not any(map(is_known, role.before[0]))
        is_other = doers and not is_named and not any(_is_same(mine, agent) for mine in role.agents for agent in doers)
        # The doer is somebody else in this view, or the view's doer has become the object.
        others = [noun for other in view for noun in (*other.before, *other.after)]
        if is_other and (
            any(_has(others, mine) for mine in role.agents[:1]) or any(_has(role.after, agent) for agent in doers)
        ):
            return f"{min(role.before[0])} {min(filter(is_verb, role.verb))}"
        for one, two in itertools.product(role.before, role.after):
            is_swapped = any(_has(other.after, one) and _has(other.before, two) for other in same)
            is_kept = _is_same(one, two) or any(_has(other.before, one) and _has(other.after, two) for other in same)
            if is_swapped and not is_kept:
                return f"{min(one)} {min(filter(is_verb, role.verb))} {min(two)}"
    return None


def _roles(text: str) -> Iterator[_Role]:
    for clause in _ROLE_CLAUSE.split(text):
        words = tokens(clause)
        forms = [lemmas(word) for word in words]
        # A word that the lexicon lacks is a name.
        nouns = [
            bool(content_words(word))
            and (any(map(is_noun, forms[at])) or (word[0].isupper() and not any(map(is_known, forms[at]))))
            for at, word in enumerate(words)
        ]
        for at, word in enumerate(words):
            if not is_used_as_verb(words, at):
                continue
            before = [forms[n] for n in range(at - 1, -1, -1) if nouns[n]]
            after = [forms[n] for n in range(at + 1, len(words)) if nouns[n]]
            following = [w.casefold() for w in words[at + 1 : at + 1 + _PASSIVE_REACH]]
            has_been = any(
                w.casefold() in ("is", "are", "was", "were", "been", "being") for w in words[max(at - 2, 0) : at]
            )
            is_participle = word.endswith("ed") or following[:1] == ["by"]
            if "by" in following and (has_been or is_participle):
                doer = at + 1 + following.index("by")
                by = [forms[n] for n in range(doer, len(words)) if nouns[n]]
                before, after = by, before
            yield _Role(forms[at], [noun for noun in before if _is_animate(noun)], before, after)


def _is_animate(forms: Lemmas) -> bool:
    return any(is_usually(form, PERSONS) or is_usually(form, ANIMALS) for form in forms)


def _is_same_verb(one: Lemmas, two: Lemmas) -> bool:
    return bool(one & two) or any(
        senses(a) & senses(b) or specific_verb(a) & senses(b) or specific_verb(b) & senses(a)
        for a, b in itertools.product(one, two)
    )


def _is_same(one: Lemmas, two: Lemmas) -> bool:
    """Return whether one noun may stand for the other."""
    return bool(one & two) or any(
        senses(a) & implied(b) or senses(b) & implied(a) for a, b in itertools.product(one, two)
    )


def _has(nouns: Sequence[Lemmas], noun: Lemmas) -> bool:
    return any(noun & other for other in nouns)
