"""Filter banks: shapes, batches and silence; the numbers are held to Kaldi's in the parity tests."""

from __future__ import annotations

import math

import pytest
import torch

from vidal.modality.fbank import fbank


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_there_are_as_many_frames_as_windows_fit_whole(samples, frames):
    assert fbank(torch.zeros(samples), mel_bins=112).shape == (frames, 112)


def test_silence_is_the_floor():
    assert torch.equal(
        fbank(torch.zeros(800), mel_bins=8), torch.full((3, 8), math.log(torch.finfo(torch.float32).eps))
    )


def test_a_batch_is_its_rows():
    clips = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    together = fbank(clips, mel_bins=126)
    assert together.shape == (3, 23, 126)
    for row, clip in zip(together, clips, strict=True):
        torch.testing.assert_close(row, fbank(clip, mel_bins=126), rtol=0, atol=1e-5)


def test_a_tone_is_loudest_in_the_bin_of_its_pitch():
    time_s = torch.arange(16_000) / 16_000
    loudest = [
        fbank(torch.sin(2 * math.pi * hz * time_s), mel_bins=40).mean(0).argmax().item() for hz in (300, 1000, 4000)
    ]
    mel = [1127 * math.log(1 + hz / 700) for hz in (20, 300, 1000, 4000, 8000)]
    expected = [(m - mel[0]) / (mel[4] - mel[0]) * 41 - 1 for m in mel[1:4]]
    assert loudest == [pytest.approx(e, abs=1.0) for e in expected]
