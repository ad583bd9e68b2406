"""Which of a clip's texts it is trained with."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from vidal.errors import ClipError
from vidal.train.data.text_views import PRESETS, VIEWS, TextViews

WHOLE: dict[str, Any] = {
    "title": "Title", "hashtags": ["one", "two"], "clean_title": "clean", "video_caption": "video", "caption": "best",
    "frame_captions": ["zero", "one", "", "three"], "transcript": "said", "ocr_text": "read", "sound_caption": "heard",
}  # fmt: skip


def views(given: Any) -> TextViews:
    return TypeAdapter(TextViews).validate_python(given)


def drawn(given: Any, row: dict[str, Any], count: int = 4000) -> Counter[str]:
    rng, chooser = np.random.default_rng(0), views(given)
    return Counter(chooser.choose(row, rng).text for _ in range(count))


TEXTS = {
    "raw": {"Title #one #two"},
    "cleaned": {"clean"},
    "frame_caption": {"zero", "one", "three"},
    "video_caption": {"video"},
    "transcript": {"said"},
    "ocr": {"read"},
    "sound_caption": {"heard"},
    "caption": {"best"},
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_gives_its_columns_texts(view: str) -> None:
    assert set(drawn({view: 1}, WHOLE, 60)) == TEXTS[view]


SHARES = {
    "caption": ("caption", WHOLE, {"best": 1.0}),
    "mix": ("mix", WHOLE, {"Title #one #two": 0.2, "video": 0.2, "best": 0.2, "heard": 0.2, "zero": 0.2 / 3, "one": 0.2 / 3, "three": 0.2 / 3}),
    "weights of any sum": ({"caption": 3, "ocr": 1}, WHOLE, {"best": 0.75, "read": 0.25}),
    "a view of no weight": ({"caption": 1, "ocr": 0}, WHOLE, {"best": 1.0}),
    "a text that is missing": ({"caption": 2, "ocr": 1, "cleaned": 1}, {**WHOLE, "caption": None}, {"read": 0.5, "clean": 0.5}),
    "a text of blanks": ({"caption": 1, "ocr": 1}, {**WHOLE, "caption": "  \n"}, {"read": 1.0}),
    "text with blanks": ("caption", {"caption": " best "}, {"best": 1.0}),
    "a title without hashtags": ({"raw": 1}, {"title": "Title"}, {"Title": 1.0}),
    "hashtags without a title": ({"raw": 1}, {"title": None, "hashtags": ["one"]}, {"#one": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize(("given", "row", "shares"), SHARES.values(), ids=SHARES)
def test_texts_are_drawn_by_their_weights(given: Any, row: dict[str, Any], shares: dict[str, float]) -> None:
    found = drawn(given, row)
    assert set(found) == set(shares)
    assert all(abs(found[text] / found.total() - share) < 0.03 for text, share in shares.items())


def test_languagebinds_mix_gives_each_of_eight_frame_captions_a_fortieth() -> None:
    found = drawn("mix", {**WHOLE, "frame_captions": [f"frame {k}" for k in range(8)]}, 20_000)
    assert all(abs(found[f"frame {k}"] / 20_000 - 0.025) < 0.005 for k in range(8))


def test_a_frame_caption_names_its_frame_and_another_text_none() -> None:
    rng, chooser = np.random.default_rng(0), views({"frame_caption": 1, "caption": 1})
    found = {(choice.text, choice.frame) for choice in (chooser.choose(WHOLE, rng) for _ in range(200))}
    assert found == {("zero", 0), ("one", 1), ("three", 3), ("best", None)}


def test_a_draw_is_a_function_of_the_generator_and_the_row() -> None:
    twice = [views("mix").choose(WHOLE, np.random.default_rng(7)) for _ in range(2)]
    assert twice[0] == twice[1]


@pytest.mark.parametrize("row", [{}, {"caption": ""}, {"caption": None, "frame_captions": None}, {"ocr_text": "read"}])
def test_a_row_without_a_text_of_the_views_is_told(row: dict[str, Any]) -> None:
    assert views("mix").has_text([row, WHOLE]).tolist() == [False, True]
    with pytest.raises(ClipError, match="no_text"):
        views("mix").choose(row, np.random.default_rng(0))


def test_every_text_comes_once_for_evaluation() -> None:
    assert views({"caption": 1, "video_caption": 1, "ocr": 1}).every({**WHOLE, "video_caption": "best"}) == [
        "best",
        "read",
    ]


REJECTED = {
    "an unknown preset": ("mixx", "no preset `mixx`"),
    "an unknown view": ({"captoin": 1}, "did you mean caption"),
    "nothing like a view": ({"zzz": 1}, "video_caption"),
    "a negative weight": ({"caption": -1, "ocr": 2}, "not negative"),
    "no weight at all": ({"caption": 0}, "not all zero"),
    "not a number": ({"caption": float("nan")}, "weights of text views"),
    "endless": ({"caption": float("inf")}, "weights of text views"),
}


@pytest.mark.parametrize(("given", "said"), REJECTED.values(), ids=REJECTED)
def test_weights_that_mean_nothing_are_rejected(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        views(given)


@pytest.mark.parametrize("given", [*PRESETS, {"raw": 1}, {"weights": {"raw": 1}}])
def test_what_was_written_down_is_read_back(given: Any) -> None:
    assert views(views(given).model_dump()) == views(given)


@pytest.mark.parametrize("view", VIEWS)
def test_the_columns_of_a_view_are_those_that_it_reads(view: str) -> None:
    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return default

    read: set[str] = set()
    VIEWS[view](Watched())
    assert read == set(views({view: 1}).columns)
