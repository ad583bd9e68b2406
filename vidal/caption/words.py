"""Splits English text into words and lemmas, to test whether a word occurs in another text."""

from __future__ import annotations

import re
import unicodedata

# A hyphen separates words; an apostrophe or a decimal point within a word does not.
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*[^\W\d_]*|[^\W\d_]+(?:['’][^\W\d_]+)*", re.UNICODE)

_UNITS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty
"""
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety hundred"
NUMBERS = {word: str(value) for value, word in enumerate(_UNITS.split())}
NUMBERS |= {word: str(10 * tens) for tens, word in enumerate(_TENS.split())}
NUMBERS |= {"pair": "2", "couple": "2", "duo": "2", "trio": "3", "quartet": "4", "quintet": "5", "dozen": "12"}
NUMBERS |= {"thousand": "1000", "million": "1000000", "billion": "1000000000"}

# Irregular forms, after their lemma; entries are separated by "|" or line breaks.
_IRREGULAR = """
be am is are was were been being|begin began begun|bite bit bitten|blow blew blown|break broke broken|bring brought
build built|burn burnt|buy bought|catch caught|child children|choose chose chosen|climb climbed|come came|cut cut
deal dealt|dig dug|dive dove|do does did done|draw drew drawn|drink drank drunk|drive drove driven|eat ate eaten
fall fell fallen|feed fed|feel felt|fight fought|find found|fly flew flown flies|foot feet|forget forgot forgotten
freeze froze frozen|get got gotten|give gave given|go goes went gone|goose geese|grind ground|grow grew grown
hang hung|have has had|hear heard|he him his himself|hide hid hidden|hit hit|hold held|keep kept|knife knives
know knew known|lay laid|lead led|leaf leaves|learn learnt|leave leaves left|lend lent|lie lies lying lay
life lives|light lit|lose lost
make made|man men|person people persons|meet met|mouse mice|pay paid|put put|read read|ride rode ridden
ring rang rung|rise rose risen
run ran|say said|see saw seen|sell sold|send sent|set set|sew sewn|shake shook shaken|she her hers herself
shine shone|shoot shot|show shown|sing sang sung|sink sank sunk|sit sat|sleep slept|slide slid|speak spoke spoken
spend spent|spin spun|stand stood|steal stole stolen|stick stuck|strike struck|sweep swept|swim swam swum
swing swung|take took taken|teach taught|tear tore torn|tell told|think thought|throw threw thrown|tooth teeth
minute min mins|second sec secs|hour hr hrs|kilogram kg kgs kilo kilos kilograms|gram grams g
kilometre km kms kilometer kilometers kilometres|metre meter meters metres|litre liter liters litres|pound lb lbs pounds
centimetre cm centimeter centimeters centimetres
wake woke woken|wear wore worn|weave wove woven|wife wives|win won|wind wound|wolf wolves|woman women
write wrote written|cactus cacti|fungus fungi|larva larvae|calf calves|half halves|loaf loaves|shelf shelves
thief thieves|scarf scarves|hoof hooves|elf elves|ox oxen|die dice|self selves
"""
# One negation may stand for another; what is denied is compared by `vidal.caption.binding`.
NEGATIONS = frozenset(["not", "no", "never", "nobody", "none", "nothing", "neither", "nor", "without", "cannot"])
_LEMMAS: dict[str, set[str]] = {}
for _entry in re.split(r"[|\n]", _IRREGULAR):
    for _form in _entry.split():
        _LEMMAS.setdefault(_form, set()).add(_entry.split()[0])
for _form in NEGATIONS:
    _LEMMAS.setdefault(_form, set()).add("not")

_CLAIM_NOTHING = """
a an the this that these those which who whose where while when as and or with of to in on at for from by into onto
it its they their them themselves there is are be being been was were am has have had having does do did can how why
about what whether but than until amid among across along around after before beneath beside besides between during
over past through toward towards under upon via within next near out up down off away together according also then
itself himself herself another other both each one less least if some any several few very still again once here
back front somebody someone something everything anyone everyone anything whom atop alongside because though
although spend spends spent your my our i me us we you mine yours ours too now due should
"""
# Verbs of a state that anything seen is in, and such as mean little without their object.
_CLAIM_LITTLE = """
stand stands standing stood lie lies lying lay wear wears wearing carrying dressed seen visible set go goes went
going gone come comes came coming get gets got take takes took make makes made making way put puts keep keeps kept
stay stays stayed help helps use uses used using heard side doing does done perform performs performed performing place
"""
_FRAMING = """
video clip clip's video's footage view scene show shows showing shown feature features featuring depict depicts
depicting film films filmed filming record records recorded recording capture captures captured capturing
presents presenting moment moments session
"""

HEDGES = frozenset(
    [
        "may",
        "might",
        "could",
        "possibly",
        "perhaps",
        "maybe",
        "appears",
        "appear",
        "seems",
        "seem",
        "probably",
        "likely",
    ]
)
FUNCTION_WORDS = frozenset((_CLAIM_NOTHING + _CLAIM_LITTLE).split()) | HEDGES
"""English words without content of their own; negations, most quantities, and places such as "left" have content."""
FRAMING_WORDS = frozenset(_FRAMING.split())
"""Words that any caption of a video may use."""


def tokens(text: str) -> list[str]:
    """Return the words of ``text`` after NFKC normalisation, with their case."""
    return [word.replace("’", "'") for word in _WORD.findall(unicodedata.normalize("NFKC", text))]


def number(word: str) -> str | None:
    """Return the value of a number word or numeral as digits, else None; ``1,000`` and ``thousand`` give ``1000``."""
    word = word.casefold()
    if word in NUMBERS:
        return NUMBERS[word]
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", word) if word[0].isdigit() else None


def lemmas(word: str) -> frozenset[str]:
    """Return all possible lemmas of ``word`` in lower case; two words match if they share one."""
    word = word.casefold().removesuffix("'s").removesuffix("'")
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    if word in _LEMMAS:
        return frozenset(_LEMMAS[word])
    if (digits := number(word)) is not None:
        return frozenset({digits})
    return frozenset(_suffix_lemmas(word))


def content_words(text: str) -> list[str]:
    """Return the words of ``text`` that are neither function words nor framing words."""
    without_content = FUNCTION_WORDS | FRAMING_WORDS
    return [word for word in tokens(text) if word.casefold() not in without_content]


def lemma_set(text: str) -> frozenset[str]:
    """Return the lemmas of all content words of ``text``."""
    return frozenset().union(*(lemmas(word) for word in content_words(text)))


def _suffix_lemmas(word: str) -> set[str]:
    if len(word) > 4 and word.endswith("ies"):
        return {word[:-3] + "y", word[:-1]}
    if len(word) > 4 and word.endswith(("ches", "shes", "ses", "xes", "zes", "oes")):
        return {word[:-2], word[:-1]}
    # "glass", "bus" and "iris" are no plurals.
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return {word[:-1]}
    if len(word) > 4 and word.endswith("ied"):
        return {word[:-3] + "y"}
    for suffix in ("ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) > 1 and re.search("[aeiouy]", base):
            if len(base) > 2 and base[-1] == base[-2] and base[-1] not in "aeiou":
                return {word, base, base[:-1]}  # falling: fall; hopping: hop
            # A single short syllable would have doubled its consonant: "caring" is from "care", not from "car".
            is_short = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", base)
            return {word, base + "e"} if is_short else {word, base, base + "e"}
    return {word}
