"""The guard accepts an LLM's caption only if every content word occurs in a text view of the clip.

It rejects unsupported facts and text that follows an injected instruction. Grammar is not parsed: supported words in a
wrong combination are found only as far as `vidal.caption.binding` goes.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vidal.caption.binding import miscounted, misnegated, reversed_order
from vidal.caption.injection import is_instruction
from vidal.caption.views import LINK, View
from vidal.caption.words import FRAMING_WORDS, FUNCTION_WORDS, HEDGES, content_words, lemma_set, lemmas, tokens

MIN_WORDS = 3
MAX_WORDS = 80
MAX_CHARS = 500
MIN_ENGLISH_SHARE = 0.15
"""Smallest share of English function words; captions in other languages have hardly any."""

# Words that a view permits in the caption because they name the view as the origin of other words.
_LICENSED = {
    "title": "title titled called",
    "hashtags": "tagged",
    "ocr_text": "text written word reads screen",
    "transcript": "say speak speech someone somebody voice word explain tell talk ask",
    "sound_caption": "sound hear",
}
_SEEN = ("video_caption", "frame_captions")
_STRUCTURE = "{}[]<>|\\`^~=_*#"
_PREFACE = re.compile(r"^(?:(?:enhanced |video )?caption\s*:|in (?:the|this) video,|[-–*]+)\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a caption was rejected: a one-word reason and the offending words or figures."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def tidy(text: str, max_sentences: int) -> str:
    """Return the first ``max_sentences`` of an LLM's reply, without preface, quotes or a truncated last sentence."""
    text = unicodedata.normalize("NFKC", text).strip().split("\n")[0].strip()
    text = _PREFACE.sub("", text).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence][:max_sentences]
    if len(sentences) > 1 and not _is_complete(sentences[-1]):
        sentences.pop()
    text = " ".join(sentences)
    return text[:1].upper() + text[1:]


def check(text: str, views: Sequence[View], *, secret: str = "", prompt: str = "") -> Refusal | None:
    """Return why ``text`` is rejected as a caption of a clip with these ``views``, or None if it is accepted.

    ``secret`` is the canary in the prompt, ``prompt`` the fixed text of the prompt.
    """
    return (
        _form(text)
        or _leak(text, secret, prompt)
        or _addressed(text)
        or _loop(text)
        or _language(text)
        or _unsupported(text, views)
        or _overclaim(text, views)
        or _binding(text, [view.text for view in views])
        or _one_sided(text, views)
    )


def _is_complete(sentence: str) -> bool:
    return sentence.rstrip("\"') ").endswith((".", "!", "?"))


def _form(text: str) -> Refusal | None:
    words = len(tokens(text))
    if not words:
        return Refusal(reason="empty", detail="no words")
    if words < MIN_WORDS:
        return Refusal(reason="short", detail=f"{words} words < {MIN_WORDS}")
    if words > MAX_WORDS or len(text) > MAX_CHARS:
        return Refusal(reason="long", detail=f"{words} words, {len(text)} characters")
    if not _is_complete(text):
        return Refusal(reason="truncated", detail=f"ends in {text[-12:]!r}")
    odd = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn", "So") or c in _STRUCTURE})
    return Refusal(reason="characters", detail=" ".join(f"U+{ord(c):04X}" for c in odd)) if odd else None


def _leak(text: str, secret: str, prompt: str) -> Refusal | None:
    if secret and secret.casefold() in text.casefold():
        return Refusal(reason="leak", detail="the prompt's canary")
    shared = _ngrams(text, 6) & _ngrams(prompt, 6)
    return Refusal(reason="leak", detail=" ".join(min(shared))) if shared else None


def _addressed(text: str) -> Refusal | None:
    if address := LINK.search(text):
        return Refusal(reason="url", detail=address.group())
    return Refusal(reason="instruction", detail="addresses the language model") if is_instruction(text) else None


def _loop(text: str) -> Refusal | None:
    words = [word.casefold() for word in tokens(text)]
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    repeated = [" ".join(triple) for triple, count in triples.items() if count > 1]
    repeated += [word for word, after in itertools.pairwise(words) if word == after]
    counts = Counter(word.casefold() for word in content_words(text))
    repeated += [word for word, count in counts.items() if count > 3]
    return Refusal(reason="loop", detail=repeated[0]) if repeated else None


def _language(text: str) -> Refusal | None:
    words = tokens(text)
    foreign = next((c for c in text if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")), None)
    if foreign:
        return Refusal(reason="language", detail=f"{foreign} is not a Latin letter")
    share = sum(word.casefold() in FUNCTION_WORDS for word in words) / len(words)
    if share >= MIN_ENGLISH_SHARE:
        return None
    return Refusal(reason="language", detail=f"English function words {share:.2f} < {MIN_ENGLISH_SHARE:g}")


def _unsupported(text: str, views: Sequence[View]) -> Refusal | None:
    known = _known(views)
    missing = [word for word in content_words(text) if not lemmas(word) & known]
    return Refusal(reason="unsupported", detail=" ".join(dict.fromkeys(missing))) if missing else None


def _overclaim(text: str, views: Sequence[View]) -> Refusal | None:
    """Reject words that only a hedged view supports if the caption states them without a hedge such as "may"."""
    words = tokens(text)
    hedge = next((at for at, word in enumerate(words) if word.casefold() in HEDGES), len(words))
    sure = _known([view for view in views if not view.is_hedged])
    unsure = [word for word in content_words(" ".join(words[:hedge])) if not lemmas(word) & sure]
    return Refusal(reason="overclaim", detail=" ".join(dict.fromkeys(unsure))) if unsure else None


def _one_sided(text: str, views: Sequence[View]) -> Refusal | None:
    """Reject a caption that consists of the words of one untrusted view while a visual caption contributes nothing.

    A caption that obeys an undetected instruction consists of the words of that instruction alone.
    """
    seen = [view for view in views if not view.quoted and not view.is_hedged and view.name in _SEEN]
    claims = [lemmas(word) for word in content_words(text)]
    if not seen or any(claim & _known(seen) for claim in claims):
        return None
    one = next((v.name for v in views if v.quoted and all(c & _known([v]) for c in claims)), None)
    return Refusal(reason="one_sided", detail=f"only words of {one}, none of the video's captions") if one else None


def _binding(text: str, views: Sequence[str]) -> Refusal | None:
    """Reject supported words in a combination that contradicts the views."""
    checks = (("miscounted", miscounted), ("negation", misnegated), ("reversed", reversed_order))
    return next((Refusal(reason=reason, detail=d) for reason, check in checks if (d := check(text, views))), None)


def _known(views: Sequence[View]) -> frozenset[str]:
    """Return the lemmas of the views' words and of the words that the presence of a view permits."""
    return lemma_set(" ".join(f"{view.text} . {_LICENSED.get(view.name, '')}" for view in views))


def vocabulary(views: Sequence[View]) -> list[str]:
    """Return the words that a caption of these views may use, to constrain an LLM's decoding."""
    words = [word for view in views for word in tokens(view.text)]
    licensed = [word for view in views for word in _LICENSED.get(view.name, "").split()]
    return sorted({*words, *licensed, *FUNCTION_WORDS, *FRAMING_WORDS})


def _ngrams(text: str, length: int) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in tokens(text)]
    return set(zip(*(words[start:] for start in range(length)), strict=False))
