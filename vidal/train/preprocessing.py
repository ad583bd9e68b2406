"""What an encoder's inputs are prepared with: the recipe's settings in a run, and what an export carries of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vidal.train.data.transforms import TRANSFORMS, Transform
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder


def transforms_of(recipe: TrainRecipe, encoder: Encoder) -> dict[str, Transform]:
    """The inputs that the towers take, with what the recipe says of their preparation."""
    made: dict[str, Transform] = {}
    for modality, tower in recipe.towers.items():
        settings = encoder.tower(modality).settings
        height, width = settings.height_width
        if modality == "audio":
            sizes: dict[str, Any] = {"mel_bins": height, "length": width}
        else:
            sizes = {"size": height, "frames": settings.frames}
        made[modality] = TRANSFORMS[modality].model_validate({**sizes, **tower.transform})
    return made


def transforms_for(encoder: Encoder) -> dict[str, Transform]:
    """Those that the encoder carries; of a published one, which carries none, the modalities' own at its sizes."""
    if encoder.preprocessing:
        return {
            m: TRANSFORMS[m].model_validate(said) for m, said in encoder.preprocessing.items() if m in encoder.serves
        }
    made: dict[str, Transform] = {}
    for modality in (m for m in encoder.modalities if m in TRANSFORMS):
        settings = encoder.tower(modality).settings
        height, width = settings.height_width
        sizes: dict[str, Any] = {"size": height, "frames": 8 if modality == "video" else settings.frames}
        if modality == "audio":
            sizes = {"mel_bins": height, "length": width}
        made[modality] = TRANSFORMS[modality].model_validate(sizes)
    return made


def described(transforms: Mapping[str, Transform]) -> dict[str, dict[str, Any]]:
    """JSON-able: what an encoder carries."""
    return {modality: transform.model_dump(mode="json") for modality, transform in transforms.items()}


def preprocessing_identity(said: Mapping[str, Mapping[str, Any]]) -> str:
    """Stands for the preparation of inputs: embeddings of two are never compared."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
