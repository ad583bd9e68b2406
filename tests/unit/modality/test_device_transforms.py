"""The part of a transform that the device does: the same numbers as on the CPU, for a whole batch at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidal.modality.depth import DepthTransform
from vidal.modality.image import CLIP_MEAN, CLIP_STD
from vidal.modality.infrared import InfraredTransform
from vidal.modality.modality import Prepared
from vidal.modality.video import VideoTransform

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (8, 90, 160, 3), np.uint8)
DEPTH = RNG.integers(0, 65_536, (1, 90, 160), np.uint16)
# Half a step of depth's 16 bits, as a share of `max_m`; then normalised.
HALF_STEP = 0.5 / 40_000


def expected(prepared: Prepared, low: float, white: float) -> np.ndarray:
    """What a tower gets, in float64 and one frame and channel at a time."""
    frames = (prepared.values.numpy().astype(np.float64) - low) / white
    frames = frames[:, :, ::-1] if prepared.is_mirrored else frames
    channels = [frames[..., c % frames.shape[-1]] for c in range(3)]
    pixels = np.stack([(x - m) / s for x, m, s in zip(channels, CLIP_MEAN, CLIP_STD, strict=True)])
    return pixels if len(frames) > 1 else pixels[:, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("transform", "array", "low", "white", "dtype", "bytes_per_pixel"),
    [
        (VideoTransform(size=48), VIDEO, 0, 255, torch.uint8, 3),
        (VideoTransform(size=48, frames=1), VIDEO[:1], 0, 255, torch.uint8, 3),
        (InfraredTransform(size=48, frames=4, flip=0.5), VIDEO[:4, ..., 0], 0, 255, torch.uint8, 1),
        (DepthTransform(size=48, crop="random", flip=0.5), DEPTH, -20_000, 40_000, torch.int16, 2),
    ],
    ids=["video", "image", "infrared", "depth"],
)
def test_a_batch_is_mirrored_and_normalised_on_the_device(transform, array, low, white, dtype, bytes_per_pixel, device):
    samples = [transform.prepare(array, np.random.default_rng(seed)) for seed in range(12)]
    assert {sample.is_mirrored for sample in samples} == {False, True}
    values = torch.stack([sample.values for sample in samples])
    assert (values.dtype, tuple(values.shape[1:])) == (
        getattr(torch, transform.prepared_dtype),
        transform.prepared_shape,
    )
    assert (dtype, bytes_per_pixel * transform.frames * 48 * 48) == (values.dtype, values[0].nbytes)
    mirrored = torch.tensor([sample.is_mirrored for sample in samples])
    made = transform.finish(values.to(device), mirrored.to(device)).cpu()
    assert made.dtype == torch.float32 and tuple(made.shape[1:]) == transform.input_shape
    for k, sample in enumerate(samples):
        np.testing.assert_allclose(made[k].numpy(), expected(sample, low, white), atol=2e-6)
        # Called at once, on the CPU, as by a search.
        alone = transform(array, np.random.default_rng(k))
        assert torch.equal(made[k], alone) if device == "cpu" else torch.allclose(made[k], alone, atol=2e-6)


@pytest.mark.parametrize(("size", "is_exact"), [(90, True), (48, False), (200, False)])
def test_depth_loses_nothing_in_16_bits_but_half_a_step_where_it_is_resized(size, is_exact, monkeypatch):
    transform = DepthTransform(size=size, mean=(0, 0, 0), std=(1, 1, 1))
    made = transform(DEPTH, None)
    monkeypatch.setattr(DepthTransform, "packed", lambda self, planes: planes)
    monkeypatch.setattr(DepthTransform, "unpacked", lambda self, planes: planes)
    error = (made - transform(DEPTH, None)).abs().max()
    assert error == 0 if is_exact else 0 < error < HALF_STEP + 1e-6


def test_edges_of_the_range_overshoot_within_16_bits(monkeypatch):
    board = np.kron(np.indices((9, 16)).sum(0) % 2, np.ones((2, 2))).astype(np.uint16)[None] * 10_000
    transform = DepthTransform(size=64, mean=(0, 0, 0), std=(1, 1, 1), min_m=0)
    made = transform(board, None)
    assert made.min() < -0.1 and made.max() > 1.1
    monkeypatch.setattr(DepthTransform, "packed", lambda self, planes: planes)
    monkeypatch.setattr(DepthTransform, "unpacked", lambda self, planes: planes)
    assert (made - transform(board, None)).abs().max() < HALF_STEP + 1e-6
