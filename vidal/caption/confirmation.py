"""Tells which on-screen text and speech is sure enough to be used.

What was read or heard once may be a misreading, or a text for nobody but the captioner.
"""

from __future__ import annotations

from collections.abc import Set
from difflib import SequenceMatcher

from vidal.caption.words import content_words, lemmas
from vidal.clip import Clip

MIN_FRAMES = 2
"""Stored frames in which a line of on-screen text is read."""
MIN_CONFIDENCE = 0.6
"""Mean probability of the words of a transcript."""
MIN_SHARE = 0.5
"""Share of a text's content words that other views must have to confirm it."""
_SAME_LINE = 0.85


def confirmed(name: str, text: str, clip: Clip, elsewhere: Set[str]) -> str:
    """Return what of a view's ``text`` may be used; ``elsewhere`` holds the lemmas of the clip's other views.

    A line of on-screen text needs `MIN_FRAMES`, a transcript `MIN_CONFIDENCE`; or either has `MIN_SHARE` of its words
    elsewhere. Any other view is returned as it is.
    """
    if name == "ocr_text":
        lines = [line for line in text.split("\n") if _frames_with(line, clip) >= MIN_FRAMES or _is_in(elsewhere, line)]
        return "\n".join(lines)
    if name == "transcript" and (clip.transcript_confidence or 0.0) < MIN_CONFIDENCE and not _is_in(elsewhere, text):
        return ""
    return text


def _is_in(elsewhere: Set[str], text: str) -> bool:
    words = content_words(text)
    return bool(words) and sum(bool(lemmas(word) & elsewhere) for word in words) >= MIN_SHARE * len(words)


def _frames_with(line: str, clip: Clip) -> int:
    """Return in how many stored frames a line was read, if with other letters here and there, or half of it."""
    return len({read.frame for read in clip.ocr_lines if _is_same(_letters(line), _letters(read.text))})


def _is_same(line: str, read: str) -> bool:
    is_part = read in line or line in read
    lengths = sorted((len(line), len(read)))
    return (is_part and lengths[0] * 2 >= lengths[1]) or SequenceMatcher(None, line, read).ratio() >= _SAME_LINE


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
