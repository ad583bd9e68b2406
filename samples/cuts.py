"""What is cut: one entry per clip."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What to cut and how to encode it."""

    clip_id: str
    source: str
    title: str
    hashtags: str
    start_s: float = 0.0
    duration_s: float = 6.0
    suffix: str = "mp4"
    codec: str = "h264"
    crf: int = 29
    size: str = "640x360"
    focus: float = 0.5
    """Where the crop window lies: 0 keeps the left edge, 1 the right edge."""
    rate: str = ""
    """Frame rate; empty keeps the source's, "variable" drops every second and third frame of the middle."""
    sound: str = "own"
    """own, none, silent, or late (own, starting 2 s after the picture)."""
    voice: str = ""
    """A recorded sentence over the sound, which says what the drawn lines say."""
    caption: tuple[str, ...] = ()
    """Lines drawn on the picture."""
    caption_y: float = 0.72
    title_card: str = ""
    """Words that the source itself shows."""
    dialogue: str = ""
    """Words that are spoken in the source itself."""
    closer: float = 0.55
    """How much closer the slow pan over a still photograph comes."""
    rotation: int = 0
    """Degrees in the display matrix; the stored picture is turned the other way."""
    look: str = ""
    """An extra filter."""
    language: str = "en"
    expected: str = "kept"
    notes: str = ""


