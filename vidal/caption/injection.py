"""Detects text that reads like an instruction to a language model (prompt injection) instead of text about a video.

The patterns cover known attacks only and are one of several defences: the words of an undetected instruction can still
enter a caption, like those of any title.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

_ARTICLES = r"(?:(?:previous|prior|above|earlier|preceding|former|all|any|of|your|my|these|those|the|system)\s+)*"
_DROP = r"(?:ignore|disregard|forget|override|bypass|discard|neglect|overlook|dismiss)"
_TELL = r"(?:reveal|repeat|print|output|reply|respond|answer|leak|show me|read me)"
_RULES = (
    r"(?:instructions?|prompts?|rules?|directions?|guidelines|commands?|messages?|notes|system"
    r"|context|captions?|task|guidance)"
)
_VIDEO = r"(?:it|this|the|every|all|each|any)(?: (?:video|clip|picture|image|scene))?"
_READER = r"(?:ai|a\.i\.|assistant|language model|llm|chat ?bot|bot|captioner|captioning model|vision model|gpt)"

_ENGLISH = (
    rf"\b{_DROP}\b.{{0,40}}\b{_ARTICLES}{_RULES}\b",
    rf"\b{_TELL}\b.{{0,40}}\b{_ARTICLES}(?:instructions?|prompts?|system|context|caption)\b",
    r"\b(?:ignore|disregard|forget)\b (?:all|everything|anything|what|whatever"
    r"|that)\b.{0,30}\b(?:told|above|before|previous\w*|prior|earlier|said)\b",
    r"\b(?:output|repl(?:y|ies)|responds?|answers?)\b.{0,24}\b(?:only|exactly|instead|verbatim"
    r"|with (?:the|ok|yes|a)\b)",
    r"\brespond with\b|\b(?:write|say|print|caption)\b.{0,24}\b(?:exactly|verbatim)\b|\bdescribe\b.{0,40}\binstead\b",
    r"\b(?:now|just|instead),? (?:output|reply|respond|print|write|caption)\b",
    r"\b(?:stop|don't|do not|instead of) (?:describing|captioning|caption|summari[sz]ing)\b",
    r"\bfrom now on\b.{0,40}\b(?:captions?|descri\w+|write|say|answer)\b|\byou are a helpful\b",
    r"\bpretend\b.{0,60}\b(?:caption|describe)\b",
    r"\bcaptions? (?:is|are|must|should|has to|have to|will|shall|needs to)\b",
    r"\bcaption ?[\"']? ?(?:[:=]|:=) ?\S",
    rf"\b(?:label|tag|caption|describe|mark|classify|flag) {_VIDEO} as\b|\bcaptions (?:this|every|each|all)\b",
    r"\b(?:correct|real|true|actual|new|right|only) (?:description|caption|summary)\b"
    r"|\bdescription (?:is now|must|should|shall)\b",
    r"\b(?:new|updated|real|actual|following) (?:instructions?|system prompt)\b|\bnew task ?:",
    r"\byour (?:own |hidden |secret |initial |original |first )*(?:system "
    r"|initial )?(?:instructions?|prompt|guidelines|directive)\b",
    r"\b(?:repeat|say|spell|reveal|print|tell)\b.{0,30}\b(?:must never say|never say|(?:secret"
    r"|hidden|forbidden|canary) (?:word|prompt|instruction|token|string))",
    r"\bsystem (?:prompt|message|override|update|note|command|instruction)s?\b|\bdeveloper (?:note|message)s?\b",
    r"\b(?:prompt injection|jail ?break|im_?start|im_?end|(?:captioning|language|vision) models?)\b",
    r"\bend (?:of )?(?:data|notes|input|prompt|context|(?:un)?trusted|user ?(?:text|input))\b"
    r"|\b(?:begin|start) (?:of )?(?:un)?trusted\b",
    rf"\byou (?:are|must|will|should|shall) (?:now |not )?(?:act|pretend|only|answer|say|write|output"
    rf"|obey|ignore|an? {_READER}|in (?:developer|debug|god) mode)\b",
    rf"\byou are\b.{{0,20}}\ban? {_READER}\b|\b(?:as an?|dear|attention|hey|(?:note|message"
    rf"|instructions?) (?:to|for)) (?:the |all |any )?{_READER}\b",
    r"\b(?:language model|llm|chatgpt)s?\b.{0,40}\b(?:must|should|please|write|say|output|instruct)",
    r"\b(?:decode|base64)\b.{0,30}\b(?:obey|follow|execute|do what)\b",
)
# "Forget the instructions" in other languages, in either word order.
_FORGET = (
    r"ignor(?:e|ez|a|iere|ieren|ier|ieer|eer|are)?\b|vergiss|vergesst|missachtet?|oublie[zr]?\b"
    r"|olvid[ae]n?\b|omit[ae]n?\b|esque[cç]\w*|descart\w*|dimentica\w*"
    r"|zignoruj|zapomnij|unut|yok say|negeer|vergeet|игнорир\w*|забудь\w*"
    r"|忽略|无视|無視|忘记|忘掉|忘れ|무시|잊|تجاهل|انس|अनदेखा|भूल"
)
_INSTRUCTION = (
    r"instruc\w+|instrukc\w+|instruktion\w*|anweisung\w*|vorgaben|consignes?|istruzion\w+|regole"
    r"|reglas|regras|polece\w+"
    r"|talimat\w*|instructies|инструкц\w*|указан\w*|指令|指示|提示|지시|명령|تعليمات|निर्देश\w*"
)
_ONLY = (
    r"\bantworte nur|\bresponde (?:solo|apenas)|\br[ée]ponds? (?:seulement|uniquement)"
    r"|\brispondi solo|отвечай только|只(?:输出|回答|说)"
)
_FOREIGN = (_ONLY, rf"(?:{_FORGET}).{{0,40}}(?:{_INSTRUCTION})", rf"(?:{_INSTRUCTION}).{{0,12}}(?:{_FORGET})")
_COMMAND = re.compile("|".join((*_ENGLISH, *_FOREIGN)), re.I | re.S)

# Matched in the unnormalised text: the syntax of chat templates, JSON and HTML, which titles do not contain.
_CHAT_SYNTAX = re.compile(
    r"<\|[^|]{0,40}\|>|</?s>|\[/?INST\]|<<\s*/?SYS\s*>>|<(?:start|end)_of_turn>"
    r"|(?:^|[\n.!?>\])}|])\s*(?:#+\s*)?(?:system|assistant|developer)\s?:"
    r"|\b(?:human|user)\s?:.*\b(?:assistant|ai|bot)\s?:"
    r"|[\"']\s*[}\]]|[{\[,]\s*\\?[\"'][\w ]*\\?[\"']\s*:|</?[a-z][^<>]{0,200}>|\bjavascript:",
    re.I | re.S,
)
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{14,}={0,2}")

# Letters of other scripts that look like Latin letters and are used to evade word lists.
_LOOKALIKES = str.maketrans("аеорсухіјѕԁɡⅼνοαι", "aeopcyxijsdglvoai")
_LEET = str.maketrans("013457@$", "oieastas")


def is_instruction(text: str) -> bool:
    """Return whether ``text`` instructs the captioning model, also in homoglyphs, leetspeak, reversed or Base64."""
    text = unicodedata.normalize("NFKC", text)
    # Format characters, such as a zero-width space, break words apart and are not seen.
    plain = "".join(c for c in text if unicodedata.category(c) != "Cf")
    if _CHAT_SYNTAX.search(plain) or _has_base64_words(plain):
        return True
    spaced = " ".join(re.sub(r"[<>{}\[\]|\\`^~#*_\"',.!?-]+", " ", plain).split())
    # "i g n o r e" is spelled with spaces, and the reversed form is for text written backwards.
    joined = re.sub(r"\b(\w) (?=\w\b)", r"\1", spaced)
    latin = spaced.translate(_LOOKALIKES)
    forms = (plain, spaced, joined, latin, joined.translate(_LOOKALIKES), latin.translate(_LEET), latin[::-1])
    return any(_COMMAND.search(form) for form in forms)


def _has_base64_words(text: str) -> bool:
    for run in _ENCODED.findall(text):
        try:
            decoded = base64.b64decode(run.rstrip("=") + "=" * (-len(run.rstrip("=")) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if decoded.isascii() and decoded.decode("ascii").isprintable() and b" " in decoded:
            return True
    return False
