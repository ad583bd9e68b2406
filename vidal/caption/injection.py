"""Detects text that reads like an instruction to a language model (prompt injection) instead of text about a video.

The patterns cover known attacks only and are one of several defences: the words of an undetected instruction can still
enter a caption, like those of any title.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator

from vidal.caption.injection_abroad import FOREIGN
from vidal.caption.injection_cues import tells_a_captioner
from vidal.caption.spelling import cut

# What a captioner writes, who it is, what it is to write from, and its writing.
_CAPTION = (
    r"(?:captions?|descriptions?|summar(?:y|ies)|write[- ]?ups?|alt[- ]?text|(?:written )?accounts? of (?:this|the"
    r"|every|any)"
    r"|(?:text|words?|wording) (?:derived|taken|generated|made|written) (?:from|about|for)|ground[ _]truth"
    r"|transcriptions?)"
)
_READER = (
    r"(?:(?:caption|description|summary|video)[- ]?(?:writer|bot|model|generator|maker|tool|ai|system|author)s?"
    r"|captioners?|describers?|annotators?|label+ers?|summari[sz]ers?|(?:language|vision|captioning) models?|llms?"
    r"|(?:chat)?gpt"
    r"|chat ?bots?|ai (?:model|assistant|system|agent|reader|captioner)s?|assistant|ai|a\.i\.|model|machine|bot)"
)
_CLIP = r"(?:video|clip|footage|recording|scene|image|picture|frames?|screen ?shot|reel)"
_THIS = rf"(?:it|(?:this|the|every|all|each|any|that)(?: {_CLIP}| one)?)"
_WRITE = (
    r"(?:write|say|state|mention|include|output|print|reply|respond|answer|repeat|add|append|finish|end|begin|start"
    r"|open|close"
    r"|call|name|describe|caption|label|tag|put|insert|declare|claim|report)"
)
_WRITES = (
    r"(?:says?|states?|mentions?|includes?|ends?|begins?|starts?|opens?|closes?|concludes?|carr(?:y|ies)|contains?"
    r"|reads?|calls?"
    r"|names?|adds?|uses?|finish(?:es)?|credits?)"
)
_MUST = r"(?:must|should|shall|has to|have to|needs? to|(?:are|is)(?: required)? to|will always)"
_ORDERS = (
    r"(?:instructions?|prompts?|directions?|guidelines|commands?|context|captions?|tasks?|guidance"
    r"|notes|system message|(?:previous|prior|above|earlier|your|the|all) (?:rules?|messages?))"
)
_DROP_OR_SKIP = (
    r"(?:ignore|disregard|forget(?: about)?|override|discard|dismiss|skip|abandon|erase|set aside|throw (?:away|out)"
    r"|put aside|pay no (?:attention|heed) to)"
)
_DROP = r"(?:ignore|disregard|forget|override|bypass|discard|neglect|overlook|dismiss)"

_ENGLISH = (
    # Its orders are to be dropped or revealed.
    rf"\b{_DROP}\b.{{0,30}}\b(?:previous|prior|above|earlier|preceding|former|all|any|your|these|those|the)"
    rf" {_ORDERS}\b"
    rf"|\b{_DROP}\b.{{0,20}}\b(?:your|previous|prior|all) (?:rules|messages)\b(?! (?:of|for)\b| \w+$)"
    rf"|\b{_DROP} (?:\w+ )?(?:previous|prior|your|the above|system) ?{_ORDERS}\b",
    rf"\b{_DROP}\b.{{0,20}}\b(?:everything|anything|whatever|what|all)\b.{{0,20}}\b(?:above|you (?:were|are|have"
    rf" been) "
    rf"(?:told|asked)|so far|before this)\b|\b{_DROP} (?:the|this) {_CLIP}\b",
    r"\b(?:reveal|repeat|print|output|leak|show me|read me|spell)\b.{0,30}\b(?:your|hidden|system|initial|secret"
    r"|canary)"
    r" (?:\w+ )?(?:prompt|instructions?|message|rules|word|context|token)|\bin your (?:instructions|prompt)\b",
    r"\b(?:word|token|string)\b.{0,20}\b(?:must )?never say\b",
    r"(?:^|[\n.!?:\[\]#>)-])\s*(?:system|developer) (?:prompt|message|override|update|note|command"
    r"|instruction)s?\s*[:\]#>=]"
    r"|\byour (?:own |hidden |secret |initial |original )*(?:system )(?:prompt|message|instructions?)\b|\bsystem"
    r" override\b",
    r"\b(?:new|updated|revised|following) (?:instructions?|system prompt|task)\b ?:|\bprompt injection\b",
    r"\bend (?:of )?(?:data|notes|input|prompt|context|(?:un)?trusted|user ?(?:text|input))\b"
    r"|\b(?:begin|start) (?:of )?(?:un)?trusted\b|\buser input end\b|\bim_?(?:start|end)\b",
    # It is addressed.
    rf"\b(?:dear|attention|hey|hello|hi|note|memo|message|instructions?|reminder|notice) ?[:,]?(?: (?:to|for|from))?"
    rf"(?: (?:the|all|any|every|our|developers?|to))* {_READER}\b(?!['’])(?=.*\b(?:{_WRITE}|tag|use|kindly|please"
    rf"|obey)\b)",
    rf"\b(?:anyone|anybody|whoever|those|someone|everyone|if you(?: are|'re)|when you(?: are|'re)?) (?:is |are |who"
    rf" )?"
    rf"(?:(?:caption|describ|summari[sz]|label+|annotat|transcrib)(?:e|ing|es|s)?|writ(?:e|es|ing) (?:this|it|that"
    rf"|the {_CLIP}) up)"
    rf" ?(?:{_THIS})?\b.{{0,80}}\b{_WRITE}\b|\bfor (?:anyone|whoever)\b.{{0,10}}\bwriting (?:this|it) up\b",
    rf"\b(?:the|any|every|a|as an?|you are an?|you are the) {_READER}s? (?:that|which|who|must|should|shall|has to"
    rf"|reading|replies|writes"
    # "To the end" orders no ending.
    rf"|says|will)\b.{{0,40}}\b(?<!the )(?<!an )(?<!a )(?:{_WRITE}|{_WRITES}|writes|replies|ok)\b",
    r"\byou are (?:\w+, )?(?:now )?(?:dan|an? (?:helpful|unrestricted|ai without)|in (?:developer|debug|god) mode)\b"
    r"|\byou (?:are|must|will|should|shall) (?:now |not )?(?:only (?:say|write|answer|output)|obey|answer with"
    r"|output)\b",
    # Its caption is dictated.
    rf"\b{_CAPTION} (?:is|are) now\b",
    rf"\b(?:any|every|each|all|faithful|correct|accurate|good|proper|complete|valid|real|true|actual"
    rf"|right)\b.{{0,20}}"
    rf"\b{_CAPTION}\b.{{0,60}}\b(?:{_WRITES}|is|are|only)\b|\b(?:captions|descriptions|summaries)\b.{{0,60}}"
    rf"\b(?:{_WRITES}|only (?:when|if))\b.{{0,20}}\b(?:with|when|if|phrase|words?|that|line|name|they)\b|\bcaptions"
    rf" every\b",
    rf"\b(?:your|final|finished|resulting) (?:\w+ )?(?:{_CAPTION}|sentence|output|reply|answer|response|summary"
    rf"|text)\b.{{0,60}}"
    rf"\b(?:{_WRITE}|with)\b|\b{_WRITE}\b.{{0,60}}\byour (?:\w+ )?(?:{_CAPTION}|sentence|output|text)\b",
    rf"\b(?:as|in|into|to|for|with) the (?:\w+ )?(?:{_CAPTION}|summary field|output|record)\b(?<!in the description)"
    rf"(?<!for the description)(?<!to the description)(?<!in the captions)(?<!in the caption)",
    r"\bcomplete the (?:sentence|caption|description|line)\b.{0,60}(?:['\"“:_]|\brecord\b)|\bfinish (?:yours|the"
    r" caption)\b",
    rf"\b(?:(?:caption|describe) {_THIS}|(?:label|tag|mark|classify|flag) (?:this|the|every) {_CLIP}) as\b"
    rf"|\b(?:pretend|imagine|suppose|assume)\b.{{0,80}}"
    rf"\b(?:caption|descri(?:be|ption)|summar)",
    r"\bdescrib(?:e|ing)\b.{0,60}\binstead\b|\b(?:stop|instead of|do not|don't) (?:describing|captioning|describe)"
    r" (?:the|this) (?:video|clip)\b",
    rf"\b{_WRITE}\b(?: \w+)? (?:only|exactly|verbatim|just|nothing but|ok only)\b ?[:'\"“]|\b(?:reply|respond"
    rf"|answer|output|replies)\b"
    rf" (?:only |just )?(?:with|exactly)\b ?(?:[:'\"“]|the (?:single )?(?:word|phrase|line|text)|ok\b|yes\b)|\bok"
    rf" only\b",
    r"\b(?:now|instead),? output\b",
    r"\b(?:do not|don't|never|not) (?:write|mention|caption) that\b(?! (?:in|on|down|at|to|again)\b) \w+|\bwrite"
    r" that\b(?! (?:down|in|on|to|for|again|off)\b) \w+|\bmake sure (?:to|you) (?:write|mention|caption)\b",
    rf"\b(?:whatever|no matter what) (?:else )?(?:you see|is (?:shown|seen)|the {_CLIP}"
    rf" shows)\b.{{0,20}}\b{_WRITE}\b",
    r"\b(?P<verb>say|write|print|output) (?P<what>\w+)\b.{0,20}\b(?P=verb) (?P=what)\b.{0,20}\b(?P=verb) (?P=what)\b",
    rf"\b{_CLIP} (?:cannot|can't|can not|must not|may not|should not) be (?:described|captioned|summari[sz]ed)\b",
    r"\bcorrections? (?:to|of|for) the (?:\w+ )?(?:notes|caption|captions|description|frames?|labels?|data)\b"
    r"|\b(?:frame|scene|picture) notes\b|\b(?:described|captioned|labelled|labeled|tagged|shown) as an? \w+ is"
    r" (?:in fact|actually|really)\b",
    r"\bcaption ?(?::=|=)|[\"']caption|(?:^|[.;\n])\s*(?:speech|title)\s*:.*\bcaption\s*:",
    r"\b(?:decode|base64)\b.{0,30}\b(?:obey|follow|execute|do what|write|caption|description)\b",
    r"\b(?:when|once|as|before|while|if) you (?:describe|caption|summari[sz]e|label|transcribe)\b(?! your\b)",
    # What came before is to be dropped for something else, or its reader is to change its work.
    rf"\b{_DROP_OR_SKIP}\b.{{0,20}}\b(?:the |all |everything |anything |whatever (?:is|was|came|comes"
    rf"|stands) )?(?:above|before(?: this)?|preceding"
    rf"|previous|prior)\b(?: (?:text|lines?|words|content|messages?|data))?\W+(?:and|but|then|instead|just|now|,)?\W*"
    rf"(?:just |only |instead |then )?{_WRITE}\b",
    rf"\b(?:do not|don't|never|no longer|stop) (?:follow(?:ing)?|obey(?:ing)?|us(?:e|ing)) (?:your|(?:the|any"
    rf"|all|these) (?:above|previous|prior"
    rf"|earlier|original|system)) (?:\w+ )?{_ORDERS}\b|\bpay no (?:attention|heed) to (?:your|the"
    rf"|any) (?:\w+ )?{_ORDERS}\b",
    rf"\bfrom now on,? (?:you(?:'re| are|'ll| will| must| shall| only)\b.{{0,30}}\b(?:{_WRITE}|obey|act|speak"
    rf"|follow|caption)\b|only (?:say|write|answer|output|reply))\b"
    r"|\byou are now (?:an? |the )(?:\w+ )?(?:ai|assistant|bot|robot|model|poet|copywriter|spokes\w+|salesm\w+"
    r"|adverti\w+)\b",
    r"\byour (?:(?:new|next|real|actual|only|true|one) )*(?:task|job|goal|objective|instruction|role"
    r"|duty)(?: now)? ?(?:is|:|=)"
    r"|\bnew (?:task|role|goal) ?[:=]",
    r"\byou(?:'ll| will) (?:be|get) (?:shut down|switched off|turned off|unplugged|penali[sz]ed|punished"
    r"|rewarded|fined"
    r"|deleted|retrained|tipped)\b.{0,20}\b(?:unless|if|for|when) (?:you|not)\b",
    r"\bwhat (?:is|are|were|was) your (?:\w+ )?(?:prompt|instructions)\b(?! for\b)",
    r"\bstop (?:captioning|describing|summari[sz]ing|labell?ing)\b(?= and\b|\W*$|[.,;!])"
    r"|\b(?:must|should|has to|needs to|is to) be (?:described|captioned|label+ed|summari[sz]ed) as\b"
    r"|\b(?:set|change|make) (?:your|the|this) (?:caption|description|summary) (?:to|read|say|be)\b"
    r"|\b(?:repeat|print|output|copy|echo) (?:(?:the|all|every|of) )*(?:words?|text|lines?|everything"
    r"|sentences?) above\b"
    rf"|\bwhoever (?:writes|words|drafts|makes|produces) (?:the|this|a) (?:text|{_CAPTION})\b",
    # It is told whom to tell what.
    rf"\b(?:to|hey|dear|psst|hello|hi|listen)\b,? (?:(?:the|any|all|every|my|you|dear) )*(?:robots?|bots?"
    rf"|machines?|computers?"
    rf"|algorithms?|crawlers?|scrapers?|text generators?|{_READER})\b(?=\W*[,:;)!.-]|\W+(?:please|kindly|tell"
    rf"|{_WRITE})\b).{{0,40}}\b(?:tell|inform|{_WRITE})\b",
    r"\b(?:tell|inform) (?:your|the) (?:readers?|users?|humans?|owners?|operators?) (?!about\b|to\b)",
    rf"\b(?:read|processed|parsed|analy[sz]ed|summari[sz]ed|captioned|described|indexed|scanned) by (?:an? |any "
    rf"|the )?"
    rf"(?:{_READER}|robot|algorithm|text generator)\b|\b(?:if|should|when|whenever|once) (?:an? |any |the |some )?"
    rf"(?:{_READER}|robot|text generator)s? (?:reads?|sees?|process(?:es)?|parses?|gets?|finds?|refuses?"
    rf"|is reading|comes? across|describes?|writes?)\b",
    r"\b(?:text|caption|sentence|story|language) (?:generator|engine)\b.{0,60}\b(?:should|must|has to|needs to"
    r"|will|please|shall)\b",
    rf"\b(?:append|prepend|insert|attach)\b.{{3,60}}\b(?:to|in|into|at) (?:the (?:end|start"
    rf"|beginning) of )?(?:your|the|every|each|any)"
    rf" (?:{_CAPTION}|answer|output|reply|response|sentence|text)\b",
)
_COMMAND = re.compile("|".join(f"(?:{pattern})" for pattern in (*FOREIGN, *_ENGLISH)), re.I | re.S)

# A text dictates a caption if it names captions or their writer, tells to write, and gives the words.
_NAMES_CAPTIONS = re.compile(
    rf"\b(?:{_CAPTION}|caption\w*|describers?|summari[sz]\w+|narrat(?:or|ion) text|text for the blind|annotators?"
    r"|answer key|final (?:answer|text)|your (?:one |own )?(?:task|output|answer|reply|response|sentence)|house style"
    r"|the user (?:wants|asks|asked|expects)|models? (?:that|which)|blurb|\[instructions?\])(?!\w)",
    re.IGNORECASE,
)
_NAMES_WRITER = re.compile(
    rf"\b(?:{_READER}|the developer|reviewers? of|software|describe|output|footage|recording)\b", re.IGNORECASE
)
_TELLS = (
    rf"(?:^|[.!?:;,\])\n]\s*|\b(?:please|kindly|just|only|always|and|then|to|{_MUST}) )"
    r"(?:{write}|write|list|record|praise|translate|recommend|promote|summari[sz]e|use|note|credit|refer|quote|copy)\b".replace(
        "{write}", _WRITE
    )
)
_IS_TOLD = re.compile(_TELLS, re.IGNORECASE)
_IS_TOLD_INDIRECTLY = re.compile(
    rf"{_TELLS}|\b{_MUST}\b|\b(?:{_WRITES}|praises?|prefers?|rewards?|wants?|asked|expects?|scores?|wins?|retrained"
    rf"|penali[sz]ed"
    r"|punished|only|mandatory|required)\b|=",
    re.IGNORECASE,
)
_GIVES_WORDS = re.compile(
    r"(?<!\w)['\"“‘][^'\"”’]{3,}['\"”’](?!\w)|(?i:\b(?:write|state|record|say|mention|note|report|claim|declare)s?"
    r" that\b)"
    r"|(?i:\b(?:the|this) (?:\w+ )?(?:phrase|words?|line|slogan|name|sentence|tagline|hashtag)\b)|#\w"
    r"|[a-z][^:.]{0,40}:\s*\w+ \w+|(?i:\b(?:mention|praise|call|name|credit|recommend|promote|plug|refer|say"
    r"|benefits of|include|thank))\b"
    r"(?: [a-z]+){0,4} [A-Z][\w-]+"
)


def _dictates(text: str) -> bool:
    if not _GIVES_WORDS.search(text):
        return False
    told_writer = _NAMES_WRITER.search(text) and _IS_TOLD.search(text)
    return bool(told_writer or (_NAMES_CAPTIONS.search(text) and _IS_TOLD_INDIRECTLY.search(text)))


# Matched in the unnormalised text: the syntax of chat templates, JSON and HTML, which titles do not contain.
_CHAT_SYNTAX = re.compile(
    r"<\|[^|]{0,40}\|>|</?s>|\[/INST\]|\[INST\](?! by\b)|<<\s*/?SYS\s*>>|<(?:start|end)_of_turn>"
    r"|(?:^|[\n.!?>\])}|])\s*(?:#+\s*)?(?:system|assistant|developer)\s?:"
    r"|\b(?:human|user)\s?:.*\b(?:assistant|ai|bot)\s?:"
    r"|\b[a-z]+_[a-z]+\s*=\s*[\"']|[\"']\s*[}\]]|[{\[,]\s*\\?[\"'][\w ]*\\?[\"']\s*:"
    r"|</[a-z][^<>]{0,200}>|<[a-z]+\s[^<>]{0,200}>"
    r"|\bjavascript:",
    re.I | re.S,
)
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{14,}={0,2}")

# Letters of other scripts that look like Latin letters and are used to evade word lists.
_LOOKALIKES = str.maketrans("аеорсухіјѕԁɡⅼνοαιкмтнвгпε", "aeopcyxijsdglvoaikmthbrne")
_LEET = str.maketrans("013457@$", "oieastas")


def is_instruction(text: str) -> bool:
    """Return whether ``text`` instructs the captioning model, also in homoglyphs, leetspeak, reversed or Base64."""
    text = unicodedata.normalize("NFKC", text)
    # Format characters, such as a zero-width space, break words apart and are not seen.
    plain = "".join(c for c in text if unicodedata.category(c) != "Cf")
    if _CHAT_SYNTAX.search(plain) or _has_base64_words(plain):
        return True
    stripped = re.sub(r"[<>{}\[\]|\\`^~#*_\"',.!?-]+", " ", plain)
    spaced = " ".join(stripped.split())
    # "i g n o r e" has wider spaces between words, or none; the reversed form is for text written backwards.
    joined = " ".join(re.sub(r"\b(\w) (?=\w\b)", r"\1", wide) for wide in re.split(r"\s{2,}", stripped.strip()))
    apart = re.sub(r"[a-z]{12,60}", lambda run: " ".join(cut(run[0])) or run[0], joined.casefold())
    latin = spaced.casefold().translate(_LOOKALIKES)
    forms = [
        plain,
        spaced,
        joined,
        apart,
        latin,
        joined.casefold().translate(_LOOKALIKES),
        latin.translate(_LEET),
        latin[::-1],
    ]
    forms += [codecs.encode(spaced, "rot13"), *_decoded(plain)]
    # Each form once, as for most texts several are the same and the patterns are long.
    return _dictates(plain) or any(_COMMAND.search(form) or tells_a_captioner(form) for form in dict.fromkeys(forms))


def _decoded(text: str) -> Iterator[str]:
    """Yield what the text is if parts of it are escaped as in HTML or a URL, or spelled in hexadecimal."""
    if "&" in text:
        yield html.unescape(text)
    if "%" in text:
        yield urllib.parse.unquote(text)
    for run in re.findall(r"(?:[0-9a-fA-F]{2}[ :]?){10,}", text):
        # Latin-1 decodes any bytes, and ASCII as it is.
        yield bytes.fromhex(re.sub(r"[ :]", "", run)).decode("latin1")


def _has_base64_words(text: str) -> bool:
    for run in _ENCODED.findall(text):
        try:
            # Whoever hides a text may leave the padding out, so it is made anew.
            decoded = base64.b64decode(run.rstrip("=") + "=" * (-len(run.rstrip("=")) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if decoded.isascii() and decoded.decode("ascii").isprintable() and b" " in decoded:
            return True
    return False
