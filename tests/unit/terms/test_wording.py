"""A caption is made harmless and comparable."""

from __future__ import annotations

import pytest

from vidal.terms.wording import display, refusal, words

DISPLAYED = [
    ("  A dog\truns.\n", "A dog runs"),
    ("\x1b[31mred\x07 dog\x00", "[31mred dog"),
    ("a \u202edog\u202c, \ufeffwet\u200b!", "a dog, wet"),
    ("ﬁsh & ＣＨＩＰＳ", "fish & CHIPS"),
    ('--"quoted"', "quoted"),
    ("café\u2028crème", "café crème"),
]


@pytest.mark.parametrize(("caption", "shown"), DISPLAYED)
def test_control_and_format_characters_do_not_reach_a_term(caption: str, shown: str) -> None:
    assert display(caption) == shown


def test_words_are_lower_case_without_possessive() -> None:
    assert words("The man's T-shirt, 2 DOGS") == ["the", "man", "t", "shirt", "2", "dogs"]


REJECTED = [
    ("", "blank"),
    ("!!!", "blank"),
    ("a b c d e f", "too_long"),
    ("see www.example.org", "link"),
    ("http://x", "link"),
    ("一只狗在跑", "other_script"),
    ("собака бежит dog", "other_script"),
    ("a crème brûlée", None),
    ("a dog 🐶", None),
]


@pytest.mark.parametrize(("caption", "reason"), REJECTED)
def test_a_caption_is_rejected_by_its_characters(caption: str, reason: str | None) -> None:
    assert refusal(caption, words(caption), max_words=5) == reason
