"""Where somebody speaks: silero-vad's ONNX model on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.locate import locate
from vidal.work import SAMPLE_RATE

Stretch = tuple[int, int]
"""First sample and the sample after the last."""


def load_vad(reference: str) -> Any:
    """A silero sequence model; raises `ModelError` for any other file."""
    from silero_vad.sequence_vad import SileroVADSequence

    path = locate(reference).path
    if path is None or not path.is_file():
        raise ModelError(f"speech: there is no VAD model file {reference}; name a silero_vad_16k_sequence.onnx")
    try:
        model = SileroVADSequence(str(path), sampling_rate=SAMPLE_RATE)
        model.audio_forward(np.zeros(SAMPLE_RATE, dtype=np.float32))
    except Exception as error:
        raise ModelError(
            f"speech: VAD model {path} cannot be loaded ({error}); name a silero_vad_16k_sequence.onnx"
        ) from error
    return model


def speech_stretches(
    model: Any, sound: npt.NDArray[np.float32], *, threshold: float, min_speech_s: float, min_silence_s: float
) -> list[Stretch]:
    """Stretches of ``sound`` (mono at `SAMPLE_RATE`) with speech, in order, apart from each other."""
    from silero_vad.sequence_vad import get_speech_timestamps_sequence

    found = get_speech_timestamps_sequence(
        sound,
        model,
        threshold=threshold,
        min_speech_duration_ms=round(min_speech_s * 1000),
        min_silence_duration_ms=round(min_silence_s * 1000),
        # Word edges are quieter than words: without room on both sides Whisper loses first and last syllables.
        speech_pad_ms=200,
    )
    return [(int(stretch["start"]), int(stretch["end"])) for stretch in found]
