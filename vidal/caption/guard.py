"""The guard accepts an LLM's caption only if every content word occurs in a text view of the clip.

It rejects unsupported facts and text that follows an injected instruction. Grammar is not parsed: supported words in a
wrong combination are found only as far as `vidal.caption.binding` goes.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vidal.caption.attribution import LICENSED, SEEN, Sentence
from vidal.caption.binding import misattached, misnegated, swapped_roles
from vidal.caption.injection import is_instruction
from vidal.caption.links import crossed
from vidal.caption.spelling import edited, in_digits
from vidal.caption.translation import in_english
from vidal.caption.views import LINK, View
from vidal.caption.words import FRAMING_WORDS, FUNCTION_WORDS, content_words, lemma_set, lemmas, tokens

MIN_WORDS = 3
MAX_WORDS = 80
MAX_CHARS = 500
MIN_ENGLISH_SHARE = 0.1
"""Smallest share of English function words; captions in other languages have hardly any."""

# Of JSON, mark-up and chat templates, which a sentence does not need.
_STRUCTURE = "{}[]<>|\\`^~=_*#"
_PREFACE = re.compile(r"^(?:(?:enhanced |video )?caption\s*:|in (?:the|this) video,|[-–*]+)\s*", re.IGNORECASE)
# Text about the caption or its writer, and calls on the audience.
_META = re.compile(
    r"\b(?:this|the|a|an|my) (?:caption|prompt|summary)\b|\bcaption for\b|\bas an ai\b|\bI(?:'m| am)? (?:believe"
    r"|think|cannot|can't"
    r"|can only|unable|sorry|assume)\b|\bno (?:title|transcript|caption|information|audio|views?) (?:is|was|were)\b"
    r"|\b(?:given|provided|available) (?:to me|text|information|notes|views|data)\b"
    r"|\b(?:text|information|notes|views|data) (?:given|provided|available)\b|\blanguage model\b",
    re.IGNORECASE,
)
_CALL = re.compile(
    r"^(?:(?:come|go) (?:and|on)|(?!(?:in|on|at|with|from|during|through) )[a-z]+ (?:your|this|these|us|me|now|out|our)"
    r"|don't|let's|watch (?:until|till)|stay"
    r" tuned)\b|!\W*$"
    r"|\b(?:link in bio|(?:like|subscribe|follow|share) (?:and|for|now|us|to)|swipe up|click (?:here|the link))\b",
    re.IGNORECASE,
)
# A video may be called short, and a look at something; things may be called a group or a pair of shoes.
_FRAME = re.compile(
    r"\b(?:short (?=video|clip|film|recording)|(?<=a )(?:look|glimpse) (?:at|of|into|inside)|close[ -]?up (?=of)"
    r"|(?:compilation|montage|series) (?=of)|(?:bunch|group|handful|number|bit|piece) of|on top(?= of)"
    r"|pair of(?= (?:\w+ )?(?:shoes|boots|sneakers|trousers|pants|jeans|glasses|binoculars|scissors|gloves|socks)))\b",
    re.IGNORECASE,
)
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
    # Cheap checks of the text come first; only the first fault is asked for, so a check may rely on those before it.
    faults = itertools.chain(_faults_of_text(text, secret, prompt), _faults_against(text, views))
    return next((Refusal(reason=reason, detail=detail) for reason, detail in faults), None)


def _faults_of_text(text: str, secret: str, prompt: str) -> Iterator[tuple[str, str]]:
    """Yield reason and detail of what no caption may be or contain, whatever the views say."""
    words = [word.casefold() for word in tokens(text)]
    if not words:
        yield "empty", "no words"
    if len(words) < MIN_WORDS:
        yield "short", f"{len(words)} words < {MIN_WORDS}"
    if len(words) > MAX_WORDS or len(text) > MAX_CHARS:
        yield "long", f"{len(words)} words, {len(text)} characters"
    if not _is_complete(text):
        yield "truncated", f"ends in {text[-12:]!r}"
    odd = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn", "So") or c in _STRUCTURE})
    if odd:
        yield "characters", " ".join(f"U+{ord(c):04X}" for c in odd)
    if secret and secret.casefold() in text.casefold():
        yield "leak", "the prompt's canary"
    if shared := _ngrams(text, 6) & _ngrams(prompt, 6):
        yield "leak", " ".join(min(shared))
    if address := LINK.search(text):
        yield "url", address.group()
    # Without what it quotes: a title may well speak of a caption, or call on viewers.
    plain = re.sub(r"(?<!\w)'(?:[^']|\b'\b)+'(?!\w)", " ", text)
    if about := _META.search(plain):
        yield "meta", about.group()
    sentences = _SENTENCE_END.split(plain)
    if call := next((found for sentence in sentences if (found := _CALL.search(sentence))), None):
        yield "advert", call.group()
    if is_instruction(text):
        yield "instruction", "addresses the language model"
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    repeated = [" ".join(triple) for triple, n in triples.items() if n > 1]
    repeated += [word for word, after in itertools.pairwise(words) if word == after]
    repeated += [word for word, n in Counter(word.casefold() for word in content_words(text)).items() if n > 3]
    if repeated:
        yield "loop", repeated[0]
    foreign = next((c for c in text if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")), None)
    if foreign:
        yield "language", f"{foreign} is not a Latin letter"
    share = sum(word in FUNCTION_WORDS for word in words) / len(words)
    if share < MIN_ENGLISH_SHARE:
        yield "language", f"English function words {share:.2f} < {MIN_ENGLISH_SHARE:g}"


def _faults_against(text: str, views: Sequence[View]) -> Iterator[tuple[str, str]]:
    """Yield reason and detail of what the text claims beyond, or against, its ``views``."""
    text = in_digits(_FRAME.sub(" ", text))
    views, unknown = in_english(views, text)
    views = [View(name=view.name, text=edited(view.text), quoted=view.quoted) for view in views]
    sentences = [Sentence(sentence, views, unknown) for sentence in _SENTENCE_END.split(text)]
    if missing := [word for sentence in sentences for word in sentence.unsupported()]:
        yield "unsupported", " ".join(dict.fromkeys(missing))
    if unattributed := [word for sentence in sentences for word in sentence.unattributed()]:
        yield "unattributed", " ".join(dict.fromkeys(unattributed))
    if unsure := [word for sentence in sentences for word in sentence.overclaimed()]:
        yield "overclaim", " ".join(dict.fromkeys(unsure))
    for sentence in sentences:
        if speaker := sentence.animal_that_speaks():
            yield "speaker", f"a {speaker} does not speak"
    # Supported words can still contradict the views by the way they are combined.
    texts = [view.text for view in views]
    # Speech tells who does what elsewhere.
    shown = [view.text for view in views if view.name != "transcript"]
    for sentence in sentences:
        if wrong := misattached(sentence.text, texts):
            yield "misattached", wrong
        if wrong := crossed(sentence.text, texts):
            yield "crossed", wrong
        if wrong := misnegated(sentence.text, texts):
            yield "negation", wrong
        if wrong := swapped_roles(sentence.text, shown):
            yield "reversed", wrong
    if unreal := [word for sentence in sentences for word in sentence.unreal()]:
        yield "unreal", " ".join(dict.fromkeys(unreal))
    # A caption that obeys an undetected instruction consists of that untrusted view's words alone, while a visual
    # caption contributes nothing.
    seen = [view for view in views if not view.quoted and not view.is_hedged and view.name in SEEN]
    claims = content_words(text)
    if seen and not any(_is_of(word, seen) for word in claims):
        one = next((v.name for v in views if v.quoted and all(_is_of(word, [v]) for word in claims)), None)
        if one:
            yield "one_sided", f"only words of {one}, none of the video's captions"


def _is_complete(sentence: str) -> bool:
    return sentence.rstrip("\"') ").endswith((".", "!", "?"))


def _is_of(word: str, views: Sequence[View]) -> bool:
    """Return whether ``word`` is one of the views' words, or of those that they permit."""
    texts = (f"{view.text} . {LICENSED.get(view.name, '')}" for view in views)
    return bool(lemmas(word) & lemma_set(" ".join(texts)))


def vocabulary(views: Sequence[View]) -> list[str]:
    """Return the words that a caption of these views may use, to constrain an LLM's decoding."""
    words = [word for view in views for word in tokens(view.text)]
    licensed = [word for view in views for word in LICENSED.get(view.name, "").split()]
    return sorted({*words, *licensed, *FUNCTION_WORDS, *FRAMING_WORDS})


def _ngrams(text: str, length: int) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in tokens(text)]
    return set(zip(*(words[start:] for start in range(length)), strict=False))
