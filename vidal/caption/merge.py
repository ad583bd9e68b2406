"""The merge: one readable sentence out of the views of a clip, by rule alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidal.caption.views import View
from vidal.caption.words import content_words, lemma_set, lemmas

MERGE_NAME = "vidal merge 2"
"""What `Clip.caption_model` says of a caption by rule."""
MAX_QUOTE_WORDS = 20
_VIDEO_FIRST = re.compile(r"^(?:a |an |the )?(?:short )?(?:video|clip)\b", re.IGNORECASE)


def merge(views: Sequence[View]) -> str | None:
    """The views as one sentence that repeats nothing; None if there is no view to write from."""
    texts = {view.name: view.text for view in views}
    picture = texts.get("video_caption") or texts.get("frame_captions", "").split(". ")[0]
    head = _plain(picture) or "a video"
    told = lemma_set(head)
    parts: list[str] = []
    for name, form in _forms(head):
        text = texts.get(name, "")
        is_new = any(not lemmas(word) & told for word in content_words(text))
        # Hashtags mostly repeat the title, and speak only where nobody else does.
        if not is_new or (name == "hashtags" and (picture or "title" in texts)):
            continue
        parts.append(form.format(_quote(text).replace("; ", " in which ") if name == "sound_caption" else _quote(text)))
        # After what is said, "some speech" of the sound track is no news.
        told |= lemma_set(f"{text} some speech" if name == "transcript" else text)
    if not told:
        return None
    return _sentence(head + _joined(parts))


def _forms(head: str) -> list[tuple[str, str]]:
    titled = ', titled "{}"' if _VIDEO_FIRST.match(head) else ', in a video titled "{}"'
    return [
        ("title", titled),
        ("hashtags", ', tagged "{}"'),
        ("ocr_text", 'with the text "{}" on the screen'),
        ("transcript", 'with somebody saying "{}"'),
        ("sound_caption", "with a sound track of {}"),
    ]


def _joined(parts: list[str]) -> str:
    """Appositions as they are, then ``with … , … and …``."""
    head = "".join(part for part in parts if part.startswith(","))
    tail = [part for part in parts if not part.startswith(",")]
    return head + "".join(f", {'and ' if index else ''}{part}" for index, part in enumerate(tail))


def _plain(text: str) -> str:
    return text.strip().rstrip(".!? ")


def _quote(text: str) -> str:
    words = text.split()
    cut = " ".join(words[:MAX_QUOTE_WORDS]) + (" …" if len(words) > MAX_QUOTE_WORDS else "")
    return _plain(cut)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
