"""Models that put pictures and texts into one space: the CLIP family, and a small honest stand-in."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.classifier import ImageNetClassifier
from vidal.models.device import one_thread
from vidal.models.locate import ModelPlace, locate

Frames = Sequence[npt.NDArray[np.uint8]]
Vectors = npt.NDArray[np.float32]

_LONGEST_TEXT = 512


class Matcher(Protocol):
    """Gives each picture and each text a row of length one; the product of two rows is how well they match."""

    def pictures(self, frames: Frames) -> Vectors: ...

    def texts(self, texts: Sequence[str]) -> Vectors: ...


class ClipMatcher:
    """Any model of transformers with ``get_image_features`` and ``get_text_features``: CLIP, SigLIP, ALIGN, …"""

    def __init__(self, reference: str, *, device: str) -> None:
        # Its annotations are partial: as Any, it is held to none of them.
        transformers: Any = importlib.import_module("transformers")
        one_thread(device)
        place = locate(reference)
        kinds = ("AutoModel", "AutoImageProcessor", "AutoTokenizer")
        model, self._processor, self._tokenizer = (_load(transformers, kind, place) for kind in kinds)
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise ModelError(
                f"model {reference}: {type(model).__name__} does not match texts with pictures; name a CLIP"
            )
        self._device, self._model = device, model.to(device).eval()
        self._max_tokens = _text_length(model.config, self._tokenizer)
        # SigLIP was trained on texts padded to the full length, and reads its last token.
        self._padding = "max_length" if "siglip" in model.config.model_type else True

    def pictures(self, frames: Frames) -> Vectors:
        from PIL import Image

        inputs = self._processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
        return self._unit(self._model.get_image_features, inputs)

    def texts(self, texts: Sequence[str]) -> Vectors:
        inputs = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        return self._unit(self._model.get_text_features, inputs)

    def _unit(self, features: Any, inputs: Any) -> Vectors:
        import torch

        with torch.inference_mode():
            made = features(**inputs.to(self._device))
        return _of_length_one(getattr(made, "pooler_output", made))


class ConseMatcher:
    """ConSE (Norouzi et al., 2013): a picture is the mean of its likely class names' sentence embeddings.

    It knows the 1000 classes of ImageNet, no action, scene or name: a small model's match, and no CLIP's.
    """

    top = 10

    def __init__(self, classifier: str, sentences: str, *, device: str) -> None:
        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        self._classifier, self._device = ImageNetClassifier(classifier, device=device), device
        place = locate(sentences)
        self._tokenizer = _load(transformers, "AutoTokenizer", place)
        self._model = _load(transformers, "AutoModel", place).to(device).eval()
        names = self._classifier.names
        self._names = np.concatenate([self.texts(names[start : start + 100]) for start in range(0, len(names), 100)])

    def pictures(self, frames: Frames) -> Vectors:
        import torch

        scores, indices = self._classifier.probabilities(frames).topk(self.top)
        likely = torch.from_numpy(self._names)[indices.cpu()]
        return _of_length_one((scores.cpu()[..., None] * likely).sum(1))

    def texts(self, texts: Sequence[str]) -> Vectors:
        import torch

        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_LONGEST_TEXT, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            tokens = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].to(tokens.dtype)
        return _of_length_one((tokens * mask).sum(1) / mask.sum(1))


def _load(transformers: Any, kind: str, place: ModelPlace) -> Any:
    try:
        return getattr(transformers, kind).from_pretrained(place.source, revision=place.revision)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"model {place.reference}: {first_line}") from error


def _text_length(config: Any, tokenizer: Any) -> int:
    stated = getattr(getattr(config, "text_config", config), "max_position_embeddings", _LONGEST_TEXT)
    return min(int(stated), int(tokenizer.model_max_length))


def _of_length_one(vectors: Any) -> Vectors:
    import torch

    made: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return made