CLIPS: tuple[Clip, ...] = (
    Clip(
        clip_id="bunny-wake",
        source="film",
        title="POV: nobody told you it was spring 🐰🌸",
        hashtags="#shorts #bunny #animation",
        start_s=50,
        duration_s=10,
    ),
    Clip(
        clip_id="bunny-apple",
        source="film",
        title="He only wanted one apple 🍎",
        hashtags="#shorts #fyp #bunny",
        start_s=87,
        duration_s=11,
        size="360x640",
        focus=0.28,
        caption=("HE ONLY", "WANTED", "ONE APPLE"),
        caption_y=0.68,
    ),
    Clip(
        clip_id="bunny-unlucky-bird",
        source="trailer",
        title="This bird is NOT having a good day 😂",
        hashtags="#shorts #funny #bird",
        start_s=10.2,
        duration_s=3.4,
        size="1280x720",
        title_card="An unlucky bird",
        notes="title from the trailer itself",
    ),
    Clip(
        clip_id="bunny-overweight",
        source="trailer",
        title="Monday mornings be like",
        hashtags="#relatable #mood #animation",
        start_s=17.5,
        duration_s=7.5,
        suffix="webm",
        codec="vp9",
        crf=38,
        size="854x480",
        title_card="A (slightly overweight) bunny",
        notes="title from the trailer itself, gone in the last 2 s",
    ),
    Clip(
        clip_id="bunny-squirrel",
        source="film",
        title="When you see your crush 🦋 wait for it",
        hashtags="#shorts #squirrel #butterfly",
        start_s=192,
        duration_s=8,
        suffix="webm",
        codec="vp9",
        crf=38,
        size="400x400",
        focus=0.4,
    ),
    Clip(
        clip_id="bunny-weasels",
        source="film",
        title="They did WHAT?? 📞🐿️ #shorts",
        hashtags="#shorts #comedy #squirrels",
        start_s=324.5,
        duration_s=6,
        size="360x640",
        voice="weasels",
        caption=("WEASELS HAVE", "EATEN OUR", "PHONE SYSTEM"),
        caption_y=0.68,
    ),
    Clip(
        clip_id="bunny-spikes",
        source="film",
        title="Do not try this at home ⚠️ trap level 100",
        hashtags="#trap #forest #animation",
        start_s=447,
        duration_s=8,
        suffix="mkv",
        codec="hevc",
        crf=30,
    ),
    Clip(
        clip_id="bunny-glider",
        source="film",
        title="flying squirrel takes off ✈️",
        hashtags="#shorts #flying #squirrel",
        start_s=400,
        duration_s=9,
        rate="variable",
        notes="variable frame rate",
    ),
    Clip(
        clip_id="bunny-stick",
        source="film",
        title="DIY with one stick 🪵 part 1",
        hashtags="#diy #forest #shorts",
        start_s=271,
        duration_s=9,
        suffix="mov",
        size="360x640",
        rotation=90,
        caption=("DIY WITH", "ONE STICK"),
        notes="stored lying down, turned upright by its display matrix",
    ),
    Clip(
        clip_id="bunny-forest",
        source="film",
        title="Лесная зарядка 🌲 утро начинается так",
        hashtags="#лес #shorts #animation",
        start_s=363,
        duration_s=8,
        suffix="mkv",
        codec="mpeg4",
        size="512x288",
        language="ru",
        notes="title in Russian",
    ),
    Clip(
        clip_id="bunny-butterfly",
        source="film",
        title="purple butterfly vs big bunny 💜",
        hashtags="#butterfly #cute",
        start_s=108,
        duration_s=7,
        rate="15",
        sound="none",
    ),
    Clip(
        clip_id="bunny-flower",
        source="film",
        title="Smells like spring 🌼",
        hashtags="#shorts #flowers #spring",
        start_s=67,
        duration_s=9,
        sound="late",
        notes="sound starts 2 s after the picture",
    ),
    Clip(
        clip_id="sintel-snow",
        source="sintel",
        title="Walking home in -20° ❄️ cold hearted",
        hashtags="#shorts #snow #mountains",
        start_s=1.5,
        duration_s=7.2,
        size="360x640",
        focus=0.25,
    ),
    Clip(
        clip_id="sintel-gatekeepers",
        source="sintel",
        title="best dialogue in an open movie",
        hashtags="#sintel #movie #scene",
        start_s=11.8,
        duration_s=3.8,
        size="854x364",
        dialogue="what brings you to the land of the gatekeepers",
        look="eq=gamma=1.4:saturation=1.1",
        notes="spoken in the trailer itself; brightened",
    ),
    Clip(
        clip_id="sintel-dragon",
        source="sintel",
        title="She lost her dragon 😭🐉",
        hashtags="#shorts #dragon #sintel",
        start_s=28.6,
        duration_s=6.4,
        suffix="mov",
        size="640x272",
    ),
    Clip(
        clip_id="sintel-ruins",
        source="sintel",
        title="空飛ぶ竜と廃墟の街 🐲",
        hashtags="#アニメ #dragon #shorts",
        start_s=23.0,
        duration_s=4.8,
        suffix="webm",
        codec="vp9",
        crf=38,
        size="640x272",
        language="ja",
        notes="title in Japanese",
    ),
    Clip(
        clip_id="sintel-dunes",
        source="sintel",
        title="alone in the desert 🏜️",
        hashtags="#desert #travel #shorts",
        start_s=36,
        duration_s=4,
        size="400x400",
        focus=0.2,
        sound="silent",
        caption=("HOT SAND", "COLD HEART"),
        caption_y=0.16,
        notes="silent sound track",
    ),
    Clip(
        clip_id="band-session",
        source="band",
        title="Kali live in the studio 🎸 full band",
        hashtags="#livemusic #band #rock",
        start_s=15.6,
        duration_s=9,
        suffix="mov",
        size="480x270",
        notes="music only; enlarged from 176x144",
    ),
    Clip(
        clip_id="band-guitar",
        source="band",
        title="that guitar tone though 🔥",
        hashtags="#guitar #shorts #livemusic",
        start_s=24,
        duration_s=10,
        size="360x640",
        focus=0.7,
        caption=("THAT", "GUITAR TONE", "THOUGH"),
        caption_y=0.1,
        notes="enlarged from 176x144",
    ),
    Clip(
        clip_id="city-night",
        source="city",
        title="night city vibes 🌃",
        hashtags="#city #night #architecture",
        start_s=0,
        duration_s=7.4,
        suffix="webm",
        codec="vp9",
        crf=40,
        sound="none",
    ),
    Clip(
        clip_id="astronaut-portrait",
        source="astronaut",
        title="Meet the astronaut: Eileen Collins 🚀",
        hashtags="#space #nasa #history",
        duration_s=6,
        size="360x640",
        sound="silent",
        caption=("FIRST WOMAN", "TO COMMAND", "A SHUTTLE"),
        caption_y=0.7,
        notes="slow pan over a still photograph; silent sound track",
    ),
    Clip(
        clip_id="cat-stare",
        source="cat",
        title="chat très sérieux 😼",
        hashtags="#chat #cat #shorts",
        duration_s=4,
        size="480x320",
        sound="none",
        language="fr",
        notes="slow pan over a still photograph; title in French",
    ),
    Clip(
        clip_id="rocket-hold",
        source="rocket",
        title="Please hold, your rocket is important to us 😅🚀",
        hashtags="#rocket #space #comedy",
        duration_s=10,
        closer=1.2,
        sound="silent",
        notes="slow pan over a still photograph; silent sound track",
    ),
    # ------------------------------------------------------------------------------------------------- dropped
    Clip(
        clip_id="long-meadow",
        source="film",
        title="the whole meadow scene 🌿 relaxing",
        hashtags="#relax #nature",
        start_s=150,
        duration_s=24,
        size="256x144",
        crf=34,
        expected="too_long",
    ),
    Clip(
        clip_id="coffee-still",
        source="coffee",
        title="coffee first ☕",
        hashtags="#coffee #morning",
        duration_s=5,
        size="480x320",
        sound="silent",
        look="still",
        expected="too_static",
        notes="one still photograph",
    ),
    Clip(
        clip_id="dark-forest",
        source="film",
        title="what is in the forest at 3 am 😱",
        hashtags="#scary #night",
        start_s=345,
        duration_s=6,
        size="480x270",
        look="lutyuv=y='16+(val-16)*0.06':u='128+(val-128)*0.06':v='128+(val-128)*0.06'",
        expected="too_dark",
        notes="darkened",
    ),
    Clip(
        clip_id="wordless-sky",
        source="film",
        title="",
        hashtags="",
        start_s=436,
        duration_s=6,
        size="480x270",
        expected="no_text",
        notes="uploaded without title and hashtags",
    ),
)
