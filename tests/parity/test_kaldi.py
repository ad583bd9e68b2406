"""Filter banks against kaldi-native-fbank, which refuses 128 bins at 16 kHz; 112 and 126 pass."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from vidal.modality.fbank import fbank


def kaldi(samples: np.ndarray, mel_bins: int) -> np.ndarray:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = 25.0, 10.0
    options.frame_opts.preemph_coeff = 0.97
    options.frame_opts.remove_dc_offset = options.frame_opts.snip_edges = options.frame_opts.round_to_power_of_two = (
        True
    )
    options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = mel_bins, 20.0, 0.0
    options.use_energy = False
    options.use_log_fbank = options.use_power = True
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16_000, samples.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(k) for k in range(bank.num_frames_ready)])


def signals() -> dict[str, np.ndarray]:
    rng, time_s = np.random.default_rng(0), np.arange(16_000 * 3) / 16_000
    return {
        "noise": rng.normal(0, 0.1, len(time_s)),
        "sweep": 0.5 * np.sin(2 * np.pi * (50 + 1200 * time_s) * time_s) + rng.normal(0, 1e-3, len(time_s)),
        "loud": np.clip(rng.normal(0, 1, len(time_s)), -1, 1),
        "steps": np.sign(np.sin(2 * np.pi * 3 * time_s)) * 0.3 + 0.2,
    }


@pytest.mark.parametrize("mel_bins", [23, 80, 112, 126])
@pytest.mark.parametrize("signal", signals())
def test_filter_banks_equal_kaldis(signal, mel_bins):
    samples = signals()[signal].astype(np.float32)
    ours, theirs = fbank(torch.from_numpy(samples), mel_bins=mel_bins).numpy(), kaldi(samples, mel_bins)
    assert ours.shape == theirs.shape
    # Both round in float32: the logarithm shows it where hardly anything is left of the signal.
    audible = theirs > -8
    assert audible.any()
    np.testing.assert_allclose(ours[audible], theirs[audible], rtol=0, atol=2e-3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-2)
    assert np.abs(ours - theirs)[audible].mean() < 5e-5
