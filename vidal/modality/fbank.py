"""Kaldi's log mel filter banks with the settings of LanguageBind's audio encoder.

25 ms Hann windows every 10 ms, pre-emphasis 0.97, no dither, no energy, power spectrum, HTK mel scale from 20 Hz to the
Nyquist frequency, complete windows only (``snip_edges``).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

FRAME_MS, STEP_MS = 25.0, 10.0
_PREEMPHASIS = 0.97
_LOW_HZ = 20.0
# The smallest energy in Kaldi, whose logarithm stays finite.
_FLOOR = torch.finfo(torch.float32).eps


def fbank(samples: Tensor, *, mel_bins: int, sample_rate: int = 16_000) -> Tensor:
    """Convert samples (..., n) in [-1, 1] to (..., frames, mel_bins) float32; shorter than a window gives 0 frames."""
    length, step = window_and_step(sample_rate)
    frames = samples.float().unfold(-1, length, step) if samples.shape[-1] >= length else samples.new_zeros(
        *samples.shape[:-1], 0, length
    )  # fmt: skip
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - _PREEMPHASIS * before) * _window(length)
    # Kaldi fills a window up to a power of two.
    points = 1 << (length - 1).bit_length()
    power = torch.fft.rfft(frames, n=points).abs().square()
    # Kaldi's filters omit the Nyquist bin.
    mels: Tensor = power[..., :-1] @ _filters(mel_bins, points, sample_rate)
    return mels.clamp(min=_FLOOR).log()


def window_and_step(sample_rate: int) -> tuple[int, int]:
    """Return the length of a window and of a step in samples."""
    return int(sample_rate * FRAME_MS / 1000), int(sample_rate * STEP_MS / 1000)


@functools.lru_cache(maxsize=4)
def _window(length: int) -> Tensor:
    return torch.hann_window(length, periodic=False)


@functools.lru_cache(maxsize=8)
def _filters(mel_bins: int, points: int, sample_rate: int) -> Tensor:
    """Return (points / 2, mel_bins) weights: triangular filters of equal width on the mel scale."""
    low, high = _mel(torch.tensor(_LOW_HZ)), _mel(torch.tensor(sample_rate / 2))
    width = (high - low) / (mel_bins + 1)
    left = low + torch.arange(mel_bins)[:, None] * width
    mels = _mel(torch.arange(points // 2) * (sample_rate / points))[None]
    rising, falling = (mels - left) / width, (left + 2 * width - mels) / width
    return torch.minimum(rising, falling).clamp(min=0).T.contiguous()


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * (1.0 + hz.double() / 700.0).log().float()
