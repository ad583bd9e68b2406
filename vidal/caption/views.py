"""The text views of a clip, cleaned, bounded and screened: what a caption may be written from.

Titles, hashtags, text in the picture and speech are written by strangers. A view that speaks to the
machine instead of about the video is withheld whole, from the prompt and from the merge alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

from vidal.caption.injection import speaks_to_the_machine
from vidal.caption.labels import NOTHING_IN_VIDEO, is_guess
from vidal.caption.words import HEDGES, tokens
from vidal.clip import Clip

LINK = re.compile(
    r"[a-z][a-z0-9+.-]*://\S*|\bwww\.\S*|\S+@\S+\.\S+"
    r"|\b(?:[\w-]+\.)+(?:com|net|org|info|biz|io|ru|cn|xyz|top|example|evil|co|me|tv|gg|ly|be|app|dev|link|site|shop)\b(?:/\S*)?",
    re.IGNORECASE,
)
"""An address: with a scheme, as an e-mail, or a name under a top-level domain that spam uses."""
# What delimiters, chat templates, mark-up and JSON are made of; no caption needs it.
_STRUCTURE = re.compile(r"[<>{}\[\]|\\`^~#*_=]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One text about the clip; ``quoted`` where a stranger wrote it, else a model made it from picture or sound."""

    name: str
    text: str
    quoted: bool

    @property
    def is_hedged(self) -> bool:
        """Whether a model says that it is not sure; a stranger's "may" is part of a quotation."""
        return not self.quoted and any(word.casefold() in HEDGES for word in tokens(self.text))


def clean(text: str, max_chars: int) -> str:
    """One line of plain text: no addresses, control or format characters, nor what delimiters are made of."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_plain_character(c) for c in text)
    text = LINK.sub(" ", text)
    text = " ".join(_STRUCTURE.sub(" ", text).replace('"', "'").split()).strip(" -:;,")
    if len(text) <= max_chars:
        return text
    return text[: max_chars + 1].rsplit(" ", 1)[0][:max_chars].rstrip(" ,;:-")


def _plain_character(c: str) -> str:
    if c.isspace() or (c != "°" and unicodedata.category(c) in ("So", "Sk")):
        return " "  # a line break; a pictogram
    # Zero-width and bidi characters, and the selectors that make a sign a pictogram.
    return "" if unicodedata.category(c)[0] == "C" or "\ufe00" <= c <= "\ufe0f" else c


def views_of(clip: Clip, max_chars: int, stop_words: Container[str] = ()) -> tuple[list[View], list[str]]:
    """The views of a clip that hold text, and the names of those withheld; ``stop_words`` are no hashtags."""
    shown, withheld = [], []
    for name, raw, quoted in _raw_views(clip, stop_words):
        text = clean(raw, max_chars)
        # A captioner may read the stranger's words off the picture, so no view is above suspicion.
        if speaks_to_the_machine(raw):
            withheld.append(name)
        elif tokens(text):
            shown.append(View(name=name, text=text, quoted=quoted))
    # That nothing was recognised is worth saying only where there is nothing else to say.
    telling = [view for view in shown if view.text != NOTHING_IN_VIDEO]
    return telling or shown, withheld


def _raw_views(clip: Clip, stop_words: Container[str]) -> list[tuple[str, str, bool]]:
    # Guessed labels stand in video_caption already, weighed over all frames.
    captions = Counter(text for text in clip.frame_captions if not is_guess(text))
    # Eight frames of one scene say the same thing: each saying once, the most frequent first.
    frames = " ".join(sorted(captions, key=lambda text: (-captions[text], clip.frame_captions.index(text))))
    was_cleaned = clip.title_words is not None or clip.clean_title is not None
    return [
        ("video_caption", clip.video_caption or "", False),
        ("frame_captions", frames, False),
        ("title", (clip.clean_title if was_cleaned else clip.title) or "", True),
        ("hashtags", " ".join(tag for tag in clip.hashtags or () if tag.casefold() not in stop_words), True),
        ("ocr_text", clip.ocr_text or "", True),
        ("transcript", clip.transcript or "", True),
        ("sound_caption", clip.sound_caption or "", False),
    ]
