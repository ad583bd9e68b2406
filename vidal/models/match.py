"""Models that embed images and texts in one space: the CLIP family, and ConSE for machines too small for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.auto import load_auto
from vidal.models.classifier import ImageNetClassifier
from vidal.models.device import Half, dtype_for, one_thread
from vidal.models.frame_batch import preprocessed, to_device, to_host

Frames = Sequence[npt.NDArray[np.uint8]]
Vectors = npt.NDArray[np.float32]

# The positions of BERT, of whose family MiniLM is.
_LONGEST_TEXT = 512


class Matcher(Protocol):
    """Embeds images and texts as float32 rows of unit length; the dot product of two rows is their similarity."""

    def images(self, frames: Frames) -> Vectors: ...

    def texts(self, texts: Sequence[str]) -> Vectors: ...


class ClipMatcher:
    """Wraps any model of transformers with ``get_image_features`` and ``get_text_features``: CLIP, SigLIP, ALIGN, …

    Raises `ModelError` for a model that lacks either.
    """

    def __init__(self, reference: str, *, device: str, half: Half = False) -> None:
        one_thread(device)
        self._dtype = dtype_for(half, device)
        model = load_auto("AutoModel", reference, dtype=self._dtype)
        self._processor, self._tokenizer = (
            load_auto(f"Auto{part}", reference) for part in ("ImageProcessor", "Tokenizer")
        )
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise ModelError(f"model {reference}: {type(model).__name__} does not match texts with images; name a CLIP")
        self._device, self._model = device, model.to(device).eval()
        text_config = getattr(model.config, "text_config", model.config)
        positions = getattr(text_config, "max_position_embeddings", _LONGEST_TEXT)
        # transformers states 1e30 for a tokenizer without a limit of its own.
        self._max_tokens = min(int(positions), int(self._tokenizer.model_max_length))
        # SigLIP was trained on texts padded to the full length, and pools at the last token.
        self._padding = "max_length" if "siglip" in model.config.model_type else True

    def images(self, frames: Frames) -> Vectors:
        inputs = preprocessed(self._processor, frames, self._device)
        # The pixels alone: the rest is masks and sizes.
        return self._unit(
            self._model.get_image_features, {**inputs, "pixel_values": inputs["pixel_values"].to(self._dtype)}
        )

    def texts(self, texts: Sequence[str]) -> Vectors:
        inputs = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        return self._unit(self._model.get_text_features, to_device(self._tokenizer, inputs, self._device))

    def _unit(self, features: Any, inputs: Any) -> Vectors:
        import torch

        with torch.inference_mode():
            output = features(**inputs)
        return _normalised(getattr(output, "pooler_output", output))


class ConseMatcher:
    """ConSE (Norouzi et al., 2013): embeds an image as the mean sentence embedding of its likeliest class names.

    The mean is over the ``top`` classes, weighted by probability. It knows the 1000 classes of ImageNet, but no
    actions, scenes or proper names, and is far less discerning than a CLIP.
    """

    top = 10

    def __init__(self, classifier: str, sentences: str, *, device: str) -> None:
        self._classifier, self._device = ImageNetClassifier(classifier, device=device), device
        self._tokenizer = load_auto("AutoTokenizer", sentences)
        self._model = load_auto("AutoModel", sentences).to(device).eval()
        # In batches, as a thousand names at once would be padded to the longest of all.
        names = self._classifier.names
        self._names = np.concatenate([self.texts(names[start : start + 100]) for start in range(0, len(names), 100)])

    def images(self, frames: Frames) -> Vectors:
        import torch

        scores, indices = self._classifier.probabilities(frames).topk(self.top)
        likely = torch.from_numpy(self._names)[to_host(indices)]
        return _normalised((to_host(scores)[..., None] * likely).sum(1))

    def texts(self, texts: Sequence[str]) -> Vectors:
        import torch

        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_LONGEST_TEXT, return_tensors="pt"
        )
        inputs = to_device(self._tokenizer, inputs, self._device)
        with torch.inference_mode():
            tokens = self._model(**inputs).last_hidden_state
        # The mean over real tokens, without padding, is how all-MiniLM-L6-v2 pools.
        mask = inputs["attention_mask"][..., None].to(tokens.dtype)
        return _normalised((tokens * mask).sum(1) / mask.sum(1))


def _normalised(vectors: Any) -> Vectors:
    import torch

    rows: Vectors = to_host(torch.nn.functional.normalize(vectors.float(), dim=-1)).numpy()
    return rows
