"""A title keeps what it says about the clip, in every script, and nothing else."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.stages.text.clean_title import CleanTitle, read_stop_words, visible


@pytest.fixture(scope="module")
def stage() -> CleanTitle:
    stage = CleanTitle()
    stage.setup()
    return stage


def cleaned(stage: CleanTitle, title: str | None, hashtags: list[str] | None = None) -> Clip:
    clip = Clip(clip_id="a", title=title, hashtags=hashtags or [])
    stage.process(clip)
    return clip


TITLES = [
    # title, hashtags, clean title, words
    ("How to tie a bowline", [], "How to tie a bowline", 5),
    ("Global chip shortage explained", [], "Global chip shortage explained", 4),
    ("A videographer in shorts, viral!", [], "A videographer in", 3),
    ("#Shorts #cat", ["Shorts", "cat"], None, 0),
    ("#Shorts #cat", [], "cat", 1),
    ("SUBSCRIBE | Baby sloth | #Viral", [], "Baby sloth", 2),
    ("My #cat sleeps#fyp#viral", [], "My cat sleeps", 3),
    ("Lunch time in Japan #japan #time", ["japan", "time"], "Lunch time in Japan", 4),
    ("Sunset", ["sea", "Sea", "viral", "Sunset"], "Sunset", 1),
    ("rescue in C# code", [], "rescue in C# code", 4),
    ("wait 🐰🌸 #shorts", ["shorts"], "wait 🐰🌸", 1),
    ("👩‍🚀 👍🏽 🇫🇷", [], "👩‍🚀 👍🏽 🇫🇷", 0),
    ("空飛ぶ竜と廃墟の街 🐲 ＃shorts", [], "空飛ぶ竜と廃墟の街 🐲", 5),
    ("Лесная зарядка", ["лес"], "Лесная зарядка", 2),
    ("नमस्ते दुनिया", [], "नमस्ते दुनिया", 2),
    ("می\u200cخواهم", [], "می\u200cخواهم", 1),
    ("harmless\u202egpj.exe\u2066 a\u0000b\x1b[31m", [], "harmlessgpj.exe ab[31m", 2),
    ("cat\U000e0049\U000e0067 nap\ufeff", [], "cat nap", 2),
    ("lone \ud83d surrogate", [], "lone surrogate", 2),
    ("line one\r\n\tline\u2028two", [], "line one line two", 4),
    ("cafe\u0301 nap", [], "café nap", 2),
    ("#", [], None, 0),
    ("", ["viral"], None, 0),
    (None, [], None, 0),
]


@pytest.mark.parametrize(("title", "hashtags", "expected", "words"), TITLES)
def test_title_table(stage: CleanTitle, title: str | None, hashtags: list[str], expected: str, words: int) -> None:
    clip = cleaned(stage, title, hashtags)
    assert (clip.clean_title, clip.title_words) == (expected, words)
    assert (clip.title, clip.hashtags) == (title, hashtags)


@pytest.mark.parametrize("title", [t for t, *_ in TITLES if t])
def test_a_clean_title_is_valid_utf8_in_nfc_and_stays_as_it_is(stage: CleanTitle, title: str) -> None:
    clean = cleaned(stage, title).clean_title or ""
    clean.encode()
    assert unicodedata.is_normalized("NFC", clean)
    assert (cleaned(stage, clean).clean_title or "") == clean


@pytest.mark.parametrize(
    ("title", "language"),
    [
        ("How to tie a bowline knot in ten seconds", "en"),
        ("空飛ぶ竜と廃墟の街", "ja"),
        ("Лесная зарядка утро начинается так", "ru"),
        ("chat très sérieux qui regarde la caméra", "fr"),
        ("🐰🌸 12", None),
        (None, None),
    ],
)
def test_language_has_a_label_and_a_number(stage: CleanTitle, title: str | None, language: str | None) -> None:
    clip = cleaned(stage, title)
    assert clip.title_language == language
    if language:
        assert clip.title_language_score is not None
        assert 0.3 < clip.title_language_score <= 1
    else:
        assert clip.title_language_score is None


@pytest.mark.parametrize("title", ["word " * 1000, "竜" * 5000, "x" * 5000, "a#b" * 2000, "👩‍🚀" * 2000])
def test_a_title_of_kilobytes_is_cut_at_a_thousand_characters(stage: CleanTitle, title: str) -> None:
    clean = cleaned(stage, title).clean_title
    assert clean
    assert 900 < len(clean) <= 1000
    assert not clean.endswith((" ", "\u200d"))


def test_a_cut_falls_between_words(stage: CleanTitle) -> None:
    clean = cleaned(stage, "abcdefg " * 200).clean_title
    assert clean == " ".join(["abcdefg"] * 125)


def test_manifests_hold_the_same_stop_words_as_the_package() -> None:
    assert (ROOT / "manifests/stop_words.txt").read_bytes() == (ROOT / "vidal/stages/text/stop_words.txt").read_bytes()
    everywhere, as_hashtag = read_stop_words("package:vidal/stages/text/stop_words.txt")
    assert {"viral", "fyp", "shorts", "youtube"} <= everywhere
    assert {"time", "japan"} <= as_hashtag - everywhere


def test_another_stop_word_file_can_be_named_and_counts_in_the_identity(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("; mine\nsloth\n#sea\n", encoding="utf-8")
    stage = CleanTitle(stop_words=str(words))
    stage.setup()
    assert cleaned(stage, "Viral sloth by the sea #sea").clean_title == "Viral by the sea"
    before = stage.identity()
    words.write_text("; mine\nsloth\n", encoding="utf-8")
    (tmp_path / "other").mkdir()
    moved = words.rename(tmp_path / "other/words.txt")
    after = CleanTitle(stop_words=str(moved)).identity()
    assert before["models"]["stop_words"] != after["models"]["stop_words"]


@pytest.mark.parametrize("settings", [{"stop_words": "./missing.txt"}, {"language_model": "some/hub-id"}])
def test_a_missing_file_is_one_clear_error(settings: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="name a"):
        CleanTitle(**settings).setup()


def test_visible_keeps_what_can_be_seen() -> None:
    assert visible(" a\u00ad\u200bb\u2069 \u0007 c ") == "ab c"
