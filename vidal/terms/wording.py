"""Normalisation of captions: safe characters, comparable words."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from vidal.caption.words import tokens

MAX_CHARACTERS = 1000
MAX_WORD_CHARACTERS = 30
"""Longer runs of letters are not words; the tagger's time grows with the cube of a word's length."""

_LINK = re.compile(r"https?:|www\.", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_EDGES = " \t.,;:!?\"'-–—*#|/\\"


def display(caption: str) -> str:
    """Return the caption in NFKC on one line, without control and format characters or surrounding punctuation."""
    text = unicodedata.normalize("NFKC", caption)
    if not text.isascii() or not text.isprintable():
        # Format characters, such as a soft hyphen, stand within words, and leave no space behind.
        categories = [(character, unicodedata.category(character)) for character in text]
        text = "".join(
            " " if character.isspace() or category == "Cc" else "" if category.startswith("C") else character
            for character, category in categories
        )
    return _SPACES.sub(" ", text).strip(_EDGES)


def words(text: str) -> list[str]:
    """Return the caption's words in lower case, possessives reduced: ``words("A man's dog")`` is ``[a, man, dog]``."""
    return [word.casefold().removesuffix("'s") for word in tokens(text)]


def refusal(text: str, its_words: list[str], max_words: int) -> str | None:
    """Return why the characters of a caption rule it out as a term, None if they do not."""
    if not its_words:
        return "blank"
    if len(its_words) > max_words:
        return "too_long"
    if _LINK.search(text):
        return "link"
    if text.isascii():
        return None
    # The tagger is for English; on other scripts its output is noise.
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return None if 2 * latin > len(letters) else "other_script"


def digest(parts: list[str]) -> bytes:
    """Return a 16-byte hash of a list of words."""
    return blake2b(" ".join(parts).encode(), digest_size=16).digest()
