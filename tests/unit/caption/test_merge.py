"""The merge: one sentence by rule."""

from __future__ import annotations

import pytest

from vidal.caption.merge import merge
from vidal.caption.views import View


def views(**texts: str) -> list[View]:
    return [
        View(name=name, text=text, quoted=name in ("title", "ocr_text", "transcript")) for name, text in texts.items()
    ]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, None),
        ({"title": "puppy learns to swim"}, 'A video, titled "puppy learns to swim".'),
        ({"hashtags": "puppy swim"}, 'A video, tagged "puppy swim".'),
        ({"video_caption": "A man plays guitar."}, "A man plays guitar."),
        (
            {"video_caption": "a man plays guitar", "title": "Rome at night", "hashtags": "music"},
            'A man plays guitar, in a video titled "Rome at night".',
        ),
        (
            {"video_caption": "a video that may show a cup", "title": "Making coffee", "ocr_text": "STEP 1"},
            'A video that may show a cup, titled "Making coffee", with the text "STEP 1" on the screen.',
        ),
        (
            {"title": "Making coffee", "ocr_text": "making coffee", "transcript": "grind the beans"},
            'A video, titled "Making coffee", with somebody saying "grind the beans".',
        ),
        (
            {"title": "coffee", "ocr_text": "STEP 1", "transcript": "grind beans", "sound_caption": "music"},
            'A video, titled "coffee", with the text "STEP 1" on the screen, and with somebody saying "grind beans", '
            "and with a sound track of music.",
        ),
        ({"frame_captions": "a dog runs. a cat sits."}, "A dog runs."),
        ({"sound_caption": "music; nobody speaks"}, "A video, with a sound track of music."),
        (
            {"title": "They did what?", "hashtags": "cat", "ocr_text": "NO WAY!"},
            'A video, with the text "NO WAY!" on the screen.',
        ),
        ({"title": "Rome", "sound_caption": "silence"}, 'A video, titled "Rome".'),
        (
            {"title": "Rome", "sound_caption": "quiet sounds that are neither speech nor music"},
            'A video, titled "Rome".',
        ),
        (
            {"title": "squirrel runs", "video_caption": "a video that may show a mammal"},
            'A video, titled "squirrel runs".',
        ),
        ({"transcript": "grind beans", "sound_caption": "some speech"}, 'A video, with somebody saying "grind beans".'),
    ],
)
def test_the_merge_is_one_sentence_that_repeats_nothing(texts: dict[str, str], sentence: str | None) -> None:
    assert merge(views(**texts)) == sentence


def test_a_view_that_says_nothing_new_is_left_out() -> None:
    assert merge(views(video_caption="a man plays guitar", title="Playing guitars")) == "A man plays guitar."


def test_a_long_quotation_is_cut_between_words() -> None:
    words = " ".join(f"word{index}" for index in range(40))
    sentence = merge(views(transcript=words))
    assert sentence is not None
    assert "word19 …" in sentence and "word20" not in sentence
