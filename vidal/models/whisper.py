"""Speech recognition with Whisper, by whichever of its two implementations reads the weights.

    a folder with model.bin, or a hub id with a slash      faster-whisper (CTranslate2)
    a .pt file, or a name such as base or large-v3-turbo   openai-whisper

Both decode greedily or by beam search at temperature 0: without sampling, the text is the same each time.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.device import one_thread
from vidal.models.locate import ModelPlace, locate

Audio = npt.NDArray[np.float32]

# Above any rate of speech: it ends Whisper's repetition loops long before its own limit of tokens does.
_TOKENS_PER_S = 25
_MIN_TOKENS = 32
# Whisper's own limit is 224, half of its context.
_MAX_TOKENS = 220
_FETCH_TIMEOUT_S = 10.0
"""Longest wait for the next bytes of a download."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Heard:
    """One segment of a transcript, with the scores that separate speech from hallucination.

    Times are seconds from the start of the audio that was transcribed.
    """

    start_s: float
    end_s: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


class Transcriber(Protocol):
    """Transcribes up to 30 s of mono audio at 16 kHz; ``languages`` are the codes of those that it knows."""

    languages: Sequence[str]

    def transcribe(self, audio: Audio, language: str | None) -> tuple[str, list[Heard]]:
        """Return the language, detected where ``language`` is None, and the segments in order of time."""
        ...


def load_whisper(
    reference: str, *, device: str, beam_size: int, compute_type: str, download_root: Path | None
) -> Transcriber:
    """Load the weights that ``reference`` names; raises `ModelError`. openai-whisper's are never downloaded here."""
    place = locate(reference)
    is_openai = place.path.suffix == ".pt" if place.path else "/" not in str(place.hub_id)
    try:
        if not is_openai:
            return _FasterWhisper(place, device, beam_size, compute_type)
        file = place.path or openai_file(str(place.hub_id), download_root)
        if place.path is None and not file.is_file():
            raise ModelError(
                f"speech: Whisper model {place.hub_id} is not at {file}; `vidal models pull RECIPE` fetches it"
            )
        return _OpenaiWhisper(file, device, beam_size)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"speech: Whisper model {reference} cannot be loaded from {place.source} ({error}); name a CTranslate2 "
            "folder, a .pt file of openai-whisper or a model name"
        ) from error


def openai_file(name: str, download_root: Path | None = None) -> Path:
    """Return where openai-whisper keeps the checkpoint of a model name, whether or not it is there.

    Raises `ModelError` for a name that it does not know.
    """
    import whisper

    if name not in whisper.available_models():
        known = ", ".join(whisper.available_models())
        raise ModelError(f"speech: there is no Whisper model {name!r}; name a path, a hub id or one of {known}")
    # As whisper.load_model computes it, which keeps the expression to itself.
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    return (download_root or cache) / Path(whisper._MODELS[name]).name


def fetch_openai(name: str, download_root: Path | None = None) -> Path:
    """Download the checkpoint of a model name to `openai_file` and check its SHA-256; raises `ModelError`."""
    import whisper

    file = openai_file(name, download_root)
    # whisper sets no timeout of its own.
    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_FETCH_TIMEOUT_S)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Elsewhere first, as a download that breaks off leaves its part, which would pass for the model.
        with tempfile.TemporaryDirectory(prefix=".vidal-", dir=file.parent) as folder:
            whisper._download(whisper._MODELS[name], folder, False)
            os.replace(Path(folder) / file.name, file)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"speech: Whisper model {name} cannot be fetched ({error}); is the network up?") from error
    finally:
        socket.setdefaulttimeout(before_s)
    return file


def _token_limit(audio: Audio) -> int:
    return min(_MAX_TOKENS, _MIN_TOKENS + int(len(audio) / 16_000 * _TOKENS_PER_S))


def _heard(segment: Mapping[str, Any]) -> Heard:
    """Both implementations give a segment the same names, and values that may be numpy's."""
    scores = ("avg_logprob", "no_speech_prob", "compression_ratio")
    return Heard(
        start_s=float(segment["start"]), end_s=float(segment["end"]), text=segment["text"].strip(),
        **{name: float(segment[name]) for name in scores},
    )  # fmt: skip


class _FasterWhisper:
    def __init__(self, place: ModelPlace, device: str, beam_size: int, compute_type: str) -> None:
        import faster_whisper

        self._beam_size = beam_size
        self._model: Any = faster_whisper.WhisperModel(
            place.source, device=device, compute_type=compute_type, cpu_threads=1, num_workers=1,
            revision=place.revision, local_files_only=place.path is not None,
        )  # fmt: skip
        self.languages: Sequence[str] = self._model.supported_languages

    def transcribe(self, audio: Audio, language: str | None) -> tuple[str, list[Heard]]:
        segments, info = self._model.transcribe(
            audio,
            language=language,
            beam_size=self._beam_size,
            temperature=0.0,
            # The text of the window before would carry a repetition loop on.
            condition_on_previous_text=False,
            # The stage applies these thresholds and stores the scores; here they would only decode again.
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            max_new_tokens=_token_limit(audio),
        )
        # A generator: the decoding happens while it is read.
        return str(info.language), [_heard(vars(segment)) for segment in segments]


class _OpenaiWhisper:
    def __init__(self, file: Path, device: str, beam_size: int) -> None:
        import whisper

        one_thread(device)
        self._beam_size = beam_size
        self._is_on_gpu = device == "cuda"
        self._model: Any = whisper.load_model(str(file), device=device)
        self.languages: Sequence[str] = list(whisper.tokenizer.LANGUAGES) if self._model.is_multilingual else ["en"]

    def transcribe(self, audio: Audio, language: str | None) -> tuple[str, list[Heard]]:
        import whisper

        result = whisper.transcribe(
            self._model,
            audio,
            # At False it draws a progress bar.
            verbose=None,
            language=language,
            # A beam of one is a slower greedy search with the same result.
            beam_size=self._beam_size if self._beam_size > 1 else None,
            temperature=0.0,
            condition_on_previous_text=False,
            compression_ratio_threshold=None,
            logprob_threshold=None,
            no_speech_threshold=None,
            sample_len=_token_limit(audio),
            fp16=self._is_on_gpu,
        )
        return str(result["language"]), [_heard(segment) for segment in result["segments"]]
