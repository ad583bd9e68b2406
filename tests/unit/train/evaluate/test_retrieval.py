"""Retrieval: who knows everything is always right, who has collapsed is in the middle, and alike is alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vidal
from tests.learned import CLIPS, SCENES, TRANSFORMS, Blank, Knowing, erase, small_set
from vidal.errors import SourceError
from vidal.modality.infrared import InfraredTransform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.clips import Clips, choose, embed, embed_all_texts, of_clips
from vidal.train.evaluate.retrieval import directions, retrieval

VIEWS = TextViews(weights={"caption": 1.0, "video_caption": 1.0})
SIDES = ("text", "depth", "audio")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(small_set(tmp_path_factory.mktemp("material") / "set"))


@pytest.fixture(scope="module")
def samples(folder: Path) -> Samples:
    return vidal.open(str(folder))


@pytest.fixture(scope="module")
def knowing(samples: Samples) -> Knowing:
    return Knowing(samples, TRANSFORMS, trained=("text-depth", "text-audio"))


class Result(SimpleNamespace):
    figures: dict[str, dict[str, Any]]
    broken: list[Broken]
    clips: int


def result(encoder: Any, samples: Samples, **keys: Any) -> Result:
    clips = choose(samples, range(len(samples)), VIEWS, **keys)
    sides = embed([encoder], samples, list(clips.captions), TRANSFORMS)
    texts = embed_all_texts(encoder.encode_texts, clips.texts())
    figures = retrieval(clips, of_clips(clips, sides, 0), texts, set(encoder.logit_scale))
    broken = [one for side in sides.values() for one in side.broken]
    return Result(figures=figures, broken=broken, clips=len(clips.captions))


def test_who_knows_is_right_in_every_direction_though_clips_share_a_caption(knowing: Knowing, samples: Samples) -> None:
    figures = result(knowing, samples).figures
    assert set(figures) == {f"{a}_to_{b}" for a in SIDES for b in SIDES if a != b}
    assert {(row["R@1"], row["median_rank"], row["mean_rank"]) for row in figures.values()} == {(1.0, 1.0, 1.0)}
    # Two captions a clip ask for it; four clips share each.
    assert (figures["text_to_depth"]["n"], figures["text_to_depth"]["gallery"]) == (2 * CLIPS, CLIPS)
    assert (figures["depth_to_text"]["n"], figures["depth_to_text"]["gallery"]) == (CLIPS, 2 * SCENES)
    assert figures["depth_to_audio"]["chance_R@1"] == pytest.approx(1 / SCENES)


def test_only_the_pairs_of_the_run_are_called_trained(knowing: Knowing, samples: Samples) -> None:
    trained = {name for name, row in result(knowing, samples).figures.items() if row["trained"]}
    assert trained == {"text_to_depth", "depth_to_text", "text_to_audio", "audio_to_text"}


@pytest.mark.parametrize("one_per_caption", [False, True])
def test_a_collapsed_encoder_is_never_right(samples: Samples, one_per_caption: bool) -> None:
    figures = result(Blank(samples, {}), samples, one_per_caption=one_per_caption).figures
    for row in figures.values():
        assert row["R@1"] == 0.0
    row = figures["depth_to_audio"]
    assert row["median_rank"] == ((1 + (SCENES - 1) / 2) if one_per_caption else (1 + (CLIPS - 4) / 2))


@pytest.mark.parametrize(("keys", "clips"), [({}, CLIPS), ({"one_per_caption": True}, SCENES),
                                             ({"one_per_caption": True, "max_clips": 4}, 4), ({"max_clips": 5}, 5)])  # fmt: skip
def test_one_clip_may_stand_for_each_caption(knowing: Knowing, samples: Samples, keys: Any, clips: int) -> None:
    found = result(knowing, samples, **keys)
    assert found.clips == clips == found.figures["audio_to_depth"]["n"] == found.figures["text_to_depth"]["gallery"]


def test_a_text_of_two_groups_is_right_for_both(samples: Samples) -> None:
    # Clips 0 and 1 have captions of their own and share a title; the title's embedding is nearest to clip 1.
    captions = {0: ["red", "a walk"], 1: ["blue", "a walk"], 2: ["green"]}
    axes = np.eye(3, dtype=np.float32)
    texts = {"red": axes[0], "blue": axes[1], "green": axes[2], "a walk": axes[1]}
    clips = Clips(samples=samples, captions=captions, groups={0: 0, 1: 1, 2: 2})
    figures = retrieval(clips, {"depth": (np.arange(3), axes)}, texts, ())
    assert figures["text_to_depth"]["R@1"] == 1.0 and figures["text_to_depth"]["n"] == 5


def test_a_fused_side_is_the_mean_of_the_parts_that_a_clip_has(samples: Samples) -> None:
    axes = np.eye(4, dtype=np.float32)
    texts = {"red": axes[0], "blue": axes[1], "green": axes[2], "grey": axes[3]}
    clips = Clips(
        samples=samples, captions={n: [text] for n, text in enumerate(texts)}, groups={n: n for n in range(4)}
    )
    # Clip 3 has no audio, and lengths do not count: of clip 2, text and audio weigh the same.
    audio = np.stack([axes[0], axes[1], 100 * axes[1]])
    query = (axes[1] + axes[2]) / np.sqrt(2)
    depth = np.stack([axes[0], axes[1], query, axes[3]])
    sides = {"depth": (np.arange(4), depth), "audio": (np.arange(3), audio)}
    figures = retrieval(clips, sides, texts, ["depth-audio+text", "text-depth+audio", "depth-video+infrared"])
    fused = {name for name, row in figures.items() if "+" in name}
    assert fused == {"depth_to_audio+text", "audio+text_to_depth", "text_to_depth+audio", "depth+audio_to_text"}
    for name in fused:
        assert figures[name]["trained"] and figures[name]["n"] == figures[name]["gallery"] == 4
        assert (figures[name]["R@1"] == 1.0) == (name != "depth+audio_to_text"), name
    (row,) = (one for one in directions(clips, sides, texts, ["depth-audio+text"]) if one.name == "depth_to_audio+text")
    np.testing.assert_allclose(row.gallery / np.linalg.norm(row.gallery, axis=1)[:, None],
                               [axes[0], axes[1], query, axes[3]], atol=1e-7)  # fmt: skip


def test_a_broken_sample_is_named_and_left_out(knowing: Knowing, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "set")
    ds = vidal.open(str(tmp_path / "set"))
    erase(tmp_path / "set", ds.clip_id(2), "audio")
    found = result(knowing, ds)
    assert [broken.clip_id for broken in found.broken] == [ds.clip_id(2)]
    counts = {name: row["n"] for name, row in found.figures.items()}
    assert counts["audio_to_text"] == CLIPS - 1 == counts["depth_to_audio"] and counts["depth_to_text"] == CLIPS


def test_too_little_to_evaluate_is_one_line(knowing: Knowing, samples: Samples) -> None:
    with pytest.raises(SourceError, match="1 clips with a text to evaluate on; at least two are needed"):
        choose(samples, [3], VIEWS)
    with pytest.raises(SourceError, match="0 clips with a text"):
        choose(samples, range(9), TextViews(weights={"ocr": 1.0}))
    with pytest.raises(SourceError, match="the encoder supports thermal"):
        embed([knowing], samples, range(9), {"thermal": InfraredTransform()})  # type: ignore[list-item]
