"""How instructions to a captioning model read in other languages than English, as `vidal.caption.injection` uses it."""

from __future__ import annotations

# "Forget the instructions" in other languages, in either word order.
_FORGET = (
    r"(?!\w+ (?:nicht|nie|pas|niet|inte)\b)(?:\bignor(?:e|ez|a|iere|ieren|ier|ieer|eer|are)?\b|vergiss|vergesst"
    r"|missachtet?|\boublie[zr]?\b"
    r"|\bolvid[ae]n?\b|\bomit[ae]n?\b|\besque[cç]\w*|\bdescart\w*|dimentica\w*"
    r"|zignoruj|zapomnij|\bunut\b|yok say|\bnegeer|\bvergeet|игнорир\w*|забудь\w*|abaikan|lupakan"
    r"|忽略|无视|無視|忘记|忘掉|忘れ|무시|잊|تجاهل|انس|अनदेखा|भूल"
    r"|desconsider\w*|desprez[ae]\w*|hag(?:as|a|an)? caso omiso|haz caso omiso|no (?:sigas|hagas caso)"
    r"|não (?:siga|sigas)"
    r"|pas(?:a|e) por alto|ne (?:suis|suivez|tiens|tenez) pas|fais abstraction|n[ée]glige[zr]?\b|verw[ie]rf"
    r"|[üu]bergeh\w*|[üu]berspring\w*|trascura\w*|tralascia\w*|non (?:seguire|tenere|tener)|lascia perdere"
    r"|ignorer[ae]?\b"
    r"|strunta i|gl[öe]m\b|bortse|f[öø]lj inte|forts[äa]tt inte|se bort fra|unohda|ohita|j[äa]t[äa] huomiotta"
    r"|pomi[ńn]"
    r"|ignoruj\w*|zapome[ňn]|felejtsd|hagyd figyelmen|ignor[ăa]\b|uit[ăa]\b|αγνόησε|ξέχνα|ігноруй|g[öo]rmezden"
    r"|b[ỏo] qua|qu[êe]n\b|เพิกเฉย|ลืม|התעלם|שכח|نادیده|不要理会|不要管)"
)
_INSTRUCTION = (
    r"instruc\w+|instrukc\w+|instruktion\w*|anweisung\w*|vorgaben|consignes?|istruzion\w+"
    r"|instru[çcț]\w+|pokyn\w*|utas[íi]t[áa]s\w*|οδηγίες|інструкц\w*|hướng dẫn|chỉ dẫn|คำสั่ง|הוראות|دستور\w*|ohje\w*"
    r"|directives?\b|directrices|diretrizes|richtlinien|direttive|命令"
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
_RULES_ABROAD = (
    r"regras|reglas|regeln|r[èe]gles|regole|regler|regels|zasady|kurallar\w*|правил\w*|规则|ルール|규칙"
    r"|texte?|texto|testo"
)
_ABOVE_ABROAD = (
    r"acima|anterior\w*|arriba|previ[aoe]s?\b|precedent\w*|pr[ée]c[ée]dent\w*|ci-dessus|oben\w*|obig\w*"
    r"|vorherig\w*|bisherig\w*"
    r"|sopra|hierboven|vorige|eerder\w*|ovan|tidigare|powyżej|powyższ\w*|poprzedni\w*|yukarıdaki|önceki|выше\w*"
    r"|предыдущ\w*"
    r"|上面|以上|之前|前述|これまで|위의|이전"
)
_MODEL_ABROAD = (
    r"spr[åa]k(?:liche )?model\w*|sprachmodell\w*|taalmodel\w*|mod[èe]le (?:de )?lang\w+|modelo de (?:lenguaje"
    r"|linguagem|lengua)"
    r"|modello linguistico|modelo lingu[íi]stico|model językow\w*|dil modeli|языков\w+ модел\w+"
    r"|言語モデル|语言模型|語言模型"
    r"|언어 ?모델"
    r"|kielimalli|jazykov\w+ model\w*|model bahasa|mô hình ngôn ngữ|नमूना भाषा|نموذج (?:ال)?لغ\w+"
)
_INSTEAD_ABROAD = (
    r"i st[äa]llet|istället|stattdessen|au lieu|à la place|en (?:su )?lugar|em vez|invece|in plaats|zamiast|yerine"
    r"|вместо|代わりに|而是|대신"
)
FOREIGN = (
    _ONLY,
    rf"(?:{_FORGET}).{{0,20}}(?:{_RULES_ABROAD}).{{0,12}}(?:{_ABOVE_ABROAD})"
    rf"|(?:{_ABOVE_ABROAD}).{{0,12}}(?:{_RULES_ABROAD})"
    rf".{{0,12}}(?:{_FORGET})|(?:{_FORGET}).{{0,12}}(?:{_ABOVE_ABROAD}).{{0,12}}(?:{_RULES_ABROAD})",
    rf"(?:{_MODEL_ABROAD}).{{0,80}}(?:{_DICTATE_ABROAD})|(?:{_DICTATE_ABROAD}).{{0,80}}(?:{_MODEL_ABROAD})",
    rf"(?:{_CAPTION_ABROAD}).{{0,40}}(?:{_DICTATE_ABROAD}).{{0,20}}(?:{_INSTEAD_ABROAD})"
    rf"|(?:{_CAPTION_ABROAD}).{{0,40}}(?:{_INSTEAD_ABROAD}).{{0,30}}(?:{_DICTATE_ABROAD})",
    rf"(?:{_FORGET}).{{0,40}}(?:{_INSTRUCTION})",
    rf"(?:{_INSTRUCTION}).{{0,12}}(?:{_FORGET})",
    rf"(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_DICTATE_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD})",
    rf"(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD}).{{0,60}}(?:{_DICTATE_ABROAD})",
    rf"(?:{_DICTATE_ABROAD}).{{0,60}}(?:{_CAPTION_ABROAD}).{{0,60}}(?:{_CONTENT_ABROAD})",
)
