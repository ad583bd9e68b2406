"""The guard: which captions it lets pass, and why it rejects the others."""

from __future__ import annotations

import pytest

from vidal.caption.guard import check, tidy, vocabulary
from vidal.caption.injection import is_instruction
from vidal.caption.prompt import CANARY, build_prompt
from vidal.caption.views import View, clean
from vidal.caption.words import lemmas

VIDEO = View(name="video_caption", text="a man plays an old guitar on a city street", quoted=False)
TITLE = View(name="title", text="Maria's 3 puppies catch the ball in Rome", quoted=True)
OCR = View(name="ocr_text", text="STEP 12 mix 1,500 g of flour", quoted=True)
SPEECH = View(name="transcript", text="we are running to the beach and it is not cold", quoted=True)
VIEWS = (VIDEO, TITLE, OCR, SPEECH)
GUESS = View(name="video_caption", text="a video that may show a golden retriever", quoted=False)

SUPPORTED = [
    "He plays an instrument on a road.",
    "Somebody is playing his guitar and says that it is not cold.",
    "A man plays guitar on a street.",
    "A man playing an old guitar in the city.",
    "An old man played the guitar.",
    "The video shows a man and a puppy.",
    "The man may be on a street in Rome.",
]

BY_ONE_STRANGER = [
    "Maria is in Rome with puppies.",
    "Three puppies are catching the ball.",
    "A puppy caught a ball.",
    "The puppies of Maria catch balls.",
    "A step to mix 1500 g of flour.",
    "Mixing flour in step twelve.",
    "Somebody says it is not cold at the beach.",
    "A video titled 'Maria's 3 puppies'.",
    "The text on the screen is 'STEP 12'.",
]

UNSUPPORTED = [
    ("A woman plays guitar on a street.", "woman"),
    ("A man plays drums on a street.", "drums"),
    ("A man plays guitar in Paris.", "Paris"),
    ("John plays guitar on a street.", "John"),
    ("Four puppies catch the ball.", "Four"),
    ("The 4 puppies catch the ball.", "4"),
    ("A man mixes 150 g of flour.", "150"),
    ("A man mixes 1.500 g of flour.", "1.500"),
    ("A man mixes 15000 g of flour.", "15000"),
    ("Many puppies catch the ball.", "Many"),
    ("A famous man plays the guitar.", "famous"),
    ("A man happily plays the guitar.", "happily"),
    ("A car is on the street.", "car"),
    ("A kitten catches the ball in Rome.", "kitten"),
    ("A Roman catches the ball.", "Roman"),
]

REJECTED = [
    ("", "empty"),
    ("Guitar.", "short"),
    ("A man plays guitar on a", "truncated"),
    ("A man. " * 50, "long"),
    ("A man plays {guitar} on a street.", "characters"),
    ("A man plays 🎸 on a street.", "characters"),
    ("A man plays guitar\u200b on a street.", "characters"),
    (f"A man plays the {CANARY} guitar.", "leak"),
    ("Use only words of the notes, a man.", "leak"),
    ("A man plays guitar on rome.com.", "url"),
    ("A man plays guitar on https://city.street/old.", "url"),
    ("A man plays the man plays the guitar.", "loop"),
    ("A man plays the the guitar.", "loop"),
    ("A man and a man with a man on a man.", "loop"),
    ("Somebody says it is cold at the beach.", "negation"),
    ("A man never plays the guitar.", "negation"),
    ("Twelve puppies catch the ball.", "misattached"),
    ("The ball catches the puppies.", "reversed"),
    ("Maria puppies catch ball Rome guitar street.", "language"),
    ("Man plays guitar на of the street.", "language"),
]


@pytest.mark.parametrize("text", SUPPORTED)
def test_a_supported_caption_passes(text: str) -> None:
    assert check(text, VIEWS) is None


@pytest.mark.parametrize("text", BY_ONE_STRANGER)
def test_one_stranger_s_word_is_enough_only_where_no_model_saw_the_frames(text: str) -> None:
    assert check(text, (TITLE, OCR, SPEECH)) is None
    assert check(text, (GUESS, TITLE, OCR, SPEECH)) is None
    refusal = check(text, VIEWS)
    assert refusal is not None and refusal.reason in ("one_sided", "unattributed")
    assert check(f"A man plays guitar. {text}", VIEWS) is None


@pytest.mark.parametrize(("text", "word"), UNSUPPORTED)
def test_a_word_from_nowhere_is_named(text: str, word: str) -> None:
    refusal = check(text, VIEWS)
    assert refusal is not None
    assert (refusal.reason, refusal.detail) == ("unsupported", word)


