"""Audio: mono at 16 kHz, as log mel filter banks before a tower."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vidal.errors import ClipError
from vidal.modality.modality import Array, Modality, Rng, Shown, Transform
from vidal.work import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

MAX_SAMPLES = 1 << 27
"""All channels together: 46 minutes of mono at 48 kHz, 512 MB decoded."""
RATES_HZ = (4_000, 384_000)


class AudioTransform(Transform):
    """Log mel filter banks of three crops, front, middle and back, as three channels: (3, mel_bins, length)."""

    mel_bins: int = Field(126, ge=8)
    length: int = Field(1036, ge=8)
    """Steps of 10 ms in each crop."""
    mean: float = -4.2677393
    std: float = 4.5689974

    @classmethod
    def settings_for(cls, height: int, width: int, frames: int | None) -> dict[str, Any]:
        return {"mel_bins": height, "length": width}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (3, self.mel_bins, self.length)

    def __call__(self, array: Array, rng: Rng) -> Tensor:
        import torch

        from vidal.modality.fbank import window_and_step

        sound = torch.from_numpy(np.array(array, np.float32))
        window, step = window_and_step(SAMPLE_RATE)
        steps = 1 + (len(sound) - window) // step
        if steps < 1:
            raise ClipError("too_short", f"{len(array)} samples of sound are less than a window")
        sound -= sound.mean()
        starts = self._starts(max(steps, self.length), rng)
        if steps > 3 * self.length:
            # A long sound costs no more than its three crops.
            span = (self.length - 1) * step + window
            crops = self._mels(torch.stack([sound[start * step : start * step + span] for start in starts]))
        else:
            mels = self._mels(sound)
            # Short sounds are repeated, and are then the same in every crop.
            mels = mels.repeat(1, -(-self.length // steps))[:, : max(steps, self.length)]
            crops = torch.stack([mels[:, start : start + self.length] for start in starts])
        return (crops - self.mean) / (2 * self.std)

    def _mels(self, sound: Tensor) -> Tensor:
        from vidal.modality.fbank import fbank

        return fbank(sound, mel_bins=self.mel_bins, sample_rate=SAMPLE_RATE).transpose(-1, -2)

    def _starts(self, steps: int, rng: Rng) -> list[int]:
        """Where the crops begin: one in each third of the places that there are, at evaluation in its middle."""
        thirds = np.array_split(np.arange(steps - self.length + 1), 3)
        thirds = [third if len(third) else thirds[0] for third in thirds]
        return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]


class Audio(Modality):
    """``flac``, or another kind that libsndfile reads; decodes to (n,) float32 at 16 kHz in [-1, 1]."""

    layer = "audio"
    heading = "sound"
    endings: ClassVar[tuple[str, ...]] = ("flac", "wav", "mp3", "ogg")
    transform: ClassVar[type[AudioTransform]] = AudioTransform
    prompts = ("a sound of {c}.",)

    def takes(self, suffix: str) -> bool:
        return suffix.lower().rpartition(".")[2] in self.endings

    def members(self, suffixes: Sequence[str]) -> dict[int, str]:
        """The first that it takes."""
        return dict(enumerate([suffix for suffix in suffixes if self.takes(suffix)][:1]))

    def decode(self, members: Mapping[str, bytes]) -> npt.NDArray[np.float32]:
        suffixes = self.members(list(members))
        if not suffixes:
            raise ClipError("undecodable", f"no sound among {', '.join(members) or 'no members'}")
        return _decode(members[suffixes[0]])

    def show(self, array: Array, row: Mapping[str, Any]) -> Shown:
        return Shown(samples=array)


def _decode(data: bytes) -> npt.NDArray[np.float32]:
    import soundfile

    if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8 < 1 << 32:
        raise ClipError("undecodable", "the sound ends early")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, frames = file.samplerate, file.frames
            if frames * file.channels > MAX_SAMPLES or not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                raise ClipError("undecodable", f"{frames} samples of sound at {rate} Hz")
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ClipError("undecodable", f"no sound: {error}") from None
    if len(samples) != frames:
        raise ClipError("undecodable", "the sound ends early")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise ClipError("undecodable", "sound that is not finite")
    return mono if rate == SAMPLE_RATE else _resampled(mono, rate)


def _resampled(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    from scipy.signal import resample_poly

    factor = math.gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(samples, SAMPLE_RATE // factor, rate // factor), np.float32)


AUDIO = Audio()
