"""Voice activity detection with silero-vad's ONNX model, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.locate import model_file
from vidal.work import SAMPLE_RATE

Stretch = tuple[int, int]
"""A range of samples as (first, one past the last)."""


def load_vad(reference: str) -> Any:
    """Load a silero sequence model; raises `ModelError` for any other file."""
    from silero_vad.sequence_vad import SileroVADSequence

    path = model_file(reference, "speech: VAD model", "a silero_vad_16k_sequence.onnx")
    try:
        model = SileroVADSequence(str(path), sampling_rate=SAMPLE_RATE)
        # A file of another kind is found here rather than in every clip.
        model.audio_forward(np.zeros(SAMPLE_RATE, dtype=np.float32))
    except Exception as error:
        raise ModelError(
            f"speech: VAD model {path} cannot be loaded ({error}); name a silero_vad_16k_sequence.onnx"
        ) from error
    return model


def speech_stretches(
    model: Any, audio: npt.NDArray[np.float32], *, threshold: float, min_speech_s: float, min_silence_s: float
) -> list[Stretch]:
    """Return the speech segments of ``audio`` (mono at `SAMPLE_RATE`), in order and disjoint.

    ``threshold`` in [0, 1] is the speech probability of a frame; shorter speech is dropped, shorter silence bridged.
    """
    from silero_vad.sequence_vad import get_speech_timestamps_sequence

    segments = get_speech_timestamps_sequence(
        audio,
        model,
        threshold=threshold,
        min_speech_duration_ms=round(min_speech_s * 1000),
        min_silence_duration_ms=round(min_silence_s * 1000),
        # Words start and end quietly: without padding Whisper loses their first and last syllables.
        speech_pad_ms=200,
    )
    return [(int(segment["start"]), int(segment["end"])) for segment in segments]
