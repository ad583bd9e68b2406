"""Kaldi's log mel filter banks with the settings of LanguageBind's audio encoder.

25 ms Hann windows every 10 ms, pre-emphasis 0.97, no dither, no energy, power spectrum, HTK mel scale from 20 Hz to the
Nyquist frequency, complete windows only (``snip_edges``).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from vidal.work import SAMPLE_RATE

WINDOW_SAMPLES, STEP_SAMPLES = SAMPLE_RATE * 25 // 1000, SAMPLE_RATE * 10 // 1000
_PREEMPHASIS = 0.97
_LOW_HZ = 20.0
# The smallest energy in Kaldi, whose logarithm stays finite.
_FLOOR = torch.finfo(torch.float32).eps


def fbank(samples: Tensor, *, mel_bins: int) -> Tensor:
    """Convert samples (..., n) in [-1, 1] at `SAMPLE_RATE` to (..., frames, mel_bins) float32.

    Samples shorter than a window give 0 frames.
    """
    if samples.shape[-1] >= WINDOW_SAMPLES:
        frames = samples.float().unfold(-1, WINDOW_SAMPLES, STEP_SAMPLES)
    else:
        frames = samples.new_zeros(*samples.shape[:-1], 0, WINDOW_SAMPLES)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - _PREEMPHASIS * before) * _window()
    # Kaldi fills a window up to a power of two.
    points = 1 << (WINDOW_SAMPLES - 1).bit_length()
    power = torch.fft.rfft(frames, n=points).abs().square()
    # Kaldi's filters omit the Nyquist bin.
    mels: Tensor = power[..., :-1] @ _filters(mel_bins, points)
    return mels.clamp(min=_FLOOR).log()


@functools.cache
def _window() -> Tensor:
    return torch.hann_window(WINDOW_SAMPLES, periodic=False)


@functools.lru_cache(maxsize=8)
def _filters(mel_bins: int, points: int) -> Tensor:
    """Return (points / 2, mel_bins) weights: triangular filters of equal width on the mel scale."""
    low, high = _mel(torch.tensor(_LOW_HZ)), _mel(torch.tensor(SAMPLE_RATE / 2))
    width = (high - low) / (mel_bins + 1)
    left = low + torch.arange(mel_bins)[:, None] * width
    mels = _mel(torch.arange(points // 2) * (SAMPLE_RATE / points))[None]
    rising, falling = (mels - left) / width, (left + 2 * width - mels) / width
    return torch.minimum(rising, falling).clamp(min=0).T.contiguous()


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * (1.0 + hz.double() / 700.0).log().float()
