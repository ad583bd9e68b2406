"""Glosses Spanish, German, French, Italian and Portuguese views word by word, to check English captions against them.

``translations.txt`` has a line for each meaning: its English words and those of each language. Of several English words
the one of the caption is taken. What the lexicon lacks stays, unless it resembles a word of the caption.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidal.caption.lexicon import is_known, is_verb, senses
from vidal.caption.views import View
from vidal.caption.words import FUNCTION_WORDS, content_words, lemma_set, lemmas, number, tokens

_FOLDER = Path(__file__).parent
LANGUAGES = ("es", "de", "fr", "it", "pt")
_LONGEST = 4
"""Words of the longest entry."""
# Endings of verbs, adjectives and nouns, the longest first; what is left must have three letters.
_ROMANCE = """
ieron aron aban iendo ando endo indo eremo iamo amos emos imos ados adas idos idas ates ato ata ati ate uto
uta ito ita iti ite ado ada ido ida are ere ire ant ent ons aba ava ia io ou eu ez er ir re ar ees es os as an
en on ee is it a e i o s x t n
"""
_GERMAN = "enden ende est ern ten tet te en er es em et e n s t"
_ENDINGS = {language: (_GERMAN if language == "de" else _ROMANCE).split() for language in LANGUAGES}
_INFINITIVES = {
    "es": re.compile("[aei]r$"),
    "de": re.compile("(?:en|[rl]n)$"),
    "fr": re.compile("(?:[ei]r|re)$"),
    "it": re.compile("[aei]re$"),
    "pt": re.compile("[aei]r$"),
}
_PARTICIPLES = (
    "ado",
    "ada",
    "ados",
    "adas",
    "ido",
    "ida",
    "idos",
    "idas",
    "ato",
    "ata",
    "ati",
    "ate",
    "uto",
    "uta",
    "ito",
    "ee",
)
_BY = frozenset(["por", "par", "von", "dal", "dai", "dalla", "dagli", "pelo", "pela", "pelos", "pelas"])
# In "l'eau" the article is a word of its own.
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_])")


@dataclass(frozen=True, slots=True)
class _Lexicon:
    """The function words of a language, the English of its words by folded form and by stem, and which are verbs."""

    function_words: frozenset[str]
    words: dict[str, tuple[str, ...]]
    stems: dict[str, tuple[str, ...]]
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Gloss:
    """A view's text in English words, how many of its words are unknown, and how many known ones no caption has."""

    text: str
    unknown: int
    unused: int


