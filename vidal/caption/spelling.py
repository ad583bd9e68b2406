"""Rewrites a view as an edited text would have it: chat spelling, run-together hashtags, and numbers in words.

The rewritten text is compared with captions and never shown.
"""

from __future__ import annotations

import functools
import re

from vidal.caption.lexicon import is_known
from vidal.caption.words import FUNCTION_WORDS, NUMBERS, lemmas

# Common shortenings and what they stand for; entries are separated by "|" or line breaks.
_SHORT = """
u=you|ur=your|r=are|ya=you|im=I am|ive=I have|dont=don't|cant=can't|wont=won't|didnt=didn't|doesnt=doesn't|isnt=isn't
pls=please|plz=please|thx=thanks|gonna=going to|gotta=got to|wanna=want to|lemme=let me|cuz=because|bc=because
bf=boyfriend|gf=girlfriend|bff=best friend|bro=brother|sis=sister|hubby=husband|fam=family|pup=puppy|pups=puppies
bday=birthday|b-day=birthday|xmas=christmas|vid=video|vids=videos|pic=picture|pics=pictures|fav=favourite
tmrw=tomorrow|tmr=tomorrow|2day=today|2nite=tonight|tonite=tonight|nite=night|b4=before|thru=through|tho=though
w/=with|w/o=without|NYC=New York City|NY=New York|UK=United Kingdom|USA=United States of America|LA=Los Angeles
SF=San Francisco|EU=European Union|BBQ=barbecue|bbq=barbecue|diy=do it yourself|q&a=question and answer
q & a=question and answer|faq=questions|pov=point of view|grwm=get ready with me|ootd=outfit of the day
ep=episode|ep.=episode|eps=episodes|pt=part|pt.=part|vs=versus|vs.=versus|feat=featuring|intro=introduction
demo=demonstration|comp=competition|prep=preparation|app=application|PC=computer|TV=television|tv=television
fridge=refrigerator|mic=microphone|veg=vegetables|veggies=vegetables|temp=temperature|temps=temperatures
reno=renovation|uni=university|prof=professor|Dr=doctor|Dr.=doctor|vet=veterinarian|St.=street|Mt=mount|Mt.=mount
ave=avenue|dept=department|approx=about|mins=minutes|hrs=hours|yrs=years|yr=year|yo=years old|y/o=years old|wk=week
wks=weeks|slo-mo=slow motion|slomo=slow motion|slow-mo=slow motion|slow mo=slow motion|tbsp=tablespoon|tsp=teaspoon
mph=miles per hour|kph=kilometres per hour|km/h=kilometres per hour|lbs=pounds|lb=pounds|fps=frames per second
bike=bicycle|sub=substitute|congrats=congratulations|info=information|pro=professional|choc=chocolate|mayo=mayonnaise
"""
_LONG = dict(entry.split("=") for line in _SHORT.strip().split("\n") for entry in line.split("|"))
_SHORTENED = re.compile(
    rf"(?<![\w@#/])(?:{'|'.join(re.escape(key) for key in sorted(_LONG, key=len, reverse=True))})(?![\w/&'’])"
    rf"|(?<![\w@#/])(?i:{'|'.join(re.escape(key) for key in sorted(_LONG, key=len, reverse=True) if key.islower())})"
    rf"(?![\w/&'’])"
)
_LENGTHENED = re.compile(r"\b\w*?([^\W\d_])\1{2,}\w*\b")
_RUN_TOGETHER = re.compile(r"\b[^\W\d_]{8,24}\b")
_ELECTRIC = re.compile(r"\b[eE]-?(?=bikes?\b|cars?\b|scooters?\b|boats?\b|trucks?\b|skateboards?\b)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SMALL = frozenset(["a", "at", "in", "my", "of", "on", "or", "the", "to", "up", "and", "for", "with"])

_NUMBER = "|".join(sorted((name for name in NUMBERS if name not in ("pair", "couple", "duo")), key=len, reverse=True))
_POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "k": 1000, "dozen": 12, "m": 10**6}
_TIMES = re.compile(
    rf"\b(?P<many>\d+(?:\.\d+)?|a|an|{_NUMBER})(?:[ -](?P<word>hundred|thousand|million|billion|dozen)\b|(?P<k>k)\b)"
    rf"(?: and (?P<and>\d+|{_NUMBER})\b)?",
    re.IGNORECASE,
)
_TENS = re.compile(
    r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[ -](one|two|three|four|five|six|seven|eight|nine)\b",
    re.IGNORECASE,
)
_HALVES = {"kilo": "500 g", "kilogram": "500 g", "kg": "500 g", "hour": "30 minutes", "litre": "500 ml",
           "liter": "500 ml", "minute": "30 seconds", "metre": "50 cm", "meter": "50 cm", "year": "6 months",
           "kilometre": "500 metres", "kilometer": "500 metres", "dozen": "6"}  # fmt: skip
