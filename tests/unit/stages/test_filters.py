"""Every filter at, over and under its limit, and without its number."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidal.clip import Clip
from vidal.dataset import planning
from vidal.record import from_row
from vidal.rows import whole
from vidal.sources.folder import FolderSource
from vidal.sources.list import ListSource
from vidal.sources.source import Source
from vidal.stages import CATALOGUE, step_class
from vidal.stages.text.clean_title import CleanTitle

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], str | None, tuple[float, float] | None]] = [
    # filter, settings, columns of the clip, detail of the rejection (None: the clip stays), the number and the limit
    ("too_short", {"min_s": 2}, {"duration_s": 1.999}, "2.00 s < 2 s", (1.999, 2)),
    ("too_short", {"min_s": 2}, {"duration_s": 2.0}, None, None),
    ("too_short", {}, {"duration_s": None}, None, None),
    ("too_long", {}, {"duration_s": 31.2}, "31.20 s > 20 s", (31.2, 20)),
    ("too_long", {}, {"duration_s": 20.0}, None, None),
    ("too_long", {}, {"duration_s": None}, None, None),
    ("too_small", {"min_side": 200}, {"width": 1920, "height": 199}, "1920x199, shorter side < 200 px", (199, 200)),
    ("too_small", {"min_side": 200}, {"width": 199, "height": 1920}, "199x1920, shorter side < 200 px", (199, 200)),
    ("too_small", {"min_side": 200}, {"width": 200, "height": 200}, None, None),
    ("too_small", {}, {"width": 10, "height": None}, None, None),
    ("too_static", {"min_motion": 1}, {"motion": 0.25, "freeze_share": 0.0}, "motion 0.25 < 1", (0.25, 1)),
    ("too_static", {}, {"motion": 5.0, "freeze_share": 0.95}, "frozen share 0.95 > 0.9", (0.95, 0.9)),
    ("too_static", {}, {"motion": None, "freeze_share": 0.95}, "frozen share 0.95 > 0.9", (0.95, 0.9)),
    ("too_static", {"min_motion": 1}, {"motion": 1.0, "freeze_share": 0.9}, None, None),
    ("too_static", {}, {"motion": None, "freeze_share": None}, None, None),
    ("too_dark", {"min_luma": 0.1}, {"luma_mean": 0.05}, "mean brightness 0.050 < 0.1", (0.05, 0.1)),
    ("too_dark", {}, {"luma_mean": 0.5, "black_share": 0.75}, "black share 0.75 > 0.5", (0.75, 0.5)),
    ("too_dark", {"min_luma": 0.1}, {"luma_mean": 0.1, "black_share": 0.5}, None, None),
    ("too_dark", {}, {"luma_mean": None, "black_share": None}, None, None),
    ("too_blurry", {"max_blur": 10}, {"blur": 10.5}, "blur 10.50 > 10", (10.5, 10)),
    ("too_blurry", {"max_blur": 10}, {"blur": 10.0}, None, None),
    ("too_blurry", {}, {"blur": math.nan}, None, None),
    ("too_blurry", {}, {"blur": None}, None, None),
    ("too_much_text", {"max_area_share": 0.3}, {"ocr_area_share": 0.4}, "text covers 0.40 of a frame > 0.3", (0.4, 0.3)),
    ("too_much_text", {"max_area_share": 0.3}, {"ocr_area_share": 0.3}, None, None),
    ("too_much_text", {}, {"ocr_area_share": None}, None, None),
    ("damaged", {"max_share": 0.05}, {"corrupt_frames": 6, "frame_count": 100},
     "corrupt share of frames 0.060 > 0.05", (0.06, 0.05)),
    ("damaged", {"max_share": 0.05}, {"corrupt_frames": 5, "frame_count": 100, "damage": ["corrupt_frames"]},
     None, None),
    ("damaged", {}, {"has_audio": True, "corrupt_audio_share": 0.25},
     "corrupt share of audio 0.250 > 0.05", (0.25, 0.05)),
    ("damaged", {}, {"has_audio": False, "corrupt_audio_share": 0.75}, None, None),
    ("damaged", {}, {"damage": ["frame_size_changes", "silent_audio"]}, "frame_size_changes", None),
    ("damaged", {"words": ["silent_audio", "shorter_than_stated"]},
     {"damage": ["frame_size_changes", "shorter_than_stated", "silent_audio"]},
     "shorter_than_stated, silent_audio", None),
    ("damaged", {"words": []}, {"damage": ["frame_size_changes"]}, None, None),
    ("damaged", {}, {"corrupt_frames": None, "frame_count": None, "corrupt_audio_share": None}, None, None),
    ("no_video", {}, {"container": "mp3", "video_codec": None}, "0 video tracks < 1", (0, 1)),
    ("no_video", {}, {"container": "mp4", "video_codec": "h264"}, None, None),
    ("no_video", {}, {"container": None, "video_codec": None}, None, None),
    ("no_audio", {}, {"has_audio": False}, "0 audio tracks < 1", (0, 1)),
    ("no_audio", {}, {"has_audio": True}, None, None),
    ("no_audio", {}, {"has_audio": None}, None, None),
    ("wrong_language", {}, {"title_language": "pt"}, "pt is not one of en", None),
    ("wrong_language", {"allowed": ["en", "fr"]}, {"title_language": "pt", "title_language_score": 0.9},
     "pt (score 0.90) is not one of en, fr", None),
    ("wrong_language", {"allowed": ["en", "pt"]}, {"title_language": "pt", "title_language_score": 0.9}, None, None),
    ("wrong_language", {}, {"title_language": "pt", "title_language_score": 0.3}, None, None),
    ("wrong_language", {}, {"title_language": None}, None, None),
    ("wrong_licence", {}, {"licence": "CC BY-NC 4.0"}, "CC BY-NC 4.0 is not one of cc0, public-domain, cc-by", None),
    ("wrong_licence", {}, {"licence": "CC0"}, None, None),
    ("not_admissible", {}, {"live_status": "is_live"}, "is_live", None),
    ("not_admissible", {"max_age_limit": 16}, {"age_limit": 18}, "age limit 18 > 16", (18, 16)),
    ("not_admissible", {}, {"age_limit": 0}, None, None),
    ("no_text", {}, {"clean_title": "cat", "title_words": 1, "hashtags": ["cat"]},
     "1 words, 1 hashtags; wanted 2 words and 1 hashtags", (1, 2)),
    ("no_text", {}, {"clean_title": "a cat", "title_words": 2, "hashtags": []},
     "2 words, 0 hashtags; wanted 2 words and 1 hashtags", (0, 1)),
    ("no_text", {"mode": "or"}, {"clean_title": "cat", "title_words": 1, "hashtags": []},
     "1 words, 0 hashtags; wanted 2 words or 1 hashtags", (1, 2)),
    ("no_text", {}, {"clean_title": "cat", "title_words": 1, "hashtags": None}, "1 words; wanted 2 words", (1, 2)),
    ("no_text", {}, {"clean_title": "a cat", "title_words": 2, "hashtags": None}, None, None),
]  # fmt: skip

REASONS = {"not_admissible": {"live", "age"}}
NOT_ON_NUMBERS = ("wrong_language", "wrong_licence")


@pytest.mark.parametrize(("name", "settings", "columns", "detail", "numbers"), TABLE)
def test_a_filter_rejects_beyond_its_limit_and_says_the_number_and_the_limit(
    name: str,
    settings: dict[str, Any],
    columns: dict[str, Any],
    detail: str | None,
    numbers: tuple[float, float] | None,
) -> None:
    clip = Clip(**columns)
    step_class(name)(**settings).process_batch([clip])
    assert (clip.status, clip.detail) == ("candidate" if detail is None else "rejected", detail)
    assert clip.reason in ({None} if detail is None else REASONS.get(name, {name}))
    assert (clip.decided_value, clip.decided_limit) == (numbers or (None, None))


def test_every_filter_of_the_catalogue_that_decides_on_a_number_is_in_the_table_with_it() -> None:
    catalogue = {name for name, place in CATALOGUE.items() if place.startswith("vidal.stages.filters.")}
    assert {name for name, *_, numbers in TABLE if numbers is not None} == catalogue - set(NOT_ON_NUMBERS)
    assert {name for name, *_ in TABLE} == catalogue


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


def _folder(folder: Path) -> Source:
    (folder / "a_dog_at_the_sea.mp4").write_bytes(b"")
    return FolderSource(folder=str(folder))


def _list(text: str) -> Callable[[Path], Source]:
    def source(folder: Path) -> Source:
        (folder / "list.csv").write_text(text)
        return ListSource(list=str(folder / "list.csv"))

    return source


@pytest.mark.parametrize(
    ("name", "source", "is_kept"),
    [
        ("a folder of titled clips", _folder, True),
        ("a list without the column", _list("url,title\na.mp4,a dog at the sea\n"), True),
        ("a list without the column, a title of one word", _list("url,title\na.mp4,dog\n"), False),
        ("a list with the column, empty there", _list("url,title,hashtags\na.mp4,a dog at the sea,\n"), False),
        ("a list with the column", _list("url,title,hashtags\na.mp4,a dog at the sea,#dog\n"), True),
    ],
)
def test_hashtags_are_asked_of_a_source_that_gives_them(
    name: str, source: Callable[[Path], Source], is_kept: bool, tmp_path: Path
) -> None:
    plan = whole(planning.make(source(tmp_path).candidates(), shard_size=1, seed=0))
    clip = from_row({name: value for name, value in plan.to_pylist()[0].items() if value is not None})
    stages = [CleanTitle(), step_class("no_text")()]
    for stage in stages:
        stage.setup()
        stage.process_batch([clip])
    assert clip.is_open == is_kept, (name, clip.detail)


def test_a_filter_writes_nothing_but_the_outcome() -> None:
    for name in sorted({name for name, *_ in TABLE}):
        assert step_class(name).writes == (), name
