"""A caption as a term: characters made harmless, words made comparable."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from vidal.caption.words import tokens

MAX_CHARACTERS = 1000
MAX_WORD_CHARACTERS = 30
"""A longer run of letters is no word; the tagger's time grows with the cube of a word's length."""

_LINK = re.compile(r"https?:|www\.", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_EDGES = " \t.,;:!?\"'-–—*#|/\\"


def display(caption: str) -> str:
    """The caption in NFKC on one line, without control and format characters and without punctuation round it."""
    text = unicodedata.normalize("NFKC", caption)
    if not text.isascii() or not text.isprintable():
        text = "".join(_harmless(character) for character in text)
    return _SPACES.sub(" ", text).strip(_EDGES)


def _harmless(character: str) -> str:
    if character.isspace():
        return " "
    kind = unicodedata.category(character)
    if kind == "Cc":
        return " "
    return "" if kind.startswith("C") else character


def words(text: str) -> list[str]:
    """Lower-case words; "man's" is "man"."""
    return [word.casefold().removesuffix("'s") for word in tokens(text)]


def refusal(text: str, its_words: list[str], max_words: int) -> str | None:
    """Why a caption is no term, judged by its characters alone."""
    if not its_words:
        return "blank"
    if len(its_words) > max_words:
        return "too_long"
    if _LINK.search(text):
        return "link"
    # The tagger is for English: a caption of another script would only give it noise.
    return None if text.isascii() or _is_latin(text) else "other_script"


def _is_latin(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 2 * latin > len(letters)


def digest(parts: list[str]) -> bytes:
    """Sixteen bytes that stand for a list of words."""
    return blake2b(" ".join(parts).encode(), digest_size=16).digest()