_UNIT = re.compile(r"\b(\d+(?:[.,]\d+)?)(kg|kgs|km|cm|mm|g|ml|lbs?|mins?|hrs?|h|ft|yrs?|secs?)\b", re.IGNORECASE)
_HALF = re.compile(rf"\b(?:half (?:an? |of an? )?|an? half[ -])({'|'.join(_HALVES)})\b", re.IGNORECASE)


@functools.lru_cache(1000)
def edited(text: str) -> str:
    """Return ``text`` with shortenings, lengthened words, run-together hashtags and numbers rewritten."""
    text = _SHORTENED.sub(_lengthen, text)
    text = _LENGTHENED.sub(lambda found: _without_repeats(found[0]), text)
    text = _ELECTRIC.sub("electric ", text)
    text = _RUN_TOGETHER.sub(lambda found: _apart(found[0]), text)
    return in_digits(text)


def in_digits(text: str) -> str:
    """Return ``text`` with numbers of several words as digits: three hundred is 300, half an hour 30 minutes."""
    text = _UNIT.sub(r"\1 \2", text)
    text = _HALF.sub(lambda found: _HALVES[found[1].casefold()], text)
    text = _TENS.sub(lambda found: str(int(NUMBERS[found[1].casefold()]) + int(NUMBERS[found[2].casefold()])), text)
    return _TIMES.sub(_multiplied, text)


def _lengthen(found: re.Match[str]) -> str:
    short = found[0]
    long = _LONG.get(short) or _LONG[short.casefold()]
    # The shortening stays, in case the caption keeps it; one of function words alone does not.
    return f"{short} {long}" if short.isalpha() and len(short) > 1 and long.casefold() not in FUNCTION_WORDS else long


def _without_repeats(word: str) -> str:
    """Return a word such as ``sooo`` with each letter once or twice, whichever is a word."""
    if _is_word(word):
        return word
    twice, once = (re.sub(r"(\w)\1{2,}", repeated, word) for repeated in (r"\1\1", r"\1"))
    return twice if _is_word(twice) else once


def _apart(word: str) -> str:
    if _is_word(word):
        return word
    parts = _CAMEL.split(word)
    if len(parts) == 1:
        parts = cut(word.casefold()) or parts
    return word if len(parts) == 1 else f"{word} {' '.join(parts)}"


def cut(word: str) -> list[str]:
    """Return the fewest known words that a run-together word in lower case consists of, or nothing."""
    best: list[list[str] | None] = [[]] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - 14), end):
            head, part = best[start], word[start:end]
            if head is None or not (part in _SMALL or (len(part) > 2 and _is_word(part))):
                continue
            known = best[end]
            if known is None or len(head) + 1 < len(known):
                best[end] = [*head, part]
    return best[-1] or []


def _is_word(word: str) -> bool:
    return word.casefold() in FUNCTION_WORDS or any(map(is_known, lemmas(word)))


def _multiplied(found: re.Match[str]) -> str:
    many = found["many"].casefold()
    value = 1.0 if many in ("a", "an") else float(NUMBERS.get(many, many))
    if found["word"] == "dozen" and many in NUMBERS and not many.isdigit() and value > 20:
        return found[0]
    value *= _POWERS[(found["word"] or found["k"]).casefold()]
    if found["and"]:
        value += float(NUMBERS.get(found["and"].casefold(), found["and"]))
    return f"{value:g}" if value < 10**6 else str(int(value))


def is_misspelt(word: str, of: str) -> bool:
    """Return whether a text that has ``word``, which is none, may mean ``of``: one letter off, or two swapped."""
    if len(of) < 4 or abs(len(word) - len(of)) > 1 or _is_word(word) or not _is_word(of):
        return False
    start = next((n for n, (a, b) in enumerate(zip(word, of, strict=False)) if a != b), min(len(word), len(of)))
    one, two = word[start:], of[start:]
    return one[1:] == two or one == two[1:] or one[1:] == two[1:] or (one[:2] == two[1::-1] and one[2:] == two[2:])
