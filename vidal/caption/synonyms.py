"""Words that a caption may put for each other and that WordNet keeps apart, by usage in descriptions of videos.

A group is symmetric and not transitive: a word in two groups links no others.
"""

from __future__ import annotations

import functools

_GROUPS = """
rescue free save release liberate|listen hear audience|trip journey tour ride voyage excursion|begin start open
shut close|come arrive attend appear show|paddle row kayak canoe|homemade diy handmade self-made
former old previous ex|convert turn transform change become|walk stroll hike wander|sample taste try test
big large huge giant enormous massive|small little tiny mini miniature|torrential heavy pouring
speak talk chat discuss|repair fix mend|look watch see view observe|buy purchase get acquire|cook make prepare bake
build make construct assemble create craft|make create produce form|carpet rug mat|couch sofa|simultaneously once
almost nearly|dawn sunrise daybreak|dusk sunset nightfall|early morning|child kid youngster|bike bicycle cycle
road street lane|store shop boutique|wood woods forest woodland|sea ocean|movie film cinema
photo picture photograph image|mom mother|dad father|car automobile|plane airplane aircraft|game match
contest competition tournament|award prize|student pupil learner|teacher instructor tutor|doctor physician
police cop officer|goalie goalkeeper keeper|reporter journalist|singer vocalist|crowd audience spectators
fast quick rapid|quit leave resign|explain describe tell discuss|attempt try|hit strike|jump leap hop
carry hold bring|throw toss hurl|grab take seize|pull drag tow|cut slice chop trim|mix stir blend combine|clean wash
ask question wonder|answer reply respond|win beat defeat victory triumph|grow raise cultivate|plant sow
pick harvest gather collect|rest sleep nap doze asleep|run race jog sprint|drive ride|climb scale ascend
fall drop tumble collapse|reuse upcycle recycle repurpose|renovate restore remodel refurbish renovation makeover
hunt search seek|hide conceal|explore discover visit tour|swap exchange trade switch replace change
finish complete end|stop halt|show demonstrate present display|clean tidy|scared frightened afraid|dislike hate
entangled tangled trapped caught|frozen icy|huge vast|tall high|unbox open unpack|sew stitch|knit crochet yarn
draw sketch|paint decorate|fly soar|swim float|cross traverse|propose proposal marriage engagement|score goal
injured hurt wounded|stroke pet cuddle|eat dine munch devour|race compete|play compete|wait await
steal snatch thief rob|break crack shatter smash|crack split|flat punctured|tire tyre wheel|storm thunderstorm
flood flooding inundate|rain rainfall|wind windy gust|snow snowfall snowy|quake earthquake|house home|town city
farm ranch|field meadow pitch|path trail track|hill slope|stone rock|garden yard backyard|pond lake|boat vessel
ship vessel|truck lorry|subway metro underground|luggage suitcase baggage|trash garbage rubbish waste
sweater jumper pullover|pants trousers|sneakers trainers shoes|cookie biscuit|candy sweets|fries chips
soda drink beverage|meal dish food|dinner supper|dessert pudding|dough pastry|frosting icing|pan skillet
stove cooker|fridge refrigerator|vacation holiday|fall autumn|elevator lift|apartment flat|faucet tap
flashlight torch|gas petrol fuel|mailman postman|stallholder vendor seller|grandma grandmother|grandpa grandfather
under below beneath less|over above more|approximately about roughly around|everyone all everybody|whole entire
same identical|different various|correct right|begin launch|new fresh|broken damaged|deserted abandoned|lost missing
rescue saved|adopt take|own owner|return back|secret hidden|speed fast|train practice exercise workout training
lift raise|strong powerful|loud noisy|quiet silent calm|easy simple|hard difficult tough
refuse not|decline not|fail not|unable not|woman lady|man guy fellow|ship boat|shore beach coast seaside sand
trick stunt|pole post|soccer football
colorful colourful bright|onstage stage|many crowd|hold carry grasp|put place add set lay|spin turn rotate|pack load
lawn grass|terrain landscape|sit seat|pose stand|help assist aid|bite gnaw chew|fun enjoy|street sidewalk pavement
cheap budget inexpensive affordable|expensive costly pricey|wealthy rich|famous celebrity|scary spooky
funny comic humorous|crazy insane wild extreme|fitness exercise|yoga stretch|hike hiking trek|camp camping tent
fish fishing angling|surf surfing wave|ski skiing|skate skating|cycle cycling|climb climbing ascent|perform act
audition tryout|rehearse rehearsal practice practise|compare comparison versus|review test|list ranking|reveal show
mistake error|hack trick tip|advice tip|fact truth|reaction react response respond|prank joke|challenge dare
result outcome|process step|change transformation|finds discoveries|headline news|launch liftoff takeoff
land landing touchdown|crash collide collision accident wreck|suspend stop interrupt halt|cancel scrap
delay postpone|evacuate flee|protest demonstrate demonstration rally march|elect vote election|arrest detain
discuss debate|warn caution alert|ban prohibit forbid|lack shortage|effect impact
"""


@functools.cache
def _by_word() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in _GROUPS.strip().replace("\n", "|").split("|"):
        for word in group.split():
            found.setdefault(word, set()).update(group.split())
    return {word: frozenset(words) for word, words in found.items()}


def near(word: str) -> frozenset[str]:
    """Return the lemmas that may stand for a lemma, itself included if it is in a group."""
    return _by_word().get(word, frozenset())
