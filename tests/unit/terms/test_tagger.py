"""Nouns and verbs of captions, in their base form."""

from __future__ import annotations

import random

import pytest

from vidal.terms.tagger import HanTaTagger
from vidal.terms.wording import words

KEYWORDS = [
    ("A man is riding a horse along the sandy beach at sunset", "beach horse man ride sunset"),
    ("two dogs were running on the grass", "dog grass run"),
    ("playing guitar", "guitar play"),
    ("a baby crawling", "baby crawl"),
    ("women dancing in a building", "building dance woman"),
    ("wedding cake", "cake wedding"),
    ("the children have been doing it", "child"),
    ("knives and mice", "knife mouse"),
    ("an abacus and a compass", "abacus compass"),
    ("A WOMAN PLAYS THE DRUMS", "drum play woman"),
    ("it is very big and red", ""),
    ("the of and", ""),
]


@pytest.fixture(scope="module")
def tagger() -> HanTaTagger:
    return HanTaTagger()


@pytest.mark.parametrize(("caption", "keywords"), KEYWORDS)
def test_keywords_are_the_lemmas_of_nouns_and_verbs(caption: str, keywords: str, tagger: HanTaTagger) -> None:
    assert " ".join(tagger.tag(words(caption)).keywords) == keywords


SAME = [
    ("A man is riding a horse.", "the man rides his horses", True),
    ("a dog on the beach", "a beach with a dog", True),
    ("a red car", "a blue car", False),
    ("two dogs", "three dogs", False),
    ("a dog", "not a dog", False),
]


@pytest.mark.parametrize(("one", "other", "is_same"), SAME)
def test_content_is_the_same_for_what_says_the_same(one: str, other: str, is_same: bool, tagger: HanTaTagger) -> None:
    assert (tagger.tag(words(one)).content == tagger.tag(words(other)).content) == is_same


def test_what_is_remembered_changes_no_tag(tagger: HanTaTagger) -> None:
    from HanTa.HanoverTagger import HanoverTagger

    plain, rng = HanoverTagger("morphmodel_en.pgz"), random.Random(0)
    known = [word for word in plain.cache if word.isalpha()]
    for _ in range(100):
        sentence = [rng.choice(known) + rng.choice(["", "", "", "zq"]) for _ in range(rng.randint(1, 12))]
        remembered = tagger.model.tag_sent(sentence, taglevel=0, casesensitive=False)
        assert remembered == plain.tag_sent(sentence, taglevel=0, casesensitive=False)


def test_a_word_of_endless_length_costs_nothing(tagger: HanTaTagger) -> None:
    assert tagger.tag(["dog", "x" * 900]).keywords == ("dog",)
