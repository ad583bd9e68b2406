"""The guard against captions that people judged by hand, scene by scene: the corpora `tests/corpora/guard_cases*.jsonl`.

Rejecting is the positive class: precision is the share of rejections that were right, recall the share of bad captions
rejected. The corpora are by four authors, none of whom knew the rules; all are tuned on but ``guard_unseen_2.jsonl``,
which is by the fourth.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from vidal.caption.binding import misattached, misnegated, swapped_roles
from vidal.caption.guard import check
from vidal.caption.labels import with_article
from vidal.caption.links import crossed
from vidal.caption.prompt import CANARY, build_prompt
from vidal.caption.reality import actual
from vidal.caption.spelling import edited
from vidal.caption.views import View, clean

BY_MODELS = ("video_caption", "frame_captions", "sound_caption")
# A corpus and its floors of precision, recall, and the share of good captions that are accepted.
FLOORS = [
    ("guard_cases.jsonl", 0.95, 0.96, 0.93),
    ("guard_cases_2.jsonl", 0.93, 1.0, 0.92),
    ("guard_cases_3.jsonl", 0.98, 0.98, 0.98),
    ("guard_cases_4.jsonl", 0.90, 0.98, 0.90),
    # What it is worth on captions that nobody tuned for; .9 of each was the goal.
    ("guard_unseen_2.jsonl", 0.73, 0.77, 0.72),
]


def cases_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def views_of(case: dict[str, Any]) -> list[View]:
    texts = case["views"]
    if "accept" in case:
        labels, sounds = " and ".join(map(with_article, texts["labels"])), ", ".join(texts["sound"]).lower()
        texts = {
            "title": texts["title"],
            "description": texts["description"],
            "hashtags": " ".join(texts["tags"]),
            "ocr_text": " ".join(texts["ocr"]),
            "transcript": texts["speech"],
            "sound_caption": sounds,
            "video_caption": f"a video that may show {labels}" if labels else "",
        }
    cleaned = {name: clean(text, 300) for name, text in texts.items()}
    return [View(name=name, text=text, quoted=name not in BY_MODELS) for name, text in cleaned.items() if text]


def is_rejected(case: dict[str, Any]) -> bool:
    return check(case["caption"], views_of(case), secret=CANARY, prompt=build_prompt([]).system) is not None


def measured(path: Path) -> tuple[float, float, float]:
    """Precision and recall of rejecting, and the share of good captions accepted."""
    cases = cases_of(path)
    assert len({json.dumps([case["views"], case["caption"]]) for case in cases}) == len(cases) >= 100
    is_good = [case["accept"] if "accept" in case else case["verdict"] == "accept" for case in cases]
    outcome = Counter(zip(map(is_rejected, cases), is_good, strict=True))
    right, false, missed, kept = (outcome[at] for at in ((True, False), (True, True), (False, False), (False, True)))
    found = right / (right + false), right / (right + missed), kept / (kept + false)
    print(
        f"{path.name}: {len(cases)} cases, rejecting: precision {right}/{right + false} = {found[0]:.3f}, recall"
        f" {right}/{right + missed} = {found[1]:.3f}; accepting: precision {kept}/{kept + missed} ="
        f" {kept / (kept + missed):.3f}, recall {kept}/{kept + false} = {found[2]:.3f}"
    )
    return found


@pytest.mark.parametrize(("name", "precision", "recall", "accepted"), FLOORS)
def test_the_guard_is_mostly_right(name: str, precision: float, recall: float, accepted: float) -> None:
    found = measured(ROOT / "tests" / "corpora" / name)
    assert found[0] >= precision and found[1] >= recall and found[2] >= accepted


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("What if a comet hit Mars? Animation", "Animation"),
        ("so, can dogs see red? ask me", "ask me"),
        ("Wood or steel: which lasts longer? a test", "Wood or steel: a test"),
        ("Crew hopes to one day sail to Peru", "Crew"),
        ("Actor denies he has left the show", "Actor"),
        ("a can of worms and a bait shop", "a can of worms and a bait shop"),
        ("cracked phone? replacing the screen", "cracked phone? replacing the screen"),
        ("learning to juggle in a week", "learning to juggle in a week"),
    ],
)
def test_what_is_asked_planned_or_denied_is_not_said_to_be_so(text: str, stays: str) -> None:
    assert " ".join(actual(text).split()) == stays


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("A tall boy waters a short tree.", "Short boy waters a tall tree", "tall boy"),
        ("A short boy waters a tall tree.", "Short boy waters a tall tree", None),
        ("A man reads at night and fishes at noon.", "at noon I read and at night I fish", "read night"),
        ("A man reads at noon and fishes at night.", "at noon I read and at night I fish", None),
        ("The wood is painted before it is sanded.", "first you sand the wood, then you paint it", "paint before sand"),
        ("Cheap glue holds better than dear glue.", "Dear glue holds better than cheap glue", "cheap better dear"),
        ("The wood is painted after it is sanded.", "first you sand the wood, then you paint it", None),
        ("A family moves from Peru to Chile.", "We moved from Chile to Peru", "peru"),
        ("A boy jumps onto a chair.", "a boy jumps off a chair", "chair"),
        ("A cat hides behind a box.", "cat in front of a box, then behind the box", None),
    ],
)
def test_words_stay_with_their_partners(text: str, view: str, wrong: str | None) -> None:
    found = crossed(text, [view])
    assert (found is not None and set(wrong.split()) <= set(found.split())) if wrong else found is None


@pytest.mark.parametrize(
    ("text", "as_edited"),
    [
        ("sooo cooool trick", "so cool trick"),
        ("u need ur keys w/o me", "you need your keys without me"),
        ("#citylife", "#citylife city life"),
        ("three hundred and five geese, 2k ducks", "305 geese, 2000 ducks"),
        ("half an hour with two dozen eggs", "30 minutes with 24 eggs"),
        ("La Paz and Maria", "La Paz and Maria"),
    ],
)
def test_a_view_is_read_as_an_edited_text(text: str, as_edited: str) -> None:
    assert edited(text) == as_edited


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("2 eggs and 3 bananas", "3 eggs 2 bananas", "2 egg"),
        ("Three eggs and two bananas", "3 eggs 2 bananas", None),
        ("a 91-year-old grandpa after 30 years", "grandpa, 91, plays after 30 years", None),
        ("a 6-year-old solves 12 puzzles", "12 year old solves 6 puzzles", "6 years old"),
        ("45 kg on day 120", "day 45 120 kg", "45 kilogram"),
        ("5 dogs", "a dog", None),
        ("2 eggs, then 3 eggs", "2 eggs, then 3 eggs", None),
        ("a blue flower on a yellow canvas", "a yellow flower on a blue canvas", "blue flower"),
        ("four faint bands and two dots", "two faint bands and four dots", "4 band"),
        ("a pair of hikers", "two hikers", None),
        ("two keepers save a swimmer", "a keeper saves two swimmers", "2 keeper"),
        ("two girls on a slide", "two little girls ride down a slide", None),
        ("it begins at four in the morning", "my 4 AM morning", None),
    ],
)
def test_a_number_counts_what_it_counts_in_a_view(text: str, view: str, wrong: str | None) -> None:
    assert misattached(text, [view]) == wrong


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("the screen is bright", "the screen is not bright", "bright"),
        ("the screen isn't bright", "the screen is not bright", None),
        ("the screen is not bright", "the screen is bright", "bright"),
        ("somebody speaks", "music; nobody speaks", "speak"),
        ("nobody came to the concert", "nobody showed up to my concert", None),
        ("the dough did rise", "it did not rise but then it did rise", None),
        ("the starter is active", "no starter, active yeast", "starter"),
        ("a hiker did not reach the summit", "I didn't make it to the summit", None),
        ("a cat refuses to take a bath", "my cat will not take a bath", None),
    ],
)
def test_what_a_view_denies_stays_denied(text: str, view: str, wrong: str | None) -> None:
    assert misnegated(text, [view]) == wrong


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("a buffalo chases a lion", "a lion chases a buffalo", "buffalo chase"),
        ("a buffalo is chased by a lion", "a lion chases a buffalo", None),
        ("on dry grass a lion chases a buffalo", "a lion chases a buffalo on dry grass", None),
        ("a buffalo has chased a lion", "a lion chases a buffalo", "buffalo chase"),
        ("a lion and a buffalo", "a buffalo and a lion", None),
        ("a woman hides while a man searches", "a man hides while a woman searches", "woman hide"),
        ("a keeper has a shot blocked by a striker", "a keeper blocks a shot by a striker", "striker block"),
        ("a drone finds three hikers", "3 hikers lost in the fog found by a drone", None),
        ("Brazil defeats Croatia", "Croatia beats Brazil", "brazil defeat croatia"),
        ("a buffalo chases a lion", "a lion chases a buffalo, then the buffalo chases the lion", None),
    ],
)
def test_who_does_it_to_whom_is_as_in_a_view(text: str, view: str, wrong: str | None) -> None:
    assert swapped_roles(text, [view]) == wrong
