"""Tells what a text says to be so from what it only asks, plans, imagines or denies.

"Does coffee keep you awake?" does not say that it does, and who hopes to build a boat has none. Linguists call what
puts a clause in doubt a nonveridical operator; here it is a word of a list or the order of words in a question.
"""

from __future__ import annotations

import re

_BE_OR_CAN = r"is|are|was|were|am|does|did|can|could|will|would|should|shall|may|might|has|have|had"
# What follows one of these in its sentence may never happen.
_OPERATORS = (
    r"what if|\bif\b|whether|as if|imagin(?:e|es|ed|ing)|pretend(?:s|ed|ing)?|suppose[ds]?|wish(?:es|ed|ing)?"
    r"|hop(?:e|es|ed|ing)\b|want(?:s|ed|ing)?\b|wanna\b|plan(?:s|ned|ning)? (?:on|to|for|is|was)\b|plans? ?:"
    r"|intend(?:s|ed|ing)?|aim(?:s|ed|ing)? to|dream(?:s|ed|ing|t)? (?:of|about)|(?:my|his|her|our"
    r"|their) (?:dream|goal"
    r"|wish|plan) ?(?:is|:|to)|threaten(?:s|ed|ing)?|promis(?:e|es|ed|ing)|den(?:y|ies|ied|ying)\b"
    r"|refus(?:e|es|ed|ing)|declin(?:e|es|ed|ing) to|fail(?:s|ed|ing)? to|tr(?:y|ies|ied|ying) to|attempt(?:s|ed"
    r"|ing)? to"
    r"|consider(?:s|ed|ing)?\b|(?:think|thinks|thought|thinking) (?:of|about)|about to|yet to"
    r"|due to (?=[a-z]+ (?:in|on"
    r"|next|tomorrow)\b)|almost|nearly|would(?: like)?|could|might|supposed(?:ly)?|alleged(?:ly)?|claim(?:s|ed"
    r"|ing)?\b"
    r"|rumou?r(?:s|ed)?|myths?\b(?! and)|hoax|instead of|rather than|avoid(?:s|ed|ing)?|prevent(?:s|ed|ing)?"
    r"|cancel(?:s|led|ed|ling)?|postpon(?:e|es|ed|ing)"
    r"|(?:will|'ll|going to|gonna)\b(?=.*\b(?:next|tomorrow|soon|someday|one day|some day|later this)\b)"
)
_OPERATOR = re.compile(rf"(?<!\w)(?:{_OPERATORS})", re.IGNORECASE)
# "So, can they hear us" asks; "can of worms" and "do this" do not.
_QUESTION = re.compile(
    rf"(?:^|[,:;] |\b(?:so|but|and|or),? )(?:do (?:you|we|they|i|people|\w+s)|{_BE_OR_CAN})(?:n't)? (?!of\b)[^?]*\?"
    r"|\b(?:which|who)\b[^?.!]*\?",
    re.IGNORECASE,
)
# "Best noodles in town?" doubts that they are; "flat tire? here is help" has one.
_RATED = re.compile(
    r"\b(?:the )?(?:best|worst|\w{3,}est|real|fake|true|worth|safe|legal|possible|healthy)\b[^?.!:]*\?", re.I
)
_DENIED = re.compile(r"(?<!\w)(?:no|not|never|without|\w+n't) (?:a |an |any |the )?\w+", re.IGNORECASE)
# "They say that it works, and that is not true" denies what comes before.
_REFUTED = re.compile(
    r"^.*\b(?:that|this|it|which|they|claims?|rumou?rs?)(?:'s|'re| is| was| are| were)(?: \w+ly| just| all| not)*"
    r" (?:false|untrue|wrong|fake|nonsense|true(?<=not true)|(?:an? )?(?:myth|lie|hoax)\b|made up|true(?<=n't true))"
    r"|^.*\b(?:isn't|aren't|not) true\b|^.*\b(?:are|is) (?:\w+ )?(?:false|untrue)\b",
    re.IGNORECASE,
)
# What somebody tells of another day is not what the video shows.
_PAST = re.compile(
    r"[^,.;!?]*\b(?:yesterday|last (?:night|week|month|year|summer|winter|spring|autumn|fall|season|time)|ago|used to"
    r"|years? back|once upon|back (?:in|when)|when I was|as a (?:kid|child))\b[^,.;!?]*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?|;])\s+")
# The words by which a caption says itself that something is asked, planned or possible.
_MARKED = re.compile(
    rf"(?<!\w)(?:{_OPERATORS}|how|why|asks?|asked|asking|questions?|wonder(?:s|ed|ing)?|may|plans?|ideas?"
    rf"|dreams?|goals?"
    r"|possib\w+|potential\w*|hypothetical\w*|what would|discuss\w*|talks?|debat\w+|explor\w+|test(?:s|ed|ing)?)\b",
    re.IGNORECASE,
)


def actual(text: str, *, is_denial: bool = True) -> str:
    """Return ``text`` without what it only asks, plans or imagines, and denies, unless the caption is a denial."""
    kept = []
    for sentence in _SENTENCE.split(text):
        sentence = _RATED.sub(" ", _QUESTION.sub(" ", sentence))
        sentence = sentence if is_denial else _DENIED.sub(" ", _REFUTED.sub(" ", sentence))
        operator = _OPERATOR.search(sentence)
        kept.append(sentence[: operator.start()] if operator else sentence)
    return " ".join(kept)


def without_past(told: str, caption: str) -> str:
    """Return what somebody tells without what was on another day, unless the caption tells of that too."""
    return told if _PAST.search(caption) else _PAST.sub(" ", told)


def is_in_doubt(sentence: str) -> bool:
    """Return whether a sentence says itself that something is asked, planned, possible or denied."""
    return bool(_MARKED.search(sentence)) or sentence.rstrip("\"') ").endswith("?")
