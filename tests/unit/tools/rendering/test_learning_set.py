"""The learning set: every modality by itself decides the caption, and nothing else ties modalities together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidal
from tests.processes import command
from tools.rendering import learning_set as ls
from tools.rendering.planted import plant
from vidal import modality as modalities
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.modality.fbank import fbank
from vidal.work import Member

WORDS = (ls.NOUNS, ls.MOODS, ls.LIGHTS)
MODALITIES = ("video", "depth", "infrared", "audio")


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decoded(members: list[Member], layer: str) -> Any:
    return modalities.get(layer).decode({m.suffix: m.data for m in members if m.layer == layer})


def shown(layer: str, where: tuple[int, int, int]) -> Any:
    """A modality of a scene, everything that is drawn being the same."""
    rng = np.random.default_rng(0)
    y, x = ls._grid(48, np.zeros(2), 1.0)
    nobody = np.zeros_like(x, dtype=bool)
    if layer == "audio":
        return fbank(torch.from_numpy(ls._audio(where, rng)), mel_bins=40).numpy()
    if layer == "depth":
        return ls._depth(where, y, x, nobody, rng).astype(float)
    draw = {"video": ls._colour, "infrared": ls._heat}[layer]
    return draw(where, y, x, 1.0, nobody, rng).astype(float)


def test_every_scene_is_said_in_words_of_its_own() -> None:
    said = [ls.texts(scene) for scene in range(ls.SCENES)]
    for column in said[0]:
        assert len({str(texts[column]) for texts in said}) == ls.SCENES == 128
    everything = [text for texts in said for text in texts.values() if isinstance(text, str)]
    assert len(set(everything)) == len(everything)
    assert ls.caption(0) == "a calm harbour at dawn" and ls.caption(16) == "an ancient harbour at dawn"


def test_a_held_out_scene_has_the_words_of_training_and_none_of_its_texts() -> None:
    held, trained = ([s for s in range(ls.SCENES) if ls.is_held_out(s) is held] for held in (True, False))
    assert len(held) == len(trained) == 64
    for count in (1, 2):
        known = {part for s in trained for part in combinations(enumerate(ls.attributes(s)), count)}
        assert {part for s in held for part in combinations(enumerate(ls.attributes(s)), count)} == known
    words, unseen = ({w for s in half for w in re.findall(r"\w+", ls.caption(s))} for half in (trained, held))
    assert unseen == words >= {word for attribute in WORDS for said in attribute for word in said.split()}
    for column in ls.texts(0):
        assert not {str(ls.texts(s)[column]) for s in held} & {str(ls.texts(s)[column]) for s in trained}


def test_held_out_scenes_are_left_out_by_a_condition(tmp_path: Path) -> None:
    ls.write(str(tmp_path), clips=32, scenes=16, size=16, workers=1)
    for condition, is_held in {"scene_is_held_out": True, "not scene_is_held_out": False}.items():
        ds = vidal.open(str(tmp_path), where=condition)
        scenes = [int(ds.clip_id(i)[1:4]) for i in range(len(ds))]
        assert sorted(scenes) == sorted(2 * [s for s in range(16) if ls.is_held_out(s) is is_held]) and len(ds) == 16


@pytest.mark.parametrize("layer", MODALITIES)
@pytest.mark.parametrize(("attribute", "values"), [(0, 8), (1, 4), (2, 4)])
def test_a_modality_shows_each_attribute(layer: str, attribute: int, values: int) -> None:
    places = [tuple(v if k == attribute else 1 for k in range(3)) for v in range(values)]
    images = [shown(layer, place) for place in places]
    for one, other in combinations(images, 2):
        assert np.abs(one - other).mean() > 0.02 * np.abs(one).mean()


def test_clips_of_a_scene_are_all_different() -> None:
    clips = [ls.members(5, [0, n], 32) for n in range(4)]
    for layer in MODALITIES:
        for a, b in combinations(clips, 2):
            difference = np.abs(decoded(a, layer).astype(float) - decoded(b, layer))
            assert difference.mean() > 0.02 * np.abs(decoded(a, layer).astype(float)).mean()


def test_the_audio_draws_nothing_that_the_images_draw() -> None:
    # Twice the pixels draw more numbers for the images; the audio does not move.
    small, large = (ls.members(7, [0, 3], size) for size in (16, 48))
    assert small[-1].layer == "audio" and small[-1].data == large[-1].data


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, keys in {"a": {}, "b": {"workers": 2}, "c": {"seed": 1}}.items():
        ls.write(str(tmp_path / name), **{"clips": 6, "scenes": 3, "size": 16, "workers": 1, **keys})
    a, b, c = (sums(tmp_path / name) for name in "abc")
    assert a == b and len(a) == 7
    assert a.keys() == c.keys() and not set(a.values()) & set(c.values())


@pytest.mark.parametrize(("reposted", "originals"), [(0, range(20, 81)), (3, [3])])
def test_copies_are_of_any_clip_with_texts_of_their_own_or_reposts_of_few_with_those_of_the_original(
    reposted: int, originals: Sequence[int]
) -> None:
    scenes = [n % 8 for n in range(400)]
    rows = plant(ls._row, scenes, wrong=0.3, copies=0.2, reposted=reposted, seed=0)
    by_id = {row["clip_id"]: row for row in rows}
    pairs = [(row, by_id[row["copy_of"]]) for row in rows if row["copy_of"]]
    assert len(by_id) == 400 and len(pairs) == 80
    assert len({original["clip_id"] for _, original in pairs}) in originals
    assert all(row["clip_id"][:4] == original["clip_id"][:4] and not original["copy_of"] for row, original in pairs)
    same = {row["match_score"] == original["match_score"] for row, original in pairs}
    assert same == {bool(reposted)}
    assert all(row["caption_is_wrong"] == (row["caption_scene"] != int(row["clip_id"][1:4])) for row in rows)


def test_it_is_a_dataset_that_says_what_it_is(tmp_path: Path) -> None:
    ls.write(str(tmp_path), clips=10, scenes=5, size=16, workers=1)
    assert list(verify(Dataset.open(str(tmp_path)))) == []
    ds = vidal.open(str(tmp_path))
    assert len(ds) == 10 and sorted(ds.layers) == sorted(MODALITIES)
    one = ds[3]
    assert [one[layer].shape for layer in MODALITIES] == [(8, 16, 16, 3), (8, 16, 16), (8, 16, 16), (32_000,)]
    assert [str(one[layer].dtype) for layer in MODALITIES] == ["uint8", "uint16", "uint8", "float32"]
    row = one["row"]
    assert row["synthetic_layers"] == list(ls.LAYERS) and row["licence"] == "CC0-1.0"
    assert "synthetic" in row["title"] and row["attribution"] and row["cluster"] == row["clip_id"]
    assert row["caption"] == ls.caption(int(row["clip_id"][1:4]))


def test_two_thousand_clips_are_less_than_200_megabytes() -> None:
    clips = [ls.members(scene, [0, scene], 64) for scene in range(0, 128, 13)]
    # A tar pads a member to 512 bytes after its header; each layer has the row as JSON, too.
    sizes = [sum(512 + -(-len(m.data) // 512) * 512 for m in clip) + 4 * 2560 for clip in clips]
    assert 2000 * np.mean(sizes) < 200e6


def test_a_dataset_that_no_recipe_made_has_a_status(tmp_path: Path) -> None:
    ls.write(str(tmp_path / "set"), clips=2, size=48, workers=1)
    done = command("status", tmp_path / "set")
    assert (done.returncode, done.stderr) == (0, "") and "2 candidates" in done.stdout
