"""The audio modality: mono audio at 16 kHz, passed to the tower as log mel filter banks."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vidal.errors import ClipError
from vidal.modality.augment import mask_random_bands
from vidal.modality.modality import Array, Modality, Rng, Shown, Transform
from vidal.work import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

MAX_SAMPLES = 1 << 27
"""Largest number of samples over all channels: 46 minutes of mono at 48 kHz, 512 MB decoded."""
RATES_HZ = (4_000, 384_000)


class AudioTransform(Transform):
    """Log mel filter banks of three crops (front, middle, back) as float32 channels: (3, mel_bins, length).

    The defaults are LanguageBind's.
    """

    mel_bins: int = Field(126, ge=8)
    """Mel bands of the spectrogram."""
    length: int = Field(1036, ge=8)
    """Number of 10 ms steps in each crop."""
    mean: float = -4.2677393
    """Mean of the log mel energies, subtracted."""
    std: float = 4.5689974
    """Half of what the log mel energies are divided by, as in AST (Gong et al., 2021)."""
    time_mask: int = Field(0, ge=0, exclude_if=lambda width: width == 0)
    """In training, mask up to so many successive steps to the mean (Park et al., 2019, SpecAugment); 0: off."""
    frequency_mask: int = Field(0, ge=0, exclude_if=lambda width: width == 0)
    """In training, mask up to so many neighbouring mel bands to the mean; 0: off."""
    masks: int = Field(1, ge=1, exclude_if=lambda count: count == 1)
    """Number of masks of either kind."""

    @classmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        return {"mel_bins": height, "length": width}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (3, self.mel_bins, self.length)

    def __call__(self, array: Array, rng: Rng) -> Tensor:
        import torch

        from vidal.modality.fbank import STEP_SAMPLES, WINDOW_SAMPLES

        samples = torch.from_numpy(np.array(array, np.float32))
        steps = 1 + (len(samples) - WINDOW_SAMPLES) // STEP_SAMPLES
        if steps < 1:
            raise ClipError("too_short", f"{len(array)} audio samples are shorter than a window of {WINDOW_SAMPLES}")
        samples -= samples.mean()
        # One crop from each third of the possible starts; the middle one in evaluation.
        thirds = np.array_split(np.arange(max(steps, self.length) - self.length + 1), 3)
        thirds = [third if len(third) else thirds[0] for third in thirds]
        starts = [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]
        if steps > 3 * self.length:
            # Only the crops of long audio are transformed.
            span = (self.length - 1) * STEP_SAMPLES + WINDOW_SAMPLES
            begins = [start * STEP_SAMPLES for start in starts]
            crops = self._mels(torch.stack([samples[begin : begin + span] for begin in begins]))
        else:
            mels = self._mels(samples)
            # Short audio is repeated.
            mels = mels.repeat(1, -(-self.length // steps))[:, : max(steps, self.length)]
            crops = torch.stack([mels[:, start : start + self.length] for start in starts])
        # Twice the standard deviation, as LanguageBind divides.
        normalised = (crops - self.mean) / (2 * self.std)
        for axis, widest in ((1, self.frequency_mask), (2, self.time_mask)):
            if rng is not None and widest > 0:
                mask_random_bands(normalised, axis, widest, self.masks, rng)
        return normalised

    def _mels(self, samples: Tensor) -> Tensor:
        from vidal.modality.fbank import fbank

        return fbank(samples, mel_bins=self.mel_bins).transpose(-1, -2)


class Audio(Modality):
    """``flac`` or another format of libsndfile; decodes to (n,) float32 at 16 kHz in [-1, 1]."""

    layer = "audio"
    heading = "audio"
    endings: ClassVar[tuple[str, ...]] = ("flac", "wav", "mp3", "ogg")
    transform: ClassVar[type[AudioTransform]] = AudioTransform
    prompts = ("a sound of {c}.",)

    def takes(self, suffix: str) -> bool:
        return suffix.lower().rpartition(".")[2] in self.endings

    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        """Return the first audio member, as number 0."""
        return dict(enumerate([suffix for suffix in suffixes if self.takes(suffix)][:1]))

    def decode(self, members: Mapping[str, bytes]) -> npt.NDArray[np.float32]:
        suffixes = self.members(list(members))
        if not suffixes:
            raise ClipError("undecodable", f"no audio member among: {', '.join(members) or 'none'}")
        import soundfile

        data = members[suffixes[0]]
        # libsndfile reads a truncated WAV without a word; a size of 2^32 - 1 stands for an unknown one.
        if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8 < 1 << 32:
            raise ClipError("undecodable", "the audio file is truncated")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                rate, frames = file.samplerate, file.frames
                if frames * file.channels > MAX_SAMPLES or not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                    raise ClipError("undecodable", f"{frames} audio samples at {rate} Hz are outside the limits")
                samples = file.read(dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise ClipError("undecodable", f"audio cannot be decoded: {error}") from None
        if len(samples) != frames:
            raise ClipError("undecodable", "the audio file is truncated")
        mono: npt.NDArray[np.float32] = samples.mean(axis=1)
        if not np.isfinite(mono).all():
            raise ClipError("undecodable", "audio with samples that are not finite")
        if rate == SAMPLE_RATE:
            return mono
        # vidal's own audio never comes here, so the plain install does without SciPy.
        from scipy.signal import resample_poly

        factor = math.gcd(rate, SAMPLE_RATE)
        return np.asarray(resample_poly(mono, SAMPLE_RATE // factor, rate // factor), np.float32)

    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        return Shown(samples=array)


AUDIO = Audio()
