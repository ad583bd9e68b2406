"""Merges the text views of a clip into one sentence by rules, without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vidal.caption.sound import named_sounds
from vidal.caption.support import unsupported
from vidal.caption.views import View
from vidal.caption.words import content_words, lemma_set, lemmas

MERGE_NAME = "vidal merge 3"
"""Value of `Clip.caption_model` for a merged caption, and for a title that was taken as it is."""
MAX_QUOTE_WORDS = 20
_VIDEO_FIRST = re.compile(r"^(?:a |an |the )?(?:short )?(?:video|clip)\b", re.IGNORECASE)
_ADDITIONS = {
    "ocr_text": 'with the text "{}" on the screen',
    "transcript": 'with somebody saying "{}"',
    "sound_caption": "with a sound track of {}",
}


def statements(views: Sequence[View]) -> dict[str, str]:
    """Return what the merge states of the views, by the name of each, without what another says already.

    Of a sound it states what is heard, not what is missing; of a guess at what is seen, what the title does not imply.
    """
    texts = {view.name: view.text for view in views}
    seen = texts.get("video_caption") or texts.get("frame_captions", "").split(". ")[0]
    title = texts.get("title", "")
    is_guess = any(view.is_hedged for view in views if view.text == texts.get("video_caption"))
    found: dict[str, str] = {}
    if content_words(seen) and not (is_guess and title and not unsupported(seen, [title])):
        found["seen"] = seen.strip().rstrip(".!? ")
    stated = lemma_set(found.get("seen", ""))
    for name in ("title", "hashtags", *_ADDITIONS):
        text = named_sounds(texts.get(name, "")) if name == "sound_caption" else texts.get(name, "")
        is_new = any(not lemmas(word) & stated for word in content_words(text))
        # Hashtags mostly repeat the title, so they are used only if there is neither title nor visual caption.
        if not is_new or (name == "hashtags" and ("seen" in found or title)):
            continue
        words = text.split()
        found[name] = " ".join(words[:MAX_QUOTE_WORDS]).rstrip(".") + (" …" if len(words) > MAX_QUOTE_WORDS else "")
        # After a transcript, "some speech" in the sound caption is a repetition.
        stated |= lemma_set(f"{text} some speech" if name == "transcript" else text)
    return found


def merge(views: Sequence[View]) -> str | None:
    """Return one sentence that states the views without repetition, or None if the views say nothing."""
    stated = statements(views)
    return sentence_of(stated) if stated else None


def sentence_of(stated: Mapping[str, str]) -> str:
    """Return the sentence that makes these `statements`."""
    head = stated.get("seen", "a video")
    is_video = bool(_VIDEO_FIRST.match(head))
    quoted = {"title": ', titled "{}"' if is_video else ', in a video titled "{}"', "hashtags": ', tagged "{}"'}
    text = head + "".join(template.format(stated[name]) for name, template in quoted.items() if name in stated)
    additions = [template.format(stated[name]) for name, template in _ADDITIONS.items() if name in stated]
    text += "".join(f", {'and ' if k else ''}{part}" for k, part in enumerate(additions))
    return text[:1].upper() + text[1:] + "."
