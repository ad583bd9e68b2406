"""What the form of a video's texts says about the video: "how to" makes a tutorial, ingredients make a recipe.

These words name what is shown as a whole, who shows it, or a measure, and hold no further fact.
"""

from __future__ import annotations

import functools
import re

from vidal.caption.lexicon import FOODS, is_usually
from vidal.caption.words import lemmas, tokens

_FIRST_PERSON = r"\b(?:i|i'm|i've|my|me|we|we're|our|us)\b"
_HOW = (
    r"\bhow (?:to|i|we|you|do)\b|\btutorial|\bstep[ -]by[ -]step|\bsteps?\b|\bdiy\b|\bguide\b|\bbeginners?\b"
    r"|\blearn|\bteach|\btips\b|\blesson|\bexplain|\byou (?:need|have) to\b|\bfirst,? you\b|\bshow you\b"
    r"|\bcómo\b|\bcomo\b"
    r"|\bcomment\b|\bwie man\b|\bso (?:geht|baut|macht)\b|\bcome (?:fare|si)\b|\btrucos?\b|\banleitung\b"
)
# Words of a caption, and the form of a view that permits them.
_GENRES = (
    ("tutorial guide lesson instruction demonstration demonstrate explain teach teacher explanation learn", _HOW),
    (
        "recipe dish cook cooking meal",
        r"\brecip|\bingredients?\b|\bcook|\bbak(?:e|es|ed|ing)\b|\brecet|\breceit|\brezept|\bricett",
    ),
    ("review opinion verdict rate assess reviewer", r"\breview|\bhonest\b|\bworth\b|\btested\b|\btesting\b|\brating\b"),
    ("reason cause why", r"\bwhy\b|\breasons?\b|\bbecause\b"),
    ("comparison compare against versus face opponent", r"\bversus\b|\bcompar|\bbetter than\b|\bor\b.*\?"),
    ("match game play contest compete competition", r"\bversus\b|\bgoals?\b|\bmatch|\bleague\b|\bcup\b|\bhighlights\b"),
    ("question answer interview talk", r"\bquestions?\b|\binterview"),
    ("vlog diary routine day life", r"\bvlog|\bday in (?:my|the|a)\b|\broutine"),
    ("report news headline reporter announcement story", r"\bnews\b|\bbreaking\b|\bheadlines?\b|\breport"),
    ("series episode part instalment installment", r"\bepisodes?\b|\bpart \d|\bday \d|#\d|\bseries\b"),
    ("song tune music piece sing singer", r"\bchoir|\bsing|\bsong|\bmusic|\bcover of\b|\blyrics"),
    ("play player", r"\bgam(?:e|es|ing|eplay)\b|\blevel\b|\bboss\b|\bspeedrun"),
    (
        "perform performance performer concert",
        r"\bconcert|\blive\b|\bdanc|\bsing|\bmusic|\bguitar|\bpiano|\bviolin|\bdrum",
    ),
    ("speed fast", r"\b(?:km/h|mph|kph)\b|\b(?:kilometres|kilometers|miles) per hour\b"),
    ("temperature degree", r"°|\bdegrees?\b"),
    ("price cost dollar", r"\$"),
    ("price cost euro", "€"),
    ("price cost pound", "£"),
    ("weight weigh", r"\d ?(?:kg|kilos?|lbs?|pounds|grams?)\b"),
    ("distance", r"\d ?(?:km|kilomet\w+|miles?)\b"),
    ("height tall high length long", r"\d[ -]?(?:m|cm|met(?:er|re)s?|feet|ft)\b"),
    ("percent", "%"),
    ("little few shortage insufficient", r"\black(?:s|ing)?\b|\bnot enough\b|\bshort(?:age| of)\b"),
    ("timelapse", r"\btime[ -]lapse"),
    ("time lapse", r"\btimelapse"),
    ("slow motion", r"\bslow[ -]?mo"),
    ("fast forward speeded", r"\btime ?-?lapse|\bspeed(?:ed)? up"),
    ("first", r"\bnever (?:done|tried|been)|\b1st\b|\bdebut"),
    ("win winner victory", r"\b(?:won|wins?|champions?|first place|1st place)\b"),
    ("attempt try", r"\b(?:first|1st) time\b|\btr(?:y|ies|ied|ying)\b|\battempt"),
    ("more", r"\b\w+er\b.*\bthan\b"),
    ("beginner novice", r"\bfirst (?:time|try|attempt)\b"),
    ("narrator speaker presenter maker creator host author uploader person", _FIRST_PERSON),
    ("own owner", r"\bmy\b"),
    (
        "outdoors outside outdoor",
        r"\b(?:streets?|roads?|parks?|fields?|beach|forests?|woods|gardens?|yard|backyard|lawn|lakes?|rivers?|ocean|sea"
        r"|mountains?|hills?|cliffs?|deserts?|snow|snowy|sky|trail|meadow|sidewalk|farm|jungle|dunes?|hike|hiking|camping)\b",
    ),
    (
        "indoors inside indoor",
        r"\b(?:rooms?|\w+room|kitchen|restaurant|office|gym|library|museum|store|shop|mall|hallway|lab|laboratory)\b",
    ),
)
_PERMITTED = [(frozenset(words.split()), re.compile(form, re.IGNORECASE)) for words, form in _GENRES]
_INSTRUMENT = re.compile(
    r"\b(?:guitars?|pianos?|violins?|drums?|ukuleles?|cellos?|flutes?|trumpets?|harps?|organs?|banjos?|accordions?"
    r"|saxophones?|clarinets?|keyboards?|synth\w*|trombones?|chess|cards?|tennis|football|soccer|basketball"
    r"|hockey|golf)\b",
    re.IGNORECASE,
)


@functools.lru_cache(1000)
def permitted(texts: tuple[str, ...]) -> frozenset[str]:
    """Return the lemmas that the form of ``texts`` permits."""
    text = " . ".join(texts)
    found = {word for words, form in _PERMITTED if form.search(text) for word in words}
    if any(is_usually(lemma, FOODS) for word in tokens(text) for lemma in lemmas(word)):
        found |= {"recipe", "dish", "food"}
    if _INSTRUMENT.search(text):
        found |= {"play", "player"}
    return frozenset(found)
