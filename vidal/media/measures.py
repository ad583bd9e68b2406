"""Reads the measurements of a clip that FFmpeg's metadata filters have written to files."""

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
class VideoMeasures:
    """Measurements of the video, named after the columns that they fill."""

    motion: float | None
    spatial_information: float | None
    scene_changes: int
    freeze_share: float
    black_share: float
    luma_mean: float | None
    blur: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioMeasures:
    """Measurements of the audio, named after the columns that they fill."""

    loudness_lufs: float | None
    silence_share: float
    audio_rms_db: float | None
    """RMS level of the mono audio in dB of full scale; None for digital silence."""

    @property
    def is_lost_in_mono(self) -> bool:
        """Whether the source is audible and the mono audio is not.

        Loudness (EBU R128) ignores quiet passages, so that of a short beep in a long clip exceeds the mean level by up
        to 30 dB.
        """
        if self.loudness_lufs is None:
            return False
        return self.audio_rms_db is None or self.audio_rms_db < self.loudness_lufs - 40


def read_video_measures(path: Path, frames_path: Path, duration_s: float) -> VideoMeasures:
    """Read the measures of the video (``path``) and of the stored frames (``frames_path``)."""
    values = _values(path)
    luma = _mean(values["signalstats.YAVG"])
    return VideoMeasures(
        # The first frame has no predecessor to differ from.
        motion=_mean(values["siti.ti"][1:]),
        spatial_information=_mean(values["siti.si"]),
        scene_changes=len(values["scd.time"]),
        freeze_share=_share(values["freezedetect.freeze_start"], values["freezedetect.freeze_end"], duration_s),
        black_share=_share(values["black_start"], values["black_end"], duration_s),
        # In limited range black is 16 and white is 235.
        luma_mean=None if luma is None else round(min(1.0, max(0.0, (luma - 16) / 219)), 6),
        blur=_mean(_values(frames_path)["blur"]),
    )


def read_audio_measures(path: Path, mono_path: Path, duration_s: float) -> AudioMeasures:
    """Read the measures of the full audio (``path``) and the levels of the mono audio (``mono_path``)."""
    values = _values(path)
    loudness = values["r128.I"][-1] if values["r128.I"] else None
    mono_db = next(iter(read_levels(mono_path)), -math.inf)
    return AudioMeasures(
        # -70 LUFS is the absolute gate of EBU R128: no block was louder.
        loudness_lufs=None if loudness is None or loudness <= -70 else round(loudness, 3),
        silence_share=_share(values["silence_start"], values["silence_end"], duration_s),
        audio_rms_db=round(mono_db, 3) if math.isfinite(mono_db) else None,
    )


def read_levels(path: Path) -> list[float]:
    """Return the RMS level of each channel in dB of full scale; minus infinity stands for digital silence."""
    values = _values(path)
    names = sorted((name for name in values if name.startswith("astats.")), key=lambda name: int(name.split(".")[1]))
    return [values[name][-1] for name in names]


def read_fingerprint(path: Path) -> list[int]:
    """Read Chromaprint's raw fingerprint: unsigned 32-bit values, about eight per second; empty if there is none."""
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
            try:
                values[match[1]].append(float(match[2]))
            except ValueError:
                values[match[1]].append(math.nan)
    return values


def _mean(numbers: Sequence[float]) -> float | None:
    finite = [number for number in numbers if math.isfinite(number)]
    return round(math.fsum(finite) / len(finite), 6) if finite else None


def _share(starts: Sequence[float], ends: Sequence[float], duration_s: float) -> float:
    """Return the share of the clip between starts and ends; an interval open at the end of the clip has no end."""
    closed = [*ends, *[duration_s] * (len(starts) - len(ends))]
    length = math.fsum(min(end, duration_s) - max(0.0, start) for start, end in zip(starts, closed, strict=False))
    return round(min(1.0, max(0.0, length / duration_s)), 6)
