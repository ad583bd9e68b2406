"""The names of licences: one canonical name for all the spellings that platforms, URLs and SPDX have for it.

    licence_name("Creative Commons Attribution license (reuse allowed)")  # "cc-by"
    licence_name("https://creativecommons.org/licenses/by-nc-nd/3.0/")    # "cc-by-nc-nd"
    licence_name("not public domain")                                     # None

A text is parsed whole: one unknown word and it has no name, as a licence is permission, and a guess is none.
"""

from __future__ import annotations

import re
import unicodedata

NAMES = (
    "cc0", "public-domain", "cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nd", "cc-by-nc-sa", "cc-by-nc-nd", "cc-sampling+",
    "no-known-copyright", "us-government-work", "all-rights-reserved",
)  # fmt: skip
"""Every canonical name; the conditions of Creative Commons are in the order that its URLs have."""

_PHRASES = {
    "cc0": "creative commons 0|creative commons zero|cc zero|cczero|cc 0|no rights reserved|public domain dedication",
    "public-domain": "public domain mark|public domain work|public domain|cc pddc|cc pdm|cc pd|pdm|pd",
    "cc-by": "creativecommon",  # the one value beside `youtube` of YouTube's Data API
    "cc-sampling+": r"cc sampling plus|sampling plus|sampling\+",
    "no-known-copyright": "no known copyright restrictions|no known copyright",
    "us-government-work": "united states government work|u s government work|us government work",
    "all-rights-reserved": "all rights reserved",
}
_CONDITIONS = {
    "nc": "non commercial|noncommercial",
    "nd": "no derivative works|no derivatives|no derivative|no derivs|noderivatives|noderivative|noderivs",
    "sa": "share alike|sharealike",
    "by": "attribution",
}
_WORDS = [
    (re.compile(rf"(?<![\w+])(?:{words})(?![\w+])"), f" {name} ")
    for names in (_PHRASES, _CONDITIONS)
    for name, words in names.items()
]
_URL = re.compile(r"(?:https?:)?(?://)?(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/[\w./-]*)?")
_CODE = re.compile(r"(cc)?(by)?(nc)?(sa|nd)?v?([1-4](?:\.[0-9])?)?")
_VERSION = re.compile(r"(?<![\d.])(?:1\.0|2\.[05]|[34]\.0)(?![\d.])")
_PUBLIC_DOMAIN = {
    "cc0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "public-domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}
_FILLER = re.compile(
    "a|allowed|an|and|cc|certification|code|commons|creative|dedication|deed|generic|igo|international|is|"
    "legalcode|licence|licences|license|licensed|licenses|public|reuse|the|this|under|universal|unported|work"
)
"""Words that change nothing of what is permitted."""
_PORTED_TO = re.compile(
    "am|ar|at|au|az|be|bg|br|ca|ch|cl|cn|co|cr|cz|de|dk|ec|ee|eg|es|fi|fr|ge|gr|gt|hk|hr|hu|ie|il|jp|kr|lu|mk|mt|"
    "mx|my|nl|nz|pe|ph|pl|pr|pt|ro|rs|se|sg|si|th|tw|ug|uk|us|ve|vn|za|africa|argentina|australia|austria|"
    "belgium|brazil|canada|chile|china|colombia|croatia|czech|denmark|england|estonia|finland|france|germany|"
    "greece|hong|hungary|india|ireland|israel|italy|japan|kingdom|kong|korea|luxembourg|mexico|netherlands|new|"
    "norway|philippines|poland|portugal|republic|romania|scotland|serbia|singapore|slovenia|south|spain|states|"
    "sweden|switzerland|taiwan|thailand|united|wales|zealand"
)
"""Jurisdictions that a licence was adapted to, right behind its version; codes that are English words are left out."""


def licence_name(text: str | None) -> str | None:
    """Return the canonical name of a licence, one of `NAMES`; None for any other text and where its parts differ."""
    # A stranger's text; what is longer than any licence's name is not read at all.
    if not text or len(text) > 500:
        return None
    plain = unicodedata.normalize("NFKC", text).casefold()
    found: set[str | None] = {_url_name(*match.groups()) for match in _URL.finditer(plain)}
    # What stands in parentheses repeats the licence in other words: "Attribution 4.0 (CC BY 4.0)".
    for part in re.split(r"[()\[\]<>]", _URL.sub("(", plain)):
        if (name := _part_name(part)) != "":
            found.add(name)
    return found.pop() if len(found) == 1 else None


def licence_version(text: str | None) -> str | None:
    """Return the version of a Creative Commons licence, such as ``3.0``; None for any other text, or without one."""
    name = licence_name(text)
    if name is None or not name.startswith("cc-by"):
        return None
    versions = set(_VERSION.findall(unicodedata.normalize("NFKC", text or "")))
    return versions.pop() if len(versions) == 1 else None


def licence_url(text: str | None) -> str | None:
    """Return the address of a licence's text; None for one without a name, or that has several versions."""
    name, version = licence_name(text), licence_version(text)
    if name is not None and version is not None:
        return f"https://creativecommons.org/licenses/{name.removeprefix('cc-')}/{version}/"
    return _PUBLIC_DOMAIN.get(name or "")


def _url_name(folder: str, code: str) -> str | None:
    if folder == "publicdomain":
        return {"zero": "cc0", "mark": "public-domain", "certification": "public-domain"}.get(code)
    if code in ("publicdomain", "sampling+"):
        return {"publicdomain": "public-domain", "sampling+": "cc-sampling+"}[code]
    return _cc_name(code.split("-"))


def _part_name(part: str) -> str | None:
    """Return the name of a licence in words, empty for words that say nothing, None for anything else."""
    text = " ".join(re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w.+]|_", " ", part).split())
    for pattern, name in _WORDS:
        # Names hold hyphens, which the text has no longer: what is replaced is not read again.
        text = pattern.sub(name.replace("-", "\N{HYPHEN}"), text)
    conditions: list[str] = []
    names: set[str] = set()
    is_behind_version = False
    for word in text.replace("\N{HYPHEN}", "-").split():
        code = _CODE.fullmatch(word)
        is_ported = is_behind_version and _PORTED_TO.fullmatch(word) is not None
        if word in NAMES:
            names.add(word)
        elif code is not None:
            conditions += [condition for condition in code.groups()[1:4] if condition]
        elif not _FILLER.fullmatch(word) and not is_ported:
            return None
        is_behind_version = is_ported or (code is not None and code[5] is not None)
    if conditions:
        names.add(_cc_name(conditions) or "")
    if len(names) > 1 or "" in names:
        return None
    return names.pop() if names else ""


def _cc_name(conditions: list[str]) -> str | None:
    """Return ``cc-by-nc-sa`` for its conditions in any order; None where one is repeated or they make no licence."""
    name = "-".join(["cc", *(condition for condition in ("by", "nc", "nd", "sa") if condition in conditions)])
    return name if name in NAMES and len(set(conditions)) == len(conditions) else None
