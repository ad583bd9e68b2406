"""Labels of frames: what is said of class probabilities, and how often it is right on frames judged by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from timm.data.imagenet_info import ImageNetInfo

from tests.conftest import ROOT
from vidal.caption.kinds import kinds
from vidal.caption.labels import (
    Label,
    frame_sentence,
    is_guess,
    narrowest_label,
    video_sentence,
    with_article,
)
from vidal.stages.text.frame_captions import FrameCaptions

INFO: Any = ImageNetInfo()
NAMES = [INFO.index_to_description(n).split(",")[0] for n in range(1000)]
VERDICTS = pd.read_csv(ROOT / "tests" / "corpora" / "frame_labels.csv", comment="#")


def label(name: str, score: float) -> Label:
    """A class by its first name, or a kind."""
    return Label(name, kinds().get(name) or frozenset([NAMES.index(name)]), score)


# ---- kinds


@pytest.mark.parametrize(
    ("kind", "members", "others"),
    [
        ("animal", {"tench", "African elephant", "trilobite"}, {"abacus", "ballplayer", "teddy"}),
        ("mammal", {"echidna", "killer whale", "pug", "hare", "giant panda"}, {"sea slug", "puffer", "monarch"}),
        ("bird", {"cock", "ostrich", "macaw", "king penguin"}, {"chime", "platypus", "birdhouse"}),
        ("dog", {"Chihuahua", "Mexican hairless", "pug"}, {"timber wolf", "dingo", "hotdog"}),
        ("cat", {"tabby", "Egyptian cat"}, {"lynx", "Madagascar cat"}),
        ("insect", {"tiger beetle", "lycaenid", "ant"}, {"barn spider", "centipede"}),
        ("reptile", {"box turtle", "sidewinder", "American alligator"}, {"axolotl", "tree frog"}),
        ("musical instrument", {"banjo", "violin", "upright"}, {"loudspeaker", "drumstick"}),
        ("vehicle", {"airliner", "unicycle", "tank", "gondola"}, {"car wheel", "traffic light"}),
        ("garment", {"abaya", "trench coat"}, {"mask", "necklace"}),
        ("building", {"barn", "yurt", "mosque"}, {"birdhouse", "suspension bridge"}),
        ("food", {"guacamole", "pizza", "espresso"}, {"hay", "cup", "plate"}),
    ],
)
def test_a_kind_has_its_classes_and_no_others(kind: str, members: set[str], others: set[str]) -> None:
    classes = {NAMES[n] for n in kinds()[kind]}
    assert members <= classes and not others & classes


def test_kinds_come_narrowest_first_and_each_has_more_than_one_class() -> None:
    sizes = [len(classes) for classes in kinds().values()]
    assert sizes == sorted(sizes) and sizes[0] > 1 and max(map(max, kinds().values())) < 1000


@pytest.mark.parametrize(
    ("likely", "named"),
    [
        ({"tabby": 0.8}, ("tabby", 0.8)),
        ({"tabby": 0.5, "Egyptian cat": 0.3}, ("cat", 0.8)),
        ({"tabby": 0.4, "pug": 0.35}, ("mammal", 0.75)),
        ({"tabby": 0.4, "goldfish": 0.3}, ("animal", 0.7)),
        ({"acoustic guitar": 0.35, "electric guitar": 0.3, "banjo": 0.1}, ("musical instrument", 0.75)),
        ({"tabby": 0.69}, None),
        ({"tabby": 0.4, "web site": 0.4}, None),
        ({}, None),
    ],
)
def test_the_narrowest_thing_that_is_likely_is_named(likely: dict[str, float], named: tuple[str, float] | None) -> None:
    probabilities = np.zeros(1000)
    for name, probability in likely.items():
        probabilities[NAMES.index(name)] = probability
    found = narrowest_label(probabilities, NAMES, 0.7)
    assert (found and (found.name, pytest.approx(found.score))) == named


# ---- sentences


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([("tabby", 0.8), ("tabby", 0.6)], "a video that may show a tabby"),
        ([("tabby", 0.8), ("studio couch", 0.7)], "a video that may show a tabby and a studio couch"),
        ([*[("tabby", 0.9)] * 3, ("studio couch", 0.6)], "a video that may show a tabby"),
        ([("pitcher", 0.5), ("tabby", 0.5), ("admiral", 0.5)], "a video that may show an admiral and a pitcher"),
        ([("tabby", 0.31), *[None] * 7], ""),
        ([None], ""),
        # What is said of a cat is not said again of an animal, and frames of either count for the wider.
        ([("cat", 0.8), ("animal", 0.8)], "a video that may show a cat"),
        ([("cat", 0.8), ("dog", 0.8), ("animal", 0.8)], "a video that may show a cat and a dog"),
        ([("cat", 0.8), *[("animal", 0.8)] * 5], "a video that may show an animal"),
        ([("mammal", 0.3), ("bird", 0.3), ("animal", 0.3), *[None] * 3], "a video that may show an animal"),
    ],
)
def test_labels_weigh_the_sum_of_their_scores(labels: list[tuple[str, float] | None], sentence: str) -> None:
    assert video_sentence([of and label(*of) for of in labels], 0.3) == sentence


@pytest.mark.parametrize(
    ("name", "text"),
    [("espresso", "an espresso"), ("sunglasses", "sunglasses"), ("Chihuahua", "a Chihuahua"), ("bus", "a bus")],
)
def test_a_label_gets_its_article(name: str, text: str) -> None:
    assert with_article(name) == text


def test_a_frame_without_a_label_has_no_caption() -> None:
    assert frame_sentence(label("tabby", 0.3)) == "a frame that may show a tabby"
    assert frame_sentence(None) == ""
    assert is_guess(frame_sentence(label("tabby", 0.9))) and not is_guess("a frame of film")


# ---- the limit, on frames judged by eye


def test_nine_labels_in_ten_are_right_at_the_default_limit_whichever_clip_is_left_out() -> None:
    likely = VERDICTS[VERDICTS["score"] >= FrameCaptions().min_score]
    said = likely.groupby(["clip_id", "frame"], as_index=False).first()
    assert VERDICTS.groupby(["clip_id", "frame"]).ngroups == 184 and len(said) >= 40
    shares = {clip: said.loc[said["clip_id"] != clip, "right"].mean() for clip in said["clip_id"].unique()}
    assert said["right"].mean() >= 0.9 and min(shares.values()) >= 0.9, shares


def test_what_was_judged_is_a_class_and_then_kinds_each_wider_and_likelier_than_the_one_before() -> None:
    for _, rows in VERDICTS.groupby(["clip_id", "frame"], sort=False):
        first, *wider = rows["label"]
        assert first in NAMES and [kind for kind in kinds() if kind in wider] == wider
        assert rows["score"].is_monotonic_increasing