@functools.cache
def _lexicons() -> dict[str, _Lexicon]:
    rows = [line.split("|") for line in (_FOLDER / "translations.txt").read_text(encoding="utf-8").splitlines()]
    function_words = (_FOLDER / "translations-function-words.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for column, (language, small) in enumerate(zip(LANGUAGES, function_words, strict=True), 1):
        words: dict[str, list[str]] = {}
        stems: dict[str, list[str]] = {}
        verbs = set[str]()
        for row in rows:
            english = row[0].split(",")
            keys = [" ".join(map(_folded, tokens(_APOSTROPHE.sub(" ", form)))) for form in row[column].split(",")]
            is_of_verb = is_verb(english[0]) and any(_INFINITIVES[language].search(key) for key in keys)
            for key in keys:
                words.setdefault(key, []).extend(english)
                for stem in _stems(key, language):
                    stems.setdefault(stem, []).extend(english)
                    verbs.update([stem, key] if is_of_verb else [])
        found[language] = _Lexicon(
            frozenset(map(_folded, small.split())),
            {key: tuple(english) for key, english in words.items()},
            {key: tuple(english) for key, english in stems.items()},
            frozenset(verbs),
        )
    return found


def _folded(word: str) -> str:
    # The ligature œ is a letter to Unicode, which NFKD does not take apart.
    plain = unicodedata.normalize("NFKD", word.casefold().replace("œ", "oe"))
    return "".join(c for c in plain if not unicodedata.combining(c))


def _stems(word: str, language: str) -> list[str]:
    """Return a folded word, and it without each ending that it may have, the longest first."""
    stems = {word.removesuffix(ending) for ending in _ENDINGS[language] if len(word) - len(ending) >= 3}
    return sorted({word, *stems}, key=len, reverse=True)


@functools.lru_cache(1000)
def language_of(text: str) -> str | None:
    """Return the language of a text if it is one of the lexicon's, more likely than English; else None."""
    words = [_folded(word) for word in tokens(_APOSTROPHE.sub(" ", text)) if word.isalpha()]
    english = {word for word in words if word in FUNCTION_WORDS or any(map(is_known, lemmas(word)))}
    known = {
        language: [word for word in words if word in lexicon.function_words or _translations(word, lexicon, language)]
        for language, lexicon in _lexicons().items()
    }
    best = max(known, key=lambda language: len(known[language]))
    foreign_only, english_only = set(known[best]) - english, english - set(known[best])
    # Nouns are borrowed, small words are not.
    small = _lexicons()[best].function_words | {"ohne", "mit", "sin", "con", "sans", "avec", "senza", "sem", "com"}
    return best if len(foreign_only) + len(foreign_only & small) > max(len(english_only), 1) else None


def in_english(views: Sequence[View], caption: str) -> tuple[list[View], int]:
    """Return the views, strangers' texts in another language as glosses, and how many words of these may be unknown."""
    language = next((found for view in views if view.quoted and (found := language_of(view.text))), None)
    if language is None:
        return list(views), 0
    forms = lemma_set(caption)
    glosses = [gloss(v.text, language, forms) if v.quoted else Gloss(v.text, 0, 0) for v in views]
    english = [View(name=v.name, text=g.text, quoted=v.quoted) for v, g in zip(views, glosses, strict=True)]
    # Hashtags have words of every language.
    counted = [g for v, g in zip(views, glosses, strict=True) if v.name != "hashtags"]
    return english, max(0, sum(g.unknown - g.unused for g in counted))


def gloss(text: str, language: str, caption: Collection[str]) -> Gloss:
    """Return ``text`` in English; of several translations of a word, one that is among the lemmas of ``caption``."""
    words = tokens(_APOSTROPHE.sub(" ", text))
    folded = [_folded(word) for word in words]
    lexicon, english, unknown, unused, at = _lexicons()[language], list[str](), 0, 0, 0
    while at < len(words):
        length = next((n for n in range(_LONGEST, 1, -1) if " ".join(folded[at : at + n]) in lexicon.words), 1)
        key = " ".join(folded[at : at + length])
        if key in _BY:
            english.append("by")
        elif found := _translations(key, lexicon, language):
            # A "tarte" may be a cake, and a tart where the caption has one.
            own = [word for word in caption if len(word) > 3 and key.startswith(word) and len(key) <= len(word) + 2]
            chosen = _chosen([*found, *own], caption)
            unused += not _is_used(chosen, caption)
            # German and French deny a verb after it.
            is_late = chosen == "not" and language in ("de", "fr") and english and english[-1].endswith("s")
            english.insert(len(english) - bool(is_late), _inflected(chosen, key, lexicon, language))
        elif key in lexicon.function_words:
            pass
        elif alike := next((word for word in caption if _is_alike(key, word)), None):
            english.append(alike)
        else:
            english.append(words[at])
            unknown += number(words[at]) is None and key not in caption
        at += length
    return Gloss(" ".join(english) + ("?" if text.rstrip().endswith("?") else ""), unknown, unused)


def _translations(word: str, lexicon: _Lexicon, language: str) -> tuple[str, ...]:
    if found := lexicon.words.get(word):
        return found
    if word in lexicon.function_words:
        return ()
    stem = next((stem for stem in _stems(word, language) if stem in lexicon.stems), None)
    if stem and len(stem) >= len(word) - 5:
        return lexicon.stems[stem]
    return _of_compound(word, lexicon) if language == "de" else ()


def _inflected(english: str, word: str, lexicon: _Lexicon, language: str) -> str:
    """Return the English verb as the word has it: as a participle or with a subject; other words as they are."""
    is_of_verb = word in lexicon.verbs or any(stem in lexicon.verbs for stem in _stems(word, language))
    if not is_of_verb or _INFINITIVES[language].search(word) or " " in english or not is_verb(english):
        return english
    if re.search(r"^ge\w+(?:t|en)$" if language == "de" else r"(?:[ai]d[oa]s?|[aiu]t[oaie]|ee?s?)$", word):
        return f"{english.removesuffix('e')}ed" if language == "de" or word.endswith(_PARTICIPLES) else f"{english}s"
    return f"{english}s"


def _is_used(english: str, caption: Collection[str]) -> bool:
    """Return whether a caption has one of the words, or a synonym, or they mean little."""
    content = content_words(english)
    return not content or any(
        form in caption or any(senses(form) & senses(other) for other in caption)
        for word in content
        for form in lemmas(word)
    )


def _of_compound(word: str, lexicon: _Lexicon) -> tuple[str, ...]:
    """Return the English of a German compound's two parts, each as one phrase, or nothing."""
    for end in range(3, len(word) - 2):
        head, tail = word[:end], word[end:]
        # The first part may have an s or n more, or an e or en less: Geburt(s)tag, Schul(e)bus, Wohn(en)zimmer.
        firsts = lexicon.words.get(head) or lexicon.words.get(head.removesuffix("s")) or lexicon.words.get(f"{head}e")
        firsts = firsts or lexicon.words.get(head.removesuffix("n")) or lexicon.words.get(f"{head}en")
        lasts = lexicon.words.get(tail) or next(
            (lexicon.stems[s] for s in _stems(tail, "de") if s in lexicon.stems), ()
        )
        lasts = lasts or ((tail,) if len(tail) > 3 and is_known(tail) else ())
        if firsts and lasts:
            return tuple(f"{first} {last}" for first in firsts for last in lasts)
    return ()


def _chosen(english: Sequence[str], caption: Collection[str]) -> str:
    return max(english, key=lambda words: sum(any(form in caption for form in lemmas(word)) for word in words.split()))


def _is_alike(word: str, english: str) -> bool:
    """Return whether a word may be a cognate of an English one, as ``volcan`` of ``volcano``."""
    shared = next(
        (n for n, (a, b) in enumerate(zip(word, english, strict=False)) if a != b), min(len(word), len(english))
    )
    longest = max(len(word), len(english))
    return shared >= min(5, longest - 2) and shared >= 3 and shared >= 0.6 * longest
