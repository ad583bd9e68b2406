"""FFmpeg's own measurements of a clip, read from what its metadata filters printed."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_LINE = re.compile(r"lavfi\.([\w.]+)=(\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMeasures:
    """Named as the columns of the record that they fill."""

    motion: float | None
    spatial_information: float | None
    scene_changes: int
    freeze_share: float
    black_share: float
    luma_mean: float | None
    blur: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundMeasures:
    loudness_lufs: float | None
    silence_share: float
    audio_rms_db: float | None
    """Of the mono audio; None for digital silence."""

    @property
    def lost_in_mono(self) -> bool:
        """Whether the source is heard and the mono audio is not.

        Loudness leaves quiet stretches out, so a short beep in a long clip is up to 30 dB louder than its mean.
        """
        if self.loudness_lufs is None:
            return False
        return self.audio_rms_db is None or self.audio_rms_db < self.loudness_lufs - 40


def read_picture(path: Path, frames_path: Path, duration_s: float) -> PictureMeasures:
    values = _values(path)
    luma = _mean(values["signalstats.YAVG"])
    return PictureMeasures(
        # The first frame has nothing to differ from.
        motion=_mean(values["siti.ti"][1:]),
        spatial_information=_mean(values["siti.si"]),
        scene_changes=len(values["scd.time"]),
        freeze_share=_share(values["freezedetect.freeze_start"], values["freezedetect.freeze_end"], duration_s),
        black_share=_share(values["black_start"], values["black_end"], duration_s),
        luma_mean=None if luma is None else round(min(1.0, max(0.0, (luma - 16) / 219)), 6),
        blur=_mean(_values(frames_path)["blur"]),
    )


def read_sound(path: Path, mono_path: Path, duration_s: float) -> SoundMeasures:
    values = _values(path)
    loudness = values["r128.I"][-1] if values["r128.I"] else None
    mono_db = next(iter(read_levels(mono_path)), -math.inf)
    return SoundMeasures(
        # -70 LUFS is the gate of EBU R128: no block was louder.
        loudness_lufs=None if loudness is None or loudness <= -70 else round(loudness, 3),
        silence_share=_share(values["silence_start"], values["silence_end"], duration_s),
        audio_rms_db=round(mono_db, 3) if math.isfinite(mono_db) else None,
    )


def read_levels(path: Path) -> list[float]:
    """RMS level of each channel in dB of full scale, minus infinity for digital silence."""
    values = _values(path)
    names = sorted((name for name in values if name.startswith("astats.")), key=lambda name: int(name.split(".")[1]))
    return [values[name][-1] for name in names]


def read_fingerprint(path: Path) -> list[int]:
    """Chromaprint's raw fingerprint: one unsigned 32-bit number for about each eighth of a second."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return [int(number) for number in np.frombuffer(data[: len(data) // 4 * 4], dtype="<u4")]


def _values(path: Path) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    if not path.exists():
        return values
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if match := _LINE.match(line):
            values[match[1]].append(_number(match[2]))
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _mean(numbers: Sequence[float]) -> float | None:
    finite = [number for number in numbers if math.isfinite(number)]
    return round(math.fsum(finite) / len(finite), 6) if finite else None


def _share(starts: Sequence[float], ends: Sequence[float], duration_s: float) -> float:
    """Share of the clip between starts and ends; a stretch that lasts to the end of the clip has no end printed."""
    closed = [*ends, *[duration_s] * (len(starts) - len(ends))]
    length = math.fsum(min(end, duration_s) - max(0.0, start) for start, end in zip(starts, closed, strict=False))
    return round(min(1.0, max(0.0, length / duration_s)), 6)
