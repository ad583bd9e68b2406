"""Holds each word of a sentence against the views that the sentence may draw on for it.

What was seen, and what title and on-screen text say, may be stated. A hashtag shows nothing: its words stand only in a
sentence that says that the video is tagged so. A subject known from speech alone stands only in a sentence that says
that somebody says so; what a model guesses, only after a hedge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from vidal.caption.lexicon import ANIMALS, is_known, is_noun, is_usually, senses
from vidal.caption.reality import actual, is_in_doubt, without_past
from vidal.caption.support import (
    forms_of,
    is_animate,
    is_exact,
    is_statement,
    is_supported,
    is_used_as_verb,
    known,
    together,
)
from vidal.caption.views import View
from vidal.caption.words import (
    FRAMING_WORDS,
    FUNCTION_WORDS,
    HEDGES,
    NEGATIONS,
    content_words,
    lemma_set,
    lemmas,
    number,
    tokens,
)

SEEN = ("video_caption", "frame_captions")
LICENSED = {
    "title": "title titled called billed name promise tell say mention maker",
    "hashtags": "tagged tag hashtag",
    "ocr_text": "text written word reads screen display list sign",
    "transcript": "speaker narrator say speak speech someone somebody voice word explain tell talk ask name",
    "sound_caption": "sound hear heard",
}
"""Words that a view permits because they name the view as the origin of other words."""
_SPEECH = frozenset(["voice", "speech", "speaker", "according"])
_SAYING = frozenset(
    ["say", "tell", "speak", "talk", "ask", "explain", "state", "mention", "note", "describe", "discuss", "comment",
     "call", "name", "promise", "report", "answer", "reply", "introduce", "announce", "declare", "claim", "shout",
     "whisper", "advise", "recommend", "warn", "thank", "admit", "add", "express", "argue", "suggest", "instruct",
     "list", "address"]
)  # fmt: skip
NUMBERS_OF_PEOPLE = ("couple", "duo", "trio")
_TAGGED = frozenset(["tagged", "tag", "tags", "hashtag", "hashtags"])
_TRANSLATED = re.compile(r"\b[Tt]itled?\b[^,;]*?\bin ([A-Z][a-z]+\b(?:(?:[^',;]|\w'\w)*'.+'|[^,;]*))")
_CLAUSE = re.compile(r"[,;:]\s|\b(?:while|as|and|but|where|when|after|before)\b")
_TOLERANT_FROM = 7
"""Content words of a sentence from which one may have no support."""
_HEDGE = re.compile(rf"\b(?:{'|'.join(sorted(HEDGES))})\b", re.IGNORECASE)


class Sentence:
    """One sentence of a caption and the ``views`` of its clip, with the number of their words of unknown meaning."""

    def __init__(self, text: str, views: Sequence[View], untranslated: int = 0) -> None:
        self._views = views
        self._untranslated = untranslated
        self._translation = self._translated(text)
        self.text = text.replace(self._translation, " ") if self._translation else text
        self._words = tokens(self.text)

    def _translated(self, text: str) -> str:
        """Return what the sentence gives as the translation of a title in another language; it cannot be checked."""
        title = " ".join(view.text for view in self._views if view.name == "title")
        found = _TRANSLATED.search(text)
        return found[1] if found and is_foreign(title) else ""

    @cached_property
    def _forms(self) -> list[frozenset[str]]:
        return list(forms_of(self._words))

    @cached_property
    def _claims(self) -> list[int]:
        """Positions of the words with content."""
        folded = [word.casefold() for word in self._words]
        # The number of "a 7-year-old" is all that it states.
        ages = [
            at for at, word in enumerate(folded[:-1]) if word in ("year", "years") and folded[at + 1] in ("old", "olds")
        ]
        old = {*ages, *(at + 1 for at in ages)}
        without_content = FUNCTION_WORDS | FRAMING_WORDS
        return [at for at, w in enumerate(self._words) if w.casefold() not in without_content and at not in old]

    def _without(self, views: Sequence[View], claims: Sequence[int]) -> list[int]:
        """Return which of the claims these views do not support."""
        by = known(tuple(view.text for view in views))
        licensed = lemma_set(" ".join(LICENSED.get(view.name, "") for view in views))
        can_say = any(view.name in ("transcript", "title") or "speak" in view.text for view in views)
        return [
            at
            for at in claims
            if not self._forms[at] & licensed
            and not is_supported(self._words[at], self._forms[at], by, is_name=at > 0 and self._words[at][0].isupper())
            and not (can_say and self._says(at))
            and not self._is_sum(at, views)
        ]

    def _is_sum(self, at: int, views: Sequence[View]) -> bool:
        """Return whether a number counts what a view names one by one."""
        value = number(self._words[at])
        if value not in ("2", "3", "4"):
            return False
        after = range(at + 1, min(at + 4, len(self._words)))
        nouns = [n for n in after if any(map(is_noun, lemmas(self._words[n]))) and not is_used_as_verb(self._words, n)]
        is_of_people = not nouns or (self._words[at].isalpha() and self._words[at].casefold() in NUMBERS_OF_PEOPLE)
        noun = "people" if is_of_people else self._words[nouns[0]]
        return any(together(view.text, noun) == int(value) for view in views)

    def _says(self, at: int) -> bool:
        return bool(lemmas(self._words[at]) & _SAYING) and is_used_as_verb(self._words, at)

    def _speaker(self, at: int) -> int | None:
        """Return the position of who says what the verb at a position says: a person, an animal or a voice; or None."""
        candidates = [n for n in range(at) if self._words[n].casefold() in _SPEECH or is_animate(self._words[n])]
        # In "penguins pass a keeper, one of them asking" it is the penguins.
        is_pronoun = at > 0 and self._words[at - 1].casefold() in ("them", "it", "which")
        return (candidates[0] if is_pronoun else candidates[-1]) if candidates else None

    def _is_name(self, word: str) -> bool:
        """Return whether a word has a capital in a view, and not only as the first of it or as one of many."""
        return any(
            word[:1].isupper() and re.search(rf"(?:[a-z]\S* |: |vs\.? ){re.escape(word)}\b", view.text)
            for view in self._views
        )

    @cached_property
    def _missing(self) -> list[int]:
        return self._without(self._views, self._claims)

    def unsupported(self) -> list[str]:
        """Return the words that no view supports, except one in a sentence of many.

        A paraphrase mostly has a word of its own; invention takes two or more, or is a name, a number or a being.
        """
        words = [self._words[at] for at in self._missing]
        # A word without support may be the translation of one that the lexicon lacks.
        is_few = len(words) <= self._untranslated and len(words) * 3 <= len(self._claims) * 2
        if is_few and not any(is_exact(word) or is_animate(word) for word in words):
            return []
        if len(words) != 1 or words[0][0].isupper() or is_exact(words[0]) or is_animate(words[0]):
            return words
        # A hashtag such as #beachlife is where an invented beach comes from.
        is_of_tag = any(words[0].casefold() in view.text.casefold() for view in self._views if view.name == "hashtags")
        return [] if len(self._claims) >= _TOLERANT_FROM and not is_of_tag else words

    def unattributed(self) -> list[str]:
        """Return the words that only hashtags support, or the subject that only speech does, unless it is said so."""
        if not any(view.name in SEEN and content_words(without_guesses(view)) for view in self._views):
            return []
        words = {word.casefold() for word in self._words}
        unspoken = [view for view in self._views if view.name != "transcript"]
        # The speaker may not come from the speech: "the mayor thanks us" does not show a mayor.
        said = [self._speaker(at) for at in range(len(self._words)) if self._says(at)]
        is_spoken = bool(words & _SPEECH) or any(at is None or not self._without(unspoken, [at]) for at in said)
        wrong = []
        if not words & _TAGGED:
            wrong += self._without([view for view in self._views if view.name != "hashtags"], self._claims)
        if not is_spoken:
            unseen = self._without(unspoken, self._claims)
            wrong += [at for at in unseen if at in self._subjects]
        return [self._words[at] for at in wrong if at not in self._missing]

    @cached_property
    def _subjects(self) -> set[int]:
        """Positions of the first noun of each clause."""
        starts = [0, *(len(tokens(self.text[: clause.end()])) for clause in _CLAUSE.finditer(self.text))]
        forms = {at: lemmas(self._words[at]) for at in self._claims if not is_used_as_verb(self._words, at)}
        # A word that the lexicon lacks is a name.
        nouns = [at for at, of in forms.items() if any(map(is_noun, of)) or not any(map(is_known, of))]
        return {next((at for at in nouns if at >= start), -1) for start in starts}

    def overclaimed(self) -> list[str]:
        """Return the words that only a guess supports, if no hedge comes before them."""
        hedge = next((at for at, word in enumerate(self._words) if word.casefold() in HEDGES), len(self._words))
        sure = [View(name=v.name, text=without_guesses(v), quoted=v.quoted) for v in self._views]
        early = [at for at in self._claims if at < hedge and at not in self._missing]
        return [self._words[at] for at in self._without(sure, early)]

    def unreal(self) -> list[str]:
        """Return the words of a statement that the views only ask, plan, imagine or deny."""
        if is_in_doubt(self.text) or not is_statement(self._words):
            return []
        is_denial = any(word.casefold() in NEGATIONS | {"against"} or word.endswith("n't") for word in self._words)
        told = [without_past(v.text, self.text) if v.name == "transcript" else v.text for v in self._views]
        real = [
            actual(text, is_denial=is_denial) if v.quoted else text for v, text in zip(self._views, told, strict=True)
        ]
        views = [View(name=v.name, text=text, quoted=v.quoted) for v, text in zip(self._views, real, strict=True)]
        said, all_said = (known(tuple(view.text for view in of)).lemmas for of in (views, self._views))
        # What is only asked is no answer, though a synonym of it stands elsewhere.
        doubted = {at for at in self._claims if self._forms[at] & all_said and not self._forms[at] & said}
        doubted |= set(self._without(views, self._claims)) - set(self._missing)
        return [self._words[at] for at in sorted(doubted)]

    def animal_that_speaks(self) -> str | None:
        """Return the animal to which the sentence gives speech, or None."""
        for at in range(len(self._words)):
            speaker = self._speaker(at) if self._says(at) else None
            if speaker is None:
                continue
            word = self._words[speaker]
            if not self._is_name(word) and any(is_usually(lemma, ANIMALS) for lemma in lemmas(word)):
                return word
        return None


def without_guesses(view: View) -> str:
    """Return the text of a model's view without what follows a hedge in its clause."""
    if view.quoted:
        return view.text
    sure = []
    for clause in re.split(r"[;.,]\s+", view.text):
        hedge = _HEDGE.search(clause)
        if not hedge:
            sure.append(clause)
            continue
        sure.append(clause[: hedge.start()])
        # In "a performer who may be a woman sings" the guess ends before the verb.
        relative = re.match(r"\W*be an? [a-z-]+ (.*)", clause[hedge.end() :])
        if relative and re.search(r"\b(?:who|which|that) $", clause[: hedge.start()]):
            sure.append(relative[1])
    return "; ".join(sure)


def is_foreign(text: str) -> bool:
    """Return whether most words of ``text`` are not English."""
    words = [word for word in tokens(text) if word.isalpha()]
    english = sum(word.casefold() in FUNCTION_WORDS or any(map(senses, lemmas(word))) for word in words)
    return bool(words) and english < len(words) / 2