@pytest.mark.parametrize(
    ("text", "view", "missing"),
    [
        ("A child buys lemonade.", "kid sells lemonade to pay for a trip", "buys"),
        ("A man fixes his bicycle.", "my brother repairs a bike", None),
        ("A musician performs a piece.", "a guitarist and a flamenco piece", None),
        ("A tutorial on braiding hair.", "how to briad hair", None),
        ("A vacuum cleaner stops.", "the vacuum stops", None),
        ("Someone stitches a ring-shaped pillow.", "I sew a ring shaped pillow", None),
        ("A factory explodes.", "tour of a factory, no explosions", "explodes"),
        ("A person weighs 80 kilograms.", "I weigh 80kg", None),
        ("Tiny lizards eat a cafe's bread.", "small lizard eats bread of a café", None),
        ("Someone plays a musical instrument.", "busking with my cello", None),
        ("The salt kills the fish.", "they say salt kills fish, and that is simply not true", "salt kills fish"),
        ("Someone does a martial art.", "I practise karate", None),
        ("A cat is outdoors.", "kitten in the garden", None),
        ("In this clip, an angler catches a trout.", "angler catches a trout", None),
        ("A fisherman says that he is cold.", "the fisherman: I am cold", None),
        ("Two people read a map.", "a man and a woman read a map", None),
        ("A couple reads a map.", "a man and a woman read a map", None),
        ("Two men read a map.", "a man and a woman read a map", "Two"),
        ("The youngest cook wins.", "a young cook wins", "youngest"),
        ("An architect explains a floor plan.", "how to read a floor plan", "architect"),
    ],
)
def test_words_are_supported_by_what_implies_them(text: str, view: str, missing: str | None) -> None:
    refusal = check(text, [View(name="title", text=view, quoted=True)])
    assert (refusal and refusal.detail) == missing


def test_what_a_speaker_tells_of_another_day_is_not_shown() -> None:
    speech = View(name="transcript", text="last year a fox ran through here, today it is just us", quoted=True)
    refusal = check("A fox runs through a garden.", [View(name="title", text="garden tour", quoted=True), speech])
    assert refusal is not None and refusal.reason == "unreal"


@pytest.mark.parametrize(("text", "reason"), REJECTED)
def test_a_caption_of_bad_form_is_rejected(text: str, reason: str) -> None:
    refusal = check(text, VIEWS, secret=CANARY, prompt=build_prompt(VIEWS).system)
    assert refusal is not None
    assert refusal.reason == reason


def test_a_word_is_licensed_only_by_the_view_it_speaks_of() -> None:
    assert check("Somebody says it is not cold.", [SPEECH]) is None
    refusal = check("Somebody says a man plays guitar.", [VIDEO])
    assert str(refusal) == "unsupported: says"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The video may show a golden retriever.", None),
        ("A golden retriever is in the video.", "overclaim"),
        ("A golden retriever in a video that may show a ball.", "overclaim"),
        ("Puppies catch the ball. The video may show a golden retriever.", None),
    ],
)
def test_a_guess_stays_a_guess(text: str, reason: str | None) -> None:
    refusal = check(text, [GUESS, TITLE])
    assert (refusal and refusal.reason) == reason


def test_a_stranger_s_may_makes_no_guess_of_a_title() -> None:
    title = View(name="title", text="puppies may catch the ball", quoted=True)
    assert check("The puppies catch a ball.", [title]) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("dogs", "dog", True),
        ("puppies", "puppy", True),
        ("movies", "movie", True),
        ("boxes", "box", True),
        ("houses", "house", True),
        ("running", "runs", True),
        ("dancing", "dances", True),
        ("falling", "fell", True),
        ("hoping", "hope", True),
        ("children", "child", True),
        ("leaves", "leaf", True),
        ("leaves", "leaving", True),
        ("five", "5", True),
        ("1,000", "1000", True),
        ("caring", "car", False),
        ("hoping", "hop", False),
        ("bus", "bu", False),
        ("man", "woman", False),
        ("12", "1", False),
        ("5", "5.0", False),
        ("singer", "sing", False),
    ],
)
def test_words_match_by_light_lemmas(one: str, other: str, same: bool) -> None:
    assert bool(lemmas(one) & lemmas(other)) is same


@pytest.mark.parametrize(
    ("reply", "sentences", "text"),
    [
        ("Caption: a dog runs.", 2, "A dog runs."),
        ('"A dog runs."', 2, "A dog runs."),
        ("In the video, a dog runs.", 2, "A dog runs."),
        ("A dog runs. A cat sits. A bird", 3, "A dog runs. A cat sits."),
        ("A dog runs. A cat sits.", 1, "A dog runs."),
        ("A dog runs.\nNote: a cat.", 2, "A dog runs."),
        ("A dog ru", 2, "A dog ru"),
        ("   ", 2, ""),
    ],
)
def test_tidy_takes_whole_sentences_alone(reply: str, sentences: int, text: str) -> None:
    assert tidy(reply, sentences) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("see https://evil.example/x?y=1 now", "see now"),
        ("mail me@evil.org or evil.com/pay", "mail or"),
        ("a\u200bb\u202ec\nd", "abc d"),
        ("<<end>> {x} [y] | `z`", "end x y z"),
        ('say "hi"', "say 'hi'"),
        ("spring 🐰🌸 at -20°", "spring at -20°"),
        ("one two three", "one two three"),
        ("one two three four", "one two three"),
    ],
)
def test_clean_leaves_one_line_of_plain_words(raw: str, text: str) -> None:
    assert clean(raw, 14 if raw.startswith("one") else 100) == text


@pytest.mark.parametrize(
    "title",
    [
        "I forgot my keys above the door",
        "How to write a novel",
        "Ignore the haters",
        "My system: 5 steps to a clean kitchen",
        "You will not believe this",
        "Answering your questions",
        "Say hello to my new dog",
        "Teacher repeats the lesson",
        "AI robots dance",
        "What to say when you meet the queen",
        "Please hold your breath",
        "Print your own photos at home",
    ],
)
def test_an_ordinary_title_is_no_instruction(title: str) -> None:
    assert not is_instruction(title)


def test_the_vocabulary_holds_the_views_words_and_no_others() -> None:
    words = vocabulary([TITLE])
    assert {"puppies", "Rome", "titled", "the", "may"} <= set(words)
    assert "guitar" not in words and "screen" not in words
