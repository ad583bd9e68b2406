"""The guard against captions that people judged by hand, scene by scene: the corpora `tests/corpora/guard_cases*.jsonl`.

Rejecting is the positive class: precision is the share of rejections that were right, recall the share of bad captions
rejected. ``guard_cases`` and ``guard_cases_2`` are by different authors, neither of whom knew the rules.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conftest import ROOT
from vidal.caption.binding import misattached, misnegated, swapped_roles
from vidal.caption.guard import check
from vidal.caption.prompt import CANARY, build_prompt
from vidal.caption.views import View, clean

BY_MODELS = ("video_caption", "frame_captions", "sound_caption")
# A corpus and its floors of precision, recall, and the share of good captions that are accepted.
FLOORS = [
    ("guard_cases.jsonl", 0.93, 0.93, 0.9),
    ("guard_cases_2.jsonl", 0.88, 0.95, 0.87),
]


def cases_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "tests" / "corpora" / name).read_text(encoding="utf-8").splitlines()]


def is_rejected(case: dict[str, Any]) -> bool:
    views = [View(name=n, text=clean(t, 200), quoted=n not in BY_MODELS) for n, t in case["views"].items()]
    return check(case["caption"], views, secret=CANARY, prompt=build_prompt(views).system) is not None


@pytest.mark.parametrize(("name", "precision", "recall", "accepted"), FLOORS)
def test_the_guard_is_mostly_right(name: str, precision: float, recall: float, accepted: float) -> None:
    cases = cases_of(name)
    assert len({(case["scene"], case["caption"]) for case in cases}) == len(cases) >= 100
    outcome = Counter((is_rejected(case), case["verdict"]) for case in cases)
    right, false, missed = outcome[True, "reject"], outcome[True, "accept"], outcome[False, "reject"]
    of_good = outcome[False, "accept"] / (outcome[False, "accept"] + false)
    found = right / (right + false), right / (right + missed), of_good
    print(f"{name}: {len(cases)} cases, precision {found[0]:.3f}, recall {found[1]:.3f}, good accepted {found[2]:.3f}")
    assert found[0] >= precision and found[1] >= recall and found[2] >= accepted


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("2 eggs and 3 bananas", "3 eggs 2 bananas", "2 egg"),
        ("Three eggs and two bananas", "3 eggs 2 bananas", None),
        ("a 91-year-old grandpa after 30 years", "grandpa, 91, plays after 30 years", None),
        ("45 kg on day 120", "day 45 120 kg", "45 kg"),
        ("5 dogs", "a dog", None),
        ("2 eggs, then 3 eggs", "2 eggs, then 3 eggs", None),
        ("a blue flower on a yellow canvas", "a yellow flower on a blue canvas", "blue flower"),
        ("four faint bands and two dots", "two faint bands and four dots", "4 faint"),
        ("a pair of hikers", "two hikers", None),
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
        ("the dough did rise", "it did not rise but then it did rise", None),
        ("the starter is active", "no starter, active yeast", "starter"),
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
        ("a buffalo chases a lion", "a lion chases a buffalo, then the buffalo chases the lion", None),
    ],
)
def test_who_does_it_to_whom_is_as_in_a_view(text: str, view: str, wrong: str | None) -> None:
    assert swapped_roles(text, [view]) == wrong
