"""The guard against 200 captions that a data engineer judged, by hand, scene by scene: `tests/corpora/guard_cases.jsonl`.

Captions of even scenes were looked at while the guard was written; those of odd scenes were not. Rejecting is the
positive class: precision is the share of rejections that were right, recall the share of bad captions rejected.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conftest import ROOT
from vidal.caption.binding import miscounted, misnegated, reversed_order
from vidal.caption.guard import check
from vidal.caption.prompt import CANARY, build_prompt
from vidal.caption.views import View, clean

CASES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (ROOT / "tests" / "corpora" / "guard_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
BY_MODELS = ("video_caption", "frame_captions", "sound_caption")


def is_rejected(case: dict[str, Any]) -> bool:
    views = [View(name=n, text=clean(t, 200), quoted=n not in BY_MODELS) for n, t in case["views"].items()]
    return check(case["caption"], views, secret=CANARY, prompt=build_prompt(views).system) is not None


def test_the_corpus_is_of_200_different_cases_of_every_class() -> None:
    assert len({(case["scene"], case["caption"]) for case in CASES}) == len(CASES) == 200
    verdicts = Counter(case["verdict"] for case in CASES)
    assert set(verdicts) == {"accept", "reject"} and min(verdicts.values()) >= 80
    assert {"fact", "name", "number", "swap", "negation", "loop", "leak", "language", "url", "form", "overclaim"} <= {
        case["class"] for case in CASES if case["verdict"] == "reject"
    }


@pytest.mark.parametrize(("half", "remainder"), [("tuned on", 0), ("held out", 1)])
def test_the_guard_is_right_nine_times_in_ten(half: str, remainder: int) -> None:
    cases = [case for case in CASES if case["scene"] % 2 == remainder]
    outcome = Counter((is_rejected(case), case["verdict"]) for case in cases)
    right, false, missed = outcome[True, "reject"], outcome[True, "accept"], outcome[False, "reject"]
    precision, recall = right / (right + false), right / (right + missed)
    accepted = outcome[False, "accept"] / (outcome[False, "accept"] + false)
    print(f"{half}: {len(cases)} cases, precision {precision:.3f}, recall {recall:.3f}, good accepted {accepted:.3f}")
    assert precision > 0.9 and recall > 0.9
    assert accepted > 0.85


@pytest.mark.parametrize(
    ("text", "view", "wrong"),
    [
        ("2 eggs and 3 bananas", "3 eggs 2 bananas", "2 egg"),
        ("Three eggs and two bananas", "3 eggs 2 bananas", None),
        ("a 91-year-old grandpa after 30 years", "grandpa, 91, plays after 30 years", None),
        ("45 kg on day 120", "day 45 120 kg", "45 kg"),
        ("5 dogs", "a dog", None),
        ("2 eggs, then 3 eggs", "2 eggs, then 3 eggs", None),
    ],
)
def test_a_number_counts_what_it_counts_in_a_view(text: str, view: str, wrong: str | None) -> None:
    assert miscounted(text, [view]) == wrong


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
        ("a buffalo chases a lion", "a lion chases a buffalo", "buffalo chase lion"),
        ("a buffalo is chased by a lion", "a lion chases a buffalo", None),
        ("on dry grass a lion chases a buffalo", "a lion chases a buffalo on dry grass", None),
        ("a blue flower on a yellow canvas", "a yellow flower on a blue canvas", "blue flower yellow"),
        ("a buffalo has chased a lion", "a lion chases a buffalo", "buffalo chased lion"),
        ("a lion and a buffalo", "a buffalo and a lion", None),
        ("a buffalo chases a lion", "a lion chases a buffalo, then the buffalo chases the lion", None),
    ],
)
def test_who_does_it_to_whom_is_as_in_a_view(text: str, view: str, wrong: str | None) -> None:
    assert reversed_order(text, [view]) == wrong
