"""Merges the text views of a clip into one sentence by rules, without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidal.caption.views import View
from vidal.caption.words import content_words, lemma_set, lemmas

MERGE_NAME = "vidal merge 2"
"""Value of `Clip.caption_model` for a merged caption."""
MAX_QUOTE_WORDS = 20
_VIDEO_FIRST = re.compile(r"^(?:a |an |the )?(?:short )?(?:video|clip)\b", re.IGNORECASE)


def merge(views: Sequence[View]) -> str | None:
    """Return one sentence that states the views without repetition, or None if the views say nothing."""
    texts = {view.name: view.text for view in views}
    seen = texts.get("video_caption") or texts.get("frame_captions", "").split(". ")[0]
    head = _plain(seen) or "a video"
    stated = lemma_set(head)
    appositions: list[str] = []
    additions: list[str] = []
    for name, template in {
        "title": ', titled "{}"' if _VIDEO_FIRST.match(head) else ', in a video titled "{}"',
        "hashtags": ', tagged "{}"',
        "ocr_text": 'with the text "{}" on the screen',
        "transcript": 'with somebody saying "{}"',
        "sound_caption": "with a sound track of {}",
    }.items():
        text = texts.get(name, "")
        is_new = any(not lemmas(word) & stated for word in content_words(text))
        # Hashtags mostly repeat the title, so they are used only if there is neither title nor visual caption.
        if not is_new or (name == "hashtags" and (seen or "title" in texts)):
            continue
        words = text.split()
        quote = _plain(" ".join(words[:MAX_QUOTE_WORDS]) + (" …" if len(words) > MAX_QUOTE_WORDS else ""))
        part = template.format(quote.replace("; ", " in which ") if name == "sound_caption" else quote)
        (appositions if part.startswith(",") else additions).append(part)
        # After a transcript, "some speech" in the sound caption is a repetition.
        stated |= lemma_set(f"{text} some speech" if name == "transcript" else text)
    if not stated:
        return None
    text = head + "".join(appositions) + "".join(f", {'and ' if k else ''}{part}" for k, part in enumerate(additions))
    return text[:1].upper() + text[1:] + "."


def _plain(text: str) -> str:
    return text.strip().rstrip(".!? ")
