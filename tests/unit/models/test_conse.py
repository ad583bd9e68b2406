"""ConSE, the small stand-in for a CLIP, on the sample's clips: better than chance, and named for what it is."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.toys import Pixels, clip_of
from vidal.models.match import ConseMatcher, Vectors
from vidal.stages.text.text_match import TextMatch


@pytest.fixture(scope="module")
def conse() -> TextMatch:
    stage = TextMatch()
    stage.setup()
    return stage


def frames_of(path: Path, count: int = 3) -> list[Pixels]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    # Made an image here and not above: of a clip's hundreds of frames only these.
    shown = [frames[index * len(frames) // count] for index in range(count)]
    return [np.asarray(frame.to_image().resize((320, 240))) for frame in shown]


def test_conse_prefers_what_the_image_shows(conse: TextMatch, samples: Path) -> None:
    texts = ["a cat stares", "a cup of coffee on a table", "a rocket launch"]
    matcher = conse._matcher
    assert isinstance(matcher, ConseMatcher)
    for name, right in (("cat-stare.mp4", 0), ("coffee-still.mp4", 1), ("rocket-hold.mp4", 2)):
        images = images_of(matcher, samples / name)
        scores = (images @ matcher.texts(texts).T).mean(0)
        assert int(scores.argmax()) == right, (name, scores)


SHOWN = {
    "astronaut-portrait.mp4": "a portrait of a woman in an orange astronaut suit",
    "band-session.mov": "musicians play guitar and drums in a studio",
    "bunny-apple.mp4": "a big cartoon rabbit reaches for an apple",
    "bunny-squirrel.webm": "a cartoon squirrel sits in a tree",
    "cat-stare.mp4": "a tabby cat looks into the camera",
    "city-night.webm": "lights and cars of a city street at night",
    "coffee-still.mp4": "a cup of coffee with a spoon on a table",
    "rocket-hold.mp4": "a rocket stands on a launch pad",
    "sintel-dragon.mov": "a young woman and a dragon in an animated film",
    "sintel-dunes.mp4": "somebody walks through a desert of sand dunes",
    "sintel-snow.mp4": "a person walks through snow in the mountains",
}
"""What each clip shows, in plain words by somebody who looked at it; its title often says something else."""


def own_beats_others(matcher: ConseMatcher, samples: Path, texts: dict[str, str]) -> tuple[float, float]:
    """How often a clip's own text beats another clip's, and how many shufflings of the texts score less in all."""
    vectors = matcher.texts(list(texts.values()))
    scores = np.stack([(images_of(matcher, samples / name) @ vectors.T).mean(0) for name in texts])
    own, count = np.diag(scores), len(texts)
    wins = (own[:, None] > scores).sum() / (count * (count - 1))
    random = np.random.default_rng(0)
    shuffled = [scores[np.arange(count), random.permutation(count)].mean() for _ in range(2000)]
    return float(wins), float(np.mean(own.mean() > np.array(shuffled)))


@functools.cache
def images_of(matcher: ConseMatcher, path: Path) -> Vectors:
    return matcher.images(frames_of(path))


def test_conse_tells_the_right_texts_from_shuffled_ones(conse: TextMatch, samples: Path) -> None:
    with (ROOT / "manifests" / "sample.csv").open(encoding="utf-8") as rows:
        kept = [row for row in csv.DictReader(rows) if row["expected"] == "kept" and row["language"] == "en"]
    matcher = conse._matcher
    assert isinstance(matcher, ConseMatcher)
    for kind, texts, least in (
        # Titles such as "Monday mornings be like" show nothing: no matcher could tell all of them.
        ("title", {Path(row["url"]).name: row["title"] for row in kept}, 0.55),
        ("description", SHOWN, 0.75),
    ):
        wins, shufflings = own_beats_others(matcher, samples, texts)
        print(
            f"ConSE, {len(texts)} clips: own {kind} beats another clip's in {wins:.3f} of pairs (chance 0.5), "
            f"all of them more than {shufflings:.4f} of shufflings"
        )
        assert wins > least
        assert shufflings > 0.95


def test_conse_names_itself_for_what_it_is(conse: TextMatch, samples: Path) -> None:
    clip = clip_of(frames_of(samples / "cat-stare.mp4"), title="a cat stares", caption="a rocket launch")
    conse.process_batch([clip])
    scores = {score.view: score.score for score in clip.text_match}
    assert scores["title"] > scores["caption"]
    assert clip.text_match_model is not None and clip.text_match_model.startswith("ConSE: package:efficientnet")
    assert "MiniLM".lower() in clip.text_match_model.lower()
