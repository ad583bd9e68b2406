"""Chooses a clip's caption by what each candidate states: an LLM's text, the merge, or the title as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vidal.caption.guard import Refusal
from vidal.caption.merge import sentence_of, statements
from vidal.caption.support import unsupported
from vidal.caption.views import View
from vidal.caption.words import content_words, lemma_set, lemmas

_SPEAKER = frozenset(["i", "me", "my", "we", "us", "our", "you", "your"])
"""Words of a title's author, of whom a caption speaks in the third person, if at all."""


class ChosenCaption(NamedTuple):
    """A caption, who wrote it, and why the LLM's text is not it."""

    caption: str | None
    source: Literal["llm", "merge", "title"] | None
    refusal: Refusal | None = None


def choose(views: Sequence[View], text: str | None, min_fact_share: float) -> ChosenCaption:
    """Return the caption for a clip with these ``views``, given an LLM's ``text`` that the guard accepted, or None.

    The facts are the content words of what the merge states. The LLM's text is chosen if it states at least
    ``min_fact_share`` of them in words that mean the same, none more often than the merge, and one that the title
    lacks; else the merge, if it states one that the title lacks; else the title, which says as much in fewer words.
    Views that state nothing, such as silence alone, give no caption.
    """
    stated = statements(views)
    refusal = _says_less(text, stated, min_fact_share) if text else None
    if text and refusal is None:
        return ChosenCaption(text, "llm")
    title = next((view.text for view in views if view.name == "title"), None)
    if title and not stated.keys() - {"title"}:
        return ChosenCaption(title, "title", refusal)
    return ChosenCaption(sentence_of(stated), "merge", refusal) if stated else ChosenCaption(None, None, refusal)


def _says_less(text: str, stated: Mapping[str, str], min_fact_share: float) -> Refusal | None:
    """Return why an LLM's text is no better than what the merge states, or None if it is."""
    if min_fact_share == 0:
        return None
    if not stated.keys() - {"title"}:
        return Refusal(reason="nothing_new", detail="no view but the title states anything")
    told = " ".join(stated.values())
    facts = {word.casefold() for word in content_words(told)} - _SPEAKER
    missing = [word for word in map(str.casefold, unsupported(told, [text])) if word in facts]
    share = 1 - len(set(missing)) / max(1, len(facts))
    if share < min_fact_share:
        return Refusal(
            reason="says_less", detail=f"{share:.2f} of the facts, without {' '.join(dict.fromkeys(missing))}"
        )
    new = [word for name, words in stated.items() if name != "title" for word in content_words(words)]
    if not any(lemmas(word) & lemma_set(text) for word in new):
        return Refusal(reason="nothing_new", detail="only words of the title")
    times, due = (Counter(map(str.casefold, content_words(words))) for words in (text, told))
    if repeated := [word for word, count in times.items() if count > max(1, due[word])]:
        return Refusal(reason="says_twice", detail=" ".join(repeated))
    return None
