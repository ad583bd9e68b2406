"""Whisper, by whichever of its two implementations reads the weights.

    a folder with model.bin, or a hub id with a slash      faster-whisper (CTranslate2)
    a .pt file, or a name such as base or large-v3-turbo   openai-whisper

Both decode greedily or by beam at temperature 0: no sampling, hence the same text each time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.device import one_thread
from vidal.models.locate import ModelPlace, locate

Sound = npt.NDArray[np.float32]

# More tokens than anybody speaks: what ends the loops in which Whisper repeats itself, long before its own limit.
_TOKENS_PER_S = 25
_LEAST_TOKENS = 32
_MOST_TOKENS = 220


@dataclass(slots=True, frozen=True, kw_only=True)
class Heard:
    """One stretch as Whisper heard it, with the numbers that tell speech from invention; seconds of the sound given."""

    start_s: float
    end_s: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


class Transcriber(Protocol):
    """Speech to text for up to 30 s of mono sound at 16 kHz."""

    def transcribe(self, sound: Sound, language: str | None) -> tuple[str, list[Heard]]:
        """The language and what was heard."""
        ...


def load_whisper(
    reference: str, *, device: str, beam_size: int, compute_type: str, download_root: Path | None
) -> Transcriber:
    """The transcriber that reads the weights that ``reference`` names; openai-whisper's are never downloaded."""
    place = locate(reference)
    is_openai = place.path.suffix == ".pt" if place.path else "/" not in str(place.hub_id)
    try:
        if is_openai:
            return _OpenaiWhisper(_there(place, download_root), device, beam_size)
        return _FasterWhisper(place, device, beam_size, compute_type)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"speech: Whisper model {reference} cannot be loaded from {place.source} ({error}); name a CTranslate2 "
            "folder, a .pt file of openai-whisper or a model name"
        ) from error


def openai_file(name: str, download_root: Path | None = None) -> Path:
    """Where openai-whisper keeps the checkpoint of a model name, there or not."""
    import whisper

    if name not in whisper.available_models():
        known = ", ".join(whisper.available_models())
        raise ModelError(f"speech: no Whisper model is called {name!r}; name a path, a hub id or one of {known}")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    return (download_root or cache) / Path(whisper._MODELS[name]).name


def fetch_openai(name: str, download_root: Path | None = None) -> Path:
    """Fetch the checkpoint of a model name to where `openai_file` says; its SHA-256 is checked. Raises `ModelError`."""
    import whisper

    file = openai_file(name, download_root)
    try:
        whisper._download(whisper._MODELS[name], str(file.parent), False)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"speech: Whisper model {name} cannot be fetched ({error}); is the network there?") from error
    return file


def _there(place: ModelPlace, download_root: Path | None) -> Path:
    """The checkpoint file of a model name, which must be in the cache already."""
    if place.path is not None:
        return place.path
    file = openai_file(str(place.hub_id), download_root)
    if not file.is_file():
        raise ModelError(
            f"speech: Whisper model {place.hub_id} is not at {file}; `vidal models pull RECIPE` fetches it"
        )
    return file


def _token_limit(sound: Sound) -> int:
    return min(_MOST_TOKENS, _LEAST_TOKENS + int(len(sound) / 16_000 * _TOKENS_PER_S))


class _FasterWhisper:
    def __init__(self, place: ModelPlace, device: str, beam_size: int, compute_type: str) -> None:
        import faster_whisper

        self._beam_size = beam_size
        self._model: Any = faster_whisper.WhisperModel(
            place.source,
            device=device,
            compute_type=compute_type,
            cpu_threads=1,
            num_workers=1,
            revision=place.revision,
            local_files_only=place.path is not None,
        )

    def transcribe(self, sound: Sound, language: str | None) -> tuple[str, list[Heard]]:
        segments, about = self._model.transcribe(
            sound,
            language=language,
            beam_size=self._beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            # The limits are the stage's, which keeps the numbers; here they would only repeat the decoding.
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            max_new_tokens=_token_limit(sound),
        )
        return str(about.language), [
            Heard(
                start_s=float(s.start),
                end_s=float(s.end),
                text=s.text.strip(),
                avg_logprob=float(s.avg_logprob),
                no_speech_prob=float(s.no_speech_prob),
                compression_ratio=float(s.compression_ratio),
            )
            for s in segments
        ]


class _OpenaiWhisper:
    def __init__(self, file: Path, device: str, beam_size: int) -> None:
        import whisper

        one_thread(device)
        self._beam_size = beam_size
        self._is_on_gpu = device == "cuda"
        self._model: Any = whisper.load_model(str(file), device=device)

    def transcribe(self, sound: Sound, language: str | None) -> tuple[str, list[Heard]]:
        import whisper

        heard = whisper.transcribe(
            self._model,
            sound,
            verbose=None,
            language=language,
            # A beam of one is a slower greedy search, and scores no better.
            beam_size=self._beam_size if self._beam_size > 1 else None,
            temperature=0.0,
            condition_on_previous_text=False,
            compression_ratio_threshold=None,
            logprob_threshold=None,
            no_speech_threshold=None,
            sample_len=_token_limit(sound),
            fp16=self._is_on_gpu,
        )
        numbers = ("avg_logprob", "no_speech_prob", "compression_ratio")
        return str(heard["language"]), [
            Heard(
                start_s=float(s["start"]),
                end_s=float(s["end"]),
                text=s["text"].strip(),
                **{number: float(s[number]) for number in numbers},
            )
            for s in heard["segments"]
        ]
