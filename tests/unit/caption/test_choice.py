"""The choice of a caption by what each candidate states, and the confirmation of text that was read or heard."""

from __future__ import annotations

import pytest

from vidal.caption.choice import choose
from vidal.caption.views import View, views_of
from vidal.clip import Clip, OcrLine

BY_STRANGERS = ("title", "hashtags", "ocr_text", "transcript")
TITLE = "flying squirrel takes off"
MERGED = 'A video, titled "flying squirrel takes off", with a sound track of music.'


def views(**texts: str) -> list[View]:
    return [View(name=name, text=text, quoted=name in BY_STRANGERS) for name, text in texts.items()]


@pytest.mark.parametrize(
    ("text", "source", "refusal"),
    [
        ("A flying squirrel takes off to music.", "llm", None),
        ("A squirrel that flies takes off to music.", "llm", None),
        ("A squirrel takes off to music.", "merge", "says_less: 0.67 of the facts, without flying"),
        ("A flying squirrel takes off.", "merge", "says_less: 0.67 of the facts, without music"),
        ("A flying squirrel takes off in the music. The sound of music.", "merge", "says_twice: music"),
        (None, "merge", None),
    ],
)
def test_an_llm_s_text_is_chosen_if_it_states_all_that_the_merge_does(
    text: str | None, source: str, refusal: str | None
) -> None:
    chosen = choose(views(title=TITLE, sound_caption="music; nobody speaks"), text, 1.0)
    assert (chosen.source, chosen.caption) == (source, text if source == "llm" else MERGED)
    assert (None if chosen.refusal is None else str(chosen.refusal)) == refusal


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"hashtags": "squirrel forest"},
        {"sound_caption": "silence"},
        {"ocr_text": "FLYING SQUIRREL"},
        {"video_caption": "a video that may show a mammal"},
        {"sound_caption": "quiet sounds that are neither speech nor music"},
    ],
)
def test_the_title_is_chosen_where_no_view_adds_to_it(others: dict[str, str]) -> None:
    chosen = choose(views(title=TITLE, **others), "A flying squirrel takes off, a cute one.", 1.0)
    assert (chosen.caption, chosen.source) == (TITLE, "title")
    assert str(chosen.refusal) == "nothing_new: no view but the title states anything"


def test_silence_alone_gives_no_caption() -> None:
    chosen = choose(views(sound_caption="silence"), "A video in silence.", 1.0)
    assert (chosen.caption, chosen.source) == (None, None)


@pytest.mark.parametrize(("min_fact_share", "source"), [(1.0, "merge"), (0.6, "llm"), (0.0, "llm")])
def test_a_better_model_may_leave_something_out(min_fact_share: float, source: str) -> None:
    text = "A squirrel takes off to music."
    assert choose(views(title=TITLE, sound_caption="music"), text, min_fact_share).source == source


def clip_with(frames: list[int], confidence: float | None = None, **texts: str) -> Clip:
    lines = [OcrLine(frame=n, text="AN UNLUCKY BIRD", score=0.99, box=[0.0, 0.0, 1.0, 0.1]) for n in frames]
    return Clip(clip_id="c", ocr_lines=lines, transcript_confidence=confidence, **{"title": "not my day", **texts})


@pytest.mark.parametrize(
    ("clip", "used"),
    [
        (clip_with([0, 5], ocr_text="An unlucky bird"), ["title", "ocr_text"]),
        (clip_with([0], ocr_text="An unlucky bird"), ["title"]),
        (clip_with([0], ocr_text="An unlucky bird", title="this bird"), ["title", "ocr_text"]),
        (clip_with([0, 5], ocr_text="buy pills"), ["title"]),
        (clip_with([], 0.7, transcript="what brings you here"), ["title", "transcript"]),
        (clip_with([], 0.5, transcript="what brings you here"), ["title"]),
        (clip_with([], 0.5, transcript="it is not our day"), ["title", "transcript"]),
        (clip_with([], transcript="what brings you here"), ["title"]),
    ],
)
def test_text_that_was_read_or_heard_needs_confirmation(clip: Clip, used: list[str]) -> None:
    shown, withheld = views_of(clip, 200)
    assert [view.name for view in shown] == used
    assert withheld == ([] if len(used) == 2 else ["ocr_text" if clip.ocr_text else "transcript"])


def test_of_several_lines_those_that_are_confirmed_are_used() -> None:
    clip = clip_with([1, 2], ocr_text="An unlucky bird\nbuy these pills")
    assert [view.text for view in views_of(clip, 200)[0]] == ["not my day", "An unlucky bird"]
