"""Every filter at, over and under its limit, and without its number."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vidal.clip import Clip
from vidal.stages import step_class

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    # filter, settings, columns of the clip, detail of the rejection (None: the clip stays)
    ("too_short", {"min_s": 2}, {"duration_s": 1.999}, "2.00 s < 2 s"),
    ("too_short", {"min_s": 2}, {"duration_s": 2.0}, None),
    ("too_short", {}, {"duration_s": None}, None),
    ("too_long", {}, {"duration_s": 31.2}, "31.20 s > 20 s"),
    ("too_long", {}, {"duration_s": 20.0}, None),
    ("too_long", {}, {"duration_s": None}, None),
    ("too_small", {"min_side": 200}, {"width": 1920, "height": 199}, "1920x199, shorter side < 200 px"),
    ("too_small", {"min_side": 200}, {"width": 199, "height": 1920}, "199x1920, shorter side < 200 px"),
    ("too_small", {"min_side": 200}, {"width": 200, "height": 200}, None),
    ("too_small", {}, {"width": 10, "height": None}, None),
    ("too_static", {"min_motion": 1}, {"motion": 0.25, "freeze_share": 0.0}, "motion 0.25 < 1"),
    ("too_static", {}, {"motion": 5.0, "freeze_share": 0.95}, "frozen share 0.95 > 0.9"),
    ("too_static", {}, {"motion": None, "freeze_share": 0.95}, "frozen share 0.95 > 0.9"),
    ("too_static", {"min_motion": 1}, {"motion": 1.0, "freeze_share": 0.9}, None),
    ("too_static", {}, {"motion": None, "freeze_share": None}, None),
    ("too_dark", {"min_luma": 0.1}, {"luma_mean": 0.05}, "mean brightness 0.050 < 0.1"),
    ("too_dark", {}, {"luma_mean": 0.5, "black_share": 0.75}, "black share 0.75 > 0.5"),
    ("too_dark", {"min_luma": 0.1}, {"luma_mean": 0.1, "black_share": 0.5}, None),
    ("too_dark", {}, {"luma_mean": None, "black_share": None}, None),
    ("too_blurry", {"max_blur": 10}, {"blur": 10.5}, "blur 10.50 > 10"),
    ("too_blurry", {"max_blur": 10}, {"blur": 10.0}, None),
    ("too_blurry", {}, {"blur": math.nan}, None),
    ("too_blurry", {}, {"blur": None}, None),
    ("too_much_text", {"max_area_share": 0.3}, {"ocr_area_share": 0.4}, "text covers 0.40 of a frame > 0.3"),
    ("too_much_text", {"max_area_share": 0.3}, {"ocr_area_share": 0.3}, None),
    ("too_much_text", {}, {"ocr_area_share": None}, None),
    (
        "damaged",
        {"max_share": 0.05},
        {"corrupt_frames": 6, "frame_count": 100},
        "corrupt share of frames 0.060 > 0.05",
    ),
    ("damaged", {"max_share": 0.05}, {"corrupt_frames": 5, "frame_count": 100, "damage": ["corrupt_frames"]}, None),
    ("damaged", {}, {"has_audio": True, "corrupt_audio_share": 0.25}, "corrupt share of audio 0.250 > 0.05"),
    ("damaged", {}, {"has_audio": False, "corrupt_audio_share": 0.75}, None),
    ("damaged", {}, {"damage": ["frame_size_changes", "silent_audio"]}, "frame_size_changes"),
    (
        "damaged",
        {"words": ["silent_audio", "shorter_than_stated"]},
        {"damage": ["frame_size_changes", "shorter_than_stated", "silent_audio"]},
        "shorter_than_stated, silent_audio",
    ),
    ("damaged", {"words": []}, {"damage": ["frame_size_changes"]}, None),
    ("damaged", {}, {"corrupt_frames": None, "frame_count": None, "corrupt_audio_share": None}, None),
    ("no_audio", {}, {"has_audio": False}, "0 sound tracks < 1"),
    ("no_audio", {}, {"has_audio": True}, None),
    ("no_audio", {}, {"has_audio": None}, None),
    ("wrong_language", {}, {"title_language": "pt"}, "pt is not one of en"),
    (
        "wrong_language",
        {"allowed": ["en", "fr"]},
        {"title_language": "pt", "title_language_score": 0.9},
        "pt (score 0.90) is not one of en, fr",
    ),
    ("wrong_language", {"allowed": ["en", "pt"]}, {"title_language": "pt", "title_language_score": 0.9}, None),
    ("wrong_language", {}, {"title_language": "pt", "title_language_score": 0.3}, None),
    ("wrong_language", {}, {"title_language": None}, None),
]


@pytest.mark.parametrize(("name", "settings", "columns", "detail"), TABLE)
def test_a_filter_rejects_beyond_its_limit_and_says_the_number_and_the_limit(
    name: str, settings: dict[str, Any], columns: dict[str, Any], detail: str | None
) -> None:
    clip = Clip(**columns)
    step_class(name)(**settings).process_batch([clip])
    expected = ("candidate", None, None) if detail is None else ("rejected", name, detail)
    assert (clip.status, clip.reason, clip.detail) == expected


@pytest.mark.parametrize(
    ("title_words", "hashtags", "kept_by_and", "kept_by_or"),
    [
        (2, ["dog"], True, True),
        (2, [], False, True),
        (1, ["dog"], False, True),
        (1, [], False, False),
    ],
)
def test_vidals_ambiguous_title_rule_is_a_switch(
    title_words: int, hashtags: list[str], kept_by_and: bool, kept_by_or: bool
) -> None:
    for mode, kept in (("and", kept_by_and), ("or", kept_by_or)):
        clip = Clip(clean_title="some title", title_words=title_words, hashtags=hashtags)
        step_class("no_text")(mode=mode).process_batch([clip])
        assert clip.is_open == kept, mode


@pytest.mark.parametrize(
    ("clean_title", "title_words", "detail"),
    [
        (None, None, "0 words, 1 hashtags; wanted 2 words and 1 hashtags"),
        ("", 3, "0 words, 1 hashtags; wanted 2 words and 1 hashtags"),
        ("never counted", None, None),
    ],
)
def test_no_title_is_no_words_but_an_uncounted_title_stays(
    clean_title: str | None, title_words: int | None, detail: str | None
) -> None:
    clip = Clip(clean_title=clean_title, title_words=title_words, hashtags=["dog"])
    step_class("no_text")().process_batch([clip])
    assert clip.detail == detail


def test_a_filter_writes_nothing_but_the_outcome() -> None:
    for name in sorted({name for name, *_ in TABLE} | {"no_text"}):
        assert step_class(name).writes == (), name
