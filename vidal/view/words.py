"""`Words`: vectors of texts among those of clips, by the models that made these."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from vidal import extras
from vidal.dataset.dataset import Dataset
from vidal.dataset.embeddings import EmbeddingsInfo
from vidal.errors import SourceError
from vidal.models.dotted import is_dotted
from vidal.models.locate import locate
from vidal.stages.vectors import Matrix

_STAGE = "embeddings"

Encode = Callable[[str], Any]


class Words:
    """Encodes texts for a folder of `vidal embed`, and for the columns of the stage ``embeddings``.

    A model is loaded when the first text is encoded; none is fetched from a hub.
    """

    def __init__(self, dataset: Dataset, folder: str, info: EmbeddingsInfo | None) -> None:
        self._dataset, self._folder, self._info = dataset, folder, info

    @functools.cached_property
    def has_folder(self) -> bool:
        """Whether the folder's encoder can run here."""
        return self._info is not None and not extras.missing(["torch", "transformers", "safetensors"])

    @functools.cached_property
    def has_columns(self) -> bool:
        """Whether the recipe says which model made the columns, and it can run here."""
        return self._settings is not None and not extras.missing(["torch", "transformers", "timm"])

    @functools.cached_property
    def _settings(self) -> dict[str, Any] | None:
        steps = self._dataset.info.recipe.get("stages", [])
        found = [step.get("settings") or {} for step in steps if step["name"] == _STAGE]
        # The last, as a stage that is added anew writes the columns anew. A model of the form package.module:function
        # would be a stranger's code.
        return found[-1] if found and not is_dotted(str(found[-1].get("model"))) else None

    def of_folder(self, text: str) -> Matrix:
        """Return the vector (dimensions,) of a text by the folder's encoder; raises `SourceError` if it is not here."""
        return _unit(self._encoder(text))

    def of_columns(self, text: str, models: list[str]) -> Matrix:
        """Return the vector (dimensions,) of a text by the one of ``models`` that made the columns.

        Raises `SourceError` if the recipe's model is another one, or is not here.
        """
        name, encode = self._matcher
        if models != [name]:
            raise SourceError(f"the clips' embeddings are by {', '.join(models)}, and the model here is {name}")
        return _unit(encode(text))

    @functools.cached_property
    def _encoder(self) -> Encode:
        from vidal.retrieval.search import encoder_of
        from vidal.train.towers.load import run_of

        assert self._info is not None, "`has_folder` is asked first"
        checkpoint = self._info.checkpoint
        if run_of(checkpoint) is None:
            _see_that_it_is_here(checkpoint)
        encoder = encoder_of(self._folder, self._info, checkpoint)
        return lambda text: encoder.encode_texts([text])[0].detach().float().cpu().numpy()

    @functools.cached_property
    def _matcher(self) -> tuple[str, Encode]:
        from vidal.stages.text.embeddings import Embeddings

        stage = Embeddings(**(self._settings or {}), device="cpu")
        for model in (stage.model, stage.sentence_model) if stage.backend == "conse" else (stage.model,):
            _see_that_it_is_here(model)
        matcher = stage.load()
        return stage.matcher_name, lambda text: matcher.texts([text])[0]


def _see_that_it_is_here(model: str) -> None:
    if locate(model).here is None:
        raise SourceError(
            f"model {model} is not on this machine, and is not fetched for a search (a relative path begins where "
            f"vidal was started); search in the texts"
        )


def _unit(vector: Any) -> Matrix:
    row = np.asarray(vector, np.float32)
    return row / np.float32(max(float(np.linalg.norm(row)), 1e-12))
