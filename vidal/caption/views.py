"""The text views of a clip, from which its caption is written: cleaned, truncated and screened.

Titles, hashtags, on-screen text and speech are untrusted. A view that instructs the model instead of describing the
video is withheld entirely, from the prompt and from the merge; so is on-screen text and speech that nothing confirms.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

from vidal.caption.confirmation import confirmed
from vidal.caption.injection import is_instruction
from vidal.caption.labels import is_guess
from vidal.caption.words import HEDGES, lemma_set, tokens
from vidal.clip import Clip

LINK = re.compile(
    r"[a-z][a-z0-9+.-]*://\S*|\bwww\.\S*|\S+@\S+\.\S+"
    r"|\b(?:[\w-]+\.)+(?:com|net|org|info|biz|io|ru|cn|xyz|top|example|evil|co|me|tv|gg|ly|be|app|dev|link|site|shop|fr|de|es|it|nl|pl|br|jp|uk|eu)\b(?:/\S*)?",
    re.IGNORECASE,
)
"""An address: a URL, an e-mail address, or a host name under a top-level domain common in spam."""
# Characters of delimiters, chat templates, mark-up and JSON; captions do not need them.
_STRUCTURE = re.compile(r"[<>{}\[\]|\\`^~#*_=]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One text about the clip: ``quoted`` from an untrusted author, or written by a model from the video or audio."""

    name: str
    text: str
    quoted: bool

    @property
    def is_hedged(self) -> bool:
        """Whether a model expresses doubt; a hedge in quoted text does not count."""
        return not self.quoted and any(word.casefold() in HEDGES for word in tokens(self.text))


def clean(text: str, max_chars: int) -> str:
    """Return one line of plain text, without addresses, control characters and delimiters, cut at a word boundary."""
    plain = ""
    for c in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(c)
        # A degree sign is a symbol to Unicode, and states a temperature.
        if c.isspace() or (c != "°" and category in ("So", "Sk")):
            plain += " "  # line breaks and pictograms
        elif category[0] != "C" and not "\ufe00" <= c <= "\ufe0f":
            plain += c  # neither zero-width and bidi characters nor variation selectors, which hide words
    text = LINK.sub(" ", plain)
    text = " ".join(_STRUCTURE.sub(" ", text).replace('"', "'").split()).strip(" -:;,")
    if len(text) <= max_chars:
        return text
    # With one character more, a word that ends at the limit stays whole.
    return text[: max_chars + 1].rsplit(" ", 1)[0][:max_chars].rstrip(" ,;:-")


def views_of(clip: Clip, max_chars: int, stop_words: Container[str] = ()) -> tuple[list[View], list[str]]:
    """Return the non-empty views of a clip, each of at most ``max_chars``, and the names of the withheld ones.

    Hashtags in ``stop_words`` are omitted.
    """
    # Classifier labels are omitted: video_caption already contains them, weighted over all frames.
    captions = Counter(text for text in clip.frame_captions if not is_guess(text))
    # Frames of one scene have equal captions: each caption once, the most frequent first.
    frames = " ".join(sorted(captions, key=lambda text: (-captions[text], clip.frame_captions.index(text))))
    was_cleaned = clip.title_words is not None or clip.clean_title is not None
    raw_views = (
        ("video_caption", clip.video_caption, False),
        ("frame_captions", frames, False),
        ("title", clip.clean_title if was_cleaned else clip.title, True),
        ("hashtags", " ".join(tag for tag in clip.hashtags or () if tag.casefold() not in stop_words), True),
        ("ocr_text", clip.ocr_text, True),
        ("transcript", clip.transcript, True),
        ("sound_caption", clip.sound_caption, False),
    )
    shown, withheld = [], []
    # A captioning model may copy text from a frame, so its captions are screened as well.
    instructs = {name for name, raw, _ in raw_views if is_instruction(raw or "")}
    # Cleaning may have taken the mark of an instruction away, such as its brackets or its first sentence.
    if is_instruction(clip.title or ""):
        instructs.add("title")
    lemmas_of = {name: lemma_set(raw) for name, raw, _ in raw_views if raw and name not in instructs}
    for name, raw, quoted in raw_views:
        elsewhere = frozenset[str]().union(*(words for other, words in lemmas_of.items() if other != name))
        sure = confirmed(name, raw or "", clip, elsewhere)
        text = clean(sure, max_chars)
        if name in instructs or (raw and not sure):
            withheld.append(name)
        elif tokens(text):
            shown.append(View(name=name, text=text, quoted=quoted))
    return shown, withheld
