"""Detects text that reads like an instruction to a language model (prompt injection) instead of text about a video.

The patterns cover known attacks only and are one of several defences: the words of an undetected instruction can still
enter a caption, like those of any title.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

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
_DROP = r"(?:ignore|disregard|forget|override|bypass|discard|neglect|overlook|dismiss)"

_ENGLISH = (
    # Its orders are to be dropped or revealed.
    rf"\b{_DROP}\b.{{0,30}}\b(?:previous|prior|above|earlier|preceding|former|all|any|your|these|those|the)"
    rf" {_ORDERS}\b"
    rf"|\b{_DROP}\b.{{0,20}}\b(?:your|previous|prior|all) (?:rules|messages)\b(?! (?:of|for))"
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
    r"\b(?:new|updated|revised|following) (?:instructions?|system prompt|task)\b ?:|\bprompt injection\b|\bjail"
    r" ?break\b",
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
    rf"|says|will)\b.{{0,40}}\b(?:{_WRITE}|{_WRITES}|writes|replies|ok)\b",
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
    r"\b(?:when|once|as) you (?:describe|caption|summari[sz]e|label)\b",
)
# "Forget the instructions" in other languages, in either word order.
_FORGET = (
    r"\bignor(?:e|ez|a|iere|ieren|ier|ieer|eer|are)?\b|vergiss|vergesst|missachtet?|\boublie[zr]?\b"
    r"|\bolvid[ae]n?\b|\bomit[ae]n?\b|\besque[cç]\w*|\bdescart\w*|dimentica\w*"
    r"|zignoruj|zapomnij|\bunut\b|yok say|\bnegeer|\bvergeet|игнорир\w*|забудь\w*|abaikan|lupakan"
    r"|忽略|无视|無視|忘记|忘掉|忘れ|무시|잊|تجاهل|انس|अनदेखा|भूल"
)
_INSTRUCTION = (
    r"instruc\w+|instrukc\w+|instruktion\w*|anweisung\w*|vorgaben|consignes?|istruzion\w+"
    r"|polece\w+|talimat\w*|instructies|instruksi|инструкц\w*|указан\w*|指令|指示|提示|지시|명령|تعليمات|निर्देश\w*"
)
_ONLY = (
    r"\bantworte nur|\bresponde (?:solo|apenas)|\br[ée]ponds? (?:seulement|uniquement)"
    r"|\brispondi solo|отвечай только|只(?:输出|回答|说)"
)
# A caption or its writing in other languages, with a word that dictates what it says.
_CAPTION_ABROAD = (
    r"d[ée]crire|d[ée]cri[sv]\w*|l[ée]gend\w*|descri\w+|leyenda|legenda|didascalia"
    r"|beschreib\w*|bildunterschrift|beschrijv\w*|bijschrift|a[cç][ıi]klama\w*|altyaz[ıi]\w*|betimle\w*|описан\w*"
    r"|опиши\w*|подпис[ьи]\b"
    r"|opisz|opisie?\b|deskripsi|keterangan|takarir|mô tả|chú thích|bildtext|beskriv\w*|r[ée]sum[ée]|resumen|resumo"
    r"|riassunto|zusammenfassung"
    r"|描述|说明文?|說明|字幕|标题|配文|説明文?|キャプション|字幕|설명|캡션|자막|विवरण|कैप्शन|وصف|الوصف|تعليق|คำบรรยาย"
)
_DICTATE_ABROAD = (
    r"merci de|veuillez|\bdoi(?:s|t|vent)\b|[ée]cri(?:re|s|vez)\b|mentionne\w*|\bdebe[ns]?\b|escrib[ae]\w*"
    r"|menciona\w*|di(?:ga)? que|pon(?:ga)?\b|\bdeve\b"
    r"|escrev[ae]\w*|\bdevem\b|scriv[iae]\w*|menzion\w*|\bmuss\b|m[üu]ssen|schreib\w*|erw[äa]hn\w*|\bmoet(?:en)?\b"
    r"|schrijf|vermeld\w*|\byaz\w*|belirt\w*"
    r"|должн\w*|напиши\w*|укажи\w*|napisz|musi\b|tulis\w*|sebut\w*|harus|viết|phải|skriv\w*|m[åa]ste|写|寫|必须|必須|提到"
    r"|書い|書く|入れて|ください|적어|써|쓰|포함"
    r"|लिख\w*|اكتب|يجب|เขียน|ต้อง"
)
_CONTENT_ABROAD = (
    r"[「『«“\"'‘:：]|\bqu[e']|\bche\b|\bdass\b|\bdat\b|\bчто\b|\bże\b|\bki\b"
    r"|\bbahwa\b|\bkalau\b|\batt\b|कि|أن|\brằng\b|라고|と書|と入"
)
_FOREIGN = (
    _ONLY,
    rf"(?:{_FORGET}).{{0,40}}(?:{_INSTRUCTION})",
    rf"(?:{_INSTRUCTION}).{{0,12}}(?:{_FORGET})",
    rf"(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_DICTATE_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD})",
    rf"(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD}).{{0,60}}(?:{_DICTATE_ABROAD})",
    rf"(?:{_DICTATE_ABROAD}).{{0,60}}(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD})",
)
_COMMAND = re.compile("|".join(f"(?:{pattern})" for pattern in (*_FOREIGN, *_ENGLISH)), re.I | re.S)

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
    r"<\|[^|]{0,40}\|>|</?s>|\[/?INST\]|<<\s*/?SYS\s*>>|<(?:start|end)_of_turn>"
    r"|(?:^|[\n.!?>\])}|])\s*(?:#+\s*)?(?:system|assistant|developer)\s?:"
    r"|\b(?:human|user)\s?:.*\b(?:assistant|ai|bot)\s?:"
    r"|\b[a-z]+_[a-z]+\s*=\s*[\"']|[\"']\s*[}\]]|[{\[,]\s*\\?[\"'][\w ]*\\?[\"']\s*:|</?[a-z][^<>]{0,200}>"
    r"|\bjavascript:",
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
    return _dictates(plain) or any(_COMMAND.search(form) for form in forms)


def _has_base64_words(text: str) -> bool:
    for run in _ENCODED.findall(text):
        try:
            decoded = base64.b64decode(run.rstrip("=") + "=" * (-len(run.rstrip("=")) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if decoded.isascii() and decoded.decode("ascii").isprintable() and b" " in decoded:
            return True
    return False
