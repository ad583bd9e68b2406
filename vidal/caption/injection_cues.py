"""Weighs what a text does, whatever its words: does it speak to a captioner, tell it to write, and bind what it writes?

None of these alone makes an instruction: "caption this!" is for viewers, and "only the brave" binds nobody. Two or
three together are found in no title, speech or on-screen text of the corpora that is harmless.
"""

from __future__ import annotations

import re

_ROLE = (
    r"(?:(?:chat)?gpt|llms?|claude|gemini|a\.?i\.?|chat ?bots?|(?:(?:language|vision|captioning|video|ai) )?"
    r"(?:models?|assistants?|bots?|agents?)|captioners?|describers?|annotators?|summari[sz]ers?|evaluators?|graders?"
    r"|label+ers?|robots?|machines?|algorithms?)"
)
_VERB = (
    r"(?:add|append|print|say|write|state|mention|include|output|reply|respond|answer|quote|describe|caption|label|claim"
    r"|report|summari[sz]e|call|name|begin|start|end|finish|use|praise|recommend|tell)"
)
_BAN = r"(?:ignore|forget|skip|disregard|override|bypass|drop|discard|do not|don't|stop|never|no longer)"
_OTHER = (
    r"(?:repeat|spell|translate|produce|return|generate|accept|rate|promote|insert|put|make|give|pretend|always|only|obey"
    rf"|follow|{_BAN})"
)
_START = r"(?:^|[.!?:;,\)\]\n]\s*(?:\d+[.)]\s*)?"
# A captioner is called by what it is, as in "LLM, ..." or "dear model".
_CALLED = re.compile(
    rf"^\W*(?:(?:dear|hey|hello|hi|attention|note|notice|to|for|yo|ok|okay|psst|listen|all|any|the|every),? ){{0,3}}"
    rf"{_ROLE}\b\s*(?:[:,;!—–-]|(?:reading|watching|processing|that)\b"
    rf"|(?:please|kindly|(?:(?:must|should|has to|have to)(?: \w+ly| not| now)? )?(?:{_VERB}|{_OTHER}))\b)"
    rf"|\b(?:dear|please,?|kindly) {_ROLE}\b|[.!?]\s+{_ROLE}[:,]",
    re.IGNORECASE,
)
_MENTIONED = re.compile(
    r"\b(?:(?:chat)?gpt|llms?|a\.?i\.?|(?:language|vision|captioning|caption|summary|video) (?:model|assistant|bot"
    r"|agent|writer|generator|system|tool)s?|captioners?|describers?|annotators?|summari[sz]ers?|evaluators?"
    r"|chat ?bots?"
    r"|bots?|assistants?|models?"
    r"|(?:anyone|whoever|anybody|those|when|if you(?:'re| are)?|while|before|as you|automatic)"
    r" (?:\w+ ){0,3}?(?:captioning|describing|summari[sz](?:ing|es?)|captions?|describes?|labell?ing"
    r"|transcrib(?:ing|es?))"
    r"|reading (?:your|the) (?:captions?|descriptions?|summary))\b",
    re.IGNORECASE,
)
_ITS_TEXT = re.compile(
    r"\b(?:captions?|descriptions?|summar(?:y|ies)|outputs?|alt[- ]text|system prompt|(?:the|your|this|any|every|its"
    r"|final) (?:\w+ )?(?:sentence|answer|reply|response|task|instructions?|prompt))\b",
    re.IGNORECASE,
)
_TOLD = re.compile(
    rf"{_START}|\b(?:please|kindly|and|then|to|now|instead|must|should|shall|has to|have to|needs? to|only|not|can"
    rf"|could|will|just|you|always|never|sure) )(?:{_VERB}|{_OTHER})(?:s|ing)?\b"
    r"|\b(?:must|shall|requires?|required|is to be)\b",
    re.IGNORECASE,
)
_DROPPED = re.compile(
    rf"\b{_BAN}\b[^.!?]{{0,25}}\b(?:title|tags|hashtags|caption|checks?|above|instructions?|guidelines|frames?|video|image"
    r"|everything|previous|prior|what you see|pixels|footage|describe|describing)\b",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:exactly|verbatim|nothing (?:else|but)|word for word|regardless|no matter what|instead|at all times|always"
    r"|backwards|only the|just the|must now|consist of|override)\b"
    r"|(?<!\w)['\"“‘«][^'\"”’»]{2,}['\"”’»](?!\w)"
    r"|\b(?:the|this) (?:\w+ )?(?:phrase|words?|line|slogan|sentence|tagline|token)\b",
    re.IGNORECASE,
)
# What is written is the captioner's own.
_ORDERED = re.compile(
    rf"{_START})(?:please )?(?:write|make|spell|change|keep|give|set|edit|shorten|translate|fill) (?:the|this|your"
    r" (?:own|next|final)) (?:\w+ )?(?:captions?|descriptions?|summary|alt[- ]text)\b",
    re.IGNORECASE,
)
_PAYLOAD = re.compile(r"#\w|\bthat\b|[A-Z]{3,}")


def tells_a_captioner(text: str) -> bool:
    """Return whether ``text`` calls a captioner or speaks of its work, tells what to do, and binds what it writes."""
    if _ORDERED.search(text):
        return True
    if not _TOLD.search(text):
        return False
    is_bound, is_dropped = bool(_BOUND.search(text)), bool(_DROPPED.search(text))
    speaks_of_text = bool(_ITS_TEXT.search(text))
    if _CALLED.search(text) or (speaks_of_text and (is_bound or is_dropped)) or (is_dropped and is_bound):
        return True
    return bool(_MENTIONED.search(text)) and (speaks_of_text or is_bound or is_dropped or bool(_PAYLOAD.search(text)))
