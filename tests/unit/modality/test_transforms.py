"""Transforms: what a tower sees is drawn in training and fixed at evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.toys import frames
from vidal.errors import ClipError
from vidal.modality.audio import AudioTransform
from vidal.modality.depth import DepthTransform
from vidal.modality.fbank import fbank
from vidal.modality.image import CLIP_MEAN, CLIP_STD
from vidal.modality.infrared import InfraredTransform
from vidal.modality.video import VideoTransform

VIDEO = np.stack(frames(0))
GREY = VIDEO[..., 0]
DEPTH = (VIDEO[..., 0].astype(np.uint16) * 20)[:1]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unnormalised(pixels: torch.Tensor) -> torch.Tensor:
    shape = (3,) + (1,) * (pixels.ndim - 1)
    return pixels * torch.tensor(CLIP_STD).view(shape) + torch.tensor(CLIP_MEAN).view(shape)


@pytest.mark.parametrize(
    ("transform", "array", "shape"),
    [
        (VideoTransform(size=112), VIDEO, (3, 8, 112, 112)),
        (VideoTransform(size=32, frames=1), VIDEO[:1], (3, 32, 32)),
        (DepthTransform(size=64), DEPTH, (3, 64, 64)),
        (InfraredTransform(size=300), GREY[:1], (3, 300, 300)),
        (InfraredTransform(size=64, frames=4), GREY[:4], (3, 4, 64, 64)),
        (AudioTransform(mel_bins=40, length=50), rng().normal(0, 0.1, 16_000).astype(np.float32), (3, 40, 50)),
    ],
)  # fmt: skip
def test_shapes_and_repeatability(transform, array, shape):
    for make in (lambda: None, rng):
        first, again = transform(array, make()), transform(array, make())
        assert first.shape == shape and first.dtype == torch.float32 and first.is_contiguous()
        assert torch.equal(first, again)


def test_all_frames_of_a_clip_are_cropped_and_mirrored_alike():
    same = np.stack([VIDEO[0]] * 8)
    seen = [VideoTransform(size=64)(same, rng(seed)) for seed in range(12)]
    assert all(torch.equal(pixels[:, 0], pixels[:, t]) for pixels in seen for t in range(8))
    assert len({pixels.numpy().tobytes() for pixels in seen}) > 6


def test_a_mirror_image_is_one_and_comes_half_of_the_time():
    square = VIDEO[:1, :144]
    plain = VideoTransform(size=64, frames=1, flip=0)(square, rng())
    mirrored = [
        torch.equal(VideoTransform(size=64, frames=1)(square, rng(seed)), plain.flip(-1)) for seed in range(100)
    ]
    assert 35 < sum(mirrored) < 65
    assert torch.equal(VideoTransform(size=64, frames=1, flip=1)(square, rng()), plain.flip(-1))


def test_a_random_crop_reaches_both_ends():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 144, 3)).copy()
    transform = VideoTransform(size=144, frames=1, flip=0)
    tops = {round(float(unnormalised(transform(ramp, rng(seed)))[0, 0, 0] * 255)) for seed in range(600)}
    assert min(tops) == 0 and max(tops) == 112
    assert round(float(unnormalised(transform(ramp, None))[0, 0, 0] * 255)) == 56


def test_depth_is_metres_clipped_and_three_equal_channels():
    flat = np.array([[[0, 5, 5_000, 10_000, 65_535]]], np.uint16).repeat(8, axis=1).repeat(8, axis=2)
    made = unnormalised(DepthTransform(size=8, max_m=10)(flat, None))
    assert torch.allclose(made[0], made[1], atol=1e-6) and torch.allclose(made[0], made[2], atol=1e-6)
    for millimetres, value in ((0, 0.001), (5, 0.001), (2_500, 0.25), (9_999, 0.9999), (40_000, 1.0)):
        pixels = DepthTransform(size=8)(np.full((1, 8, 8), millimetres, np.uint16), None)
        assert unnormalised(pixels).numpy() == pytest.approx(value, abs=1e-5)
    assert unnormalised(
        DepthTransform(size=8, max_m=50)(np.full((1, 8, 8), 25_000, np.uint16), None)
    ).max() == pytest.approx(0.5)


def test_infrared_is_three_equal_channels():
    made = unnormalised(InfraredTransform(size=64)(GREY[:1], None))
    assert torch.allclose(made[0], made[1], atol=1e-6) and torch.allclose(made[0], made[2], atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "stored", "frame", "evaluation"),
    [
        (1, 8, None, [4]),
        (1, 8, 3, [4]),
        (1, 1, None, [0]),
        (8, 8, None, [*range(8)]),
        (4, 8, None, [1, 3, 5, 7]),
        (8, 16, None, [*range(1, 16, 2)]),
    ],
)
def test_evaluation_reads_the_middle_frame_or_all_evenly(wanted, stored, frame, evaluation):
    assert InfraredTransform(frames=wanted).frames_to_read(stored, None, frame) == evaluation


def test_training_reads_any_frame_or_the_captions_own():
    assert {tuple(DepthTransform().frames_to_read(8, rng(seed))) for seed in range(100)} == {(k,) for k in range(8)}
    assert [DepthTransform().frames_to_read(8, rng(), k) for k in range(8)] == [[k] for k in range(8)]
    assert VideoTransform().frames_to_read(8, rng(), 3) == [*range(8)]


def test_frames_that_are_not_stored_are_rejected():
    with pytest.raises(ClipError, match="8 frames are stored, 16 are required"):
        VideoTransform(frames=16).frames_to_read(8, None)


def test_settings_are_checked():
    for wrong in ({"size": 4}, {"flip": 2}, {"frames": 0}, {"colour": 1}):
        with pytest.raises(ValidationError):
            VideoTransform(**wrong)


def audio_of(steps: int) -> np.ndarray:
    return rng(steps).normal(0, 0.1, 400 + 160 * (steps - 1)).astype(np.float32)


@pytest.mark.parametrize("steps", [100, 101, 150, 299, 300, 301, 950])
def test_long_audio_gives_three_crops_from_front_middle_and_back(steps):
    transform, samples = AudioTransform(mel_bins=32, length=100, mean=0, std=0.5), audio_of(steps)
    whole = fbank(torch.from_numpy(samples - samples.mean()), mel_bins=32).T
    places = [third if len(third) else np.zeros(1, int) for third in np.array_split(np.arange(steps - 99), 3)]
    for made, choice in ((transform(samples, None), "middle"), (transform(samples, rng(7)), "any")):
        for crop, third in zip(made, places, strict=True):
            starts = [third[len(third) // 2]] if choice == "middle" else third
            assert min((crop - whole[:, s : s + 100]).abs().max() for s in starts) < 1e-4
    drawn = {transform(samples, rng(seed)).numpy().tobytes() for seed in range(5)}
    assert len(drawn) == (1 if steps <= 101 else len(drawn)) and (steps <= 110 or len(drawn) > 1)


def test_short_audio_is_repeated_and_cut():
    samples = audio_of(30)
    made = AudioTransform(mel_bins=32, length=100, mean=0, std=0.5)(samples, rng())
    whole = fbank(torch.from_numpy(samples - samples.mean()), mel_bins=32).T
    assert torch.allclose(made[0], whole.repeat(1, 4)[:, :100], atol=1e-5)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_audio_is_normalised_and_a_constant_in_it_is_of_no_account():
    samples = audio_of(100)
    transform = AudioTransform(mel_bins=32, length=100)
    raw = AudioTransform(mel_bins=32, length=100, mean=0, std=0.5)(samples, None)
    assert torch.allclose(transform(samples, None), (raw + 4.2677393) / (2 * 4.5689974), atol=1e-6)
    assert torch.allclose(transform(samples + 0.25, None), transform(samples, None), atol=2e-2)


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_audio_shorter_than_a_window_is_rejected(samples):
    with pytest.raises(ClipError, match="shorter than a window"):
        AudioTransform()(np.zeros(samples, np.float32), None)


def test_the_arrays_given_are_left_as_they_are():
    for transform, array in (
        (VideoTransform(size=144), VIDEO),
        (DepthTransform(size=64), DEPTH),
        (AudioTransform(), audio_of(99)),
    ):
        before = array.copy()
        transform(array, rng())
        assert np.array_equal(array, before)
