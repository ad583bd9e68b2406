"""What an encoder's inputs are prepared with: the recipe's settings in a run, and what an export carries of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vidal import modality as modalities
from vidal.modality.modality import Transform
from vidal.train.towers.encoder import Encoder


def transforms_of(said: Mapping[str, Mapping[str, Any]], encoder: Encoder) -> dict[str, Transform]:
    """The inputs that the towers take, with what a training recipe says of each one's preparation."""
    made: dict[str, Transform] = {}
    for modality, given in said.items():
        settings = encoder.tower(modality).settings
        kind = modalities.get(modality).transform
        sizes = kind.settings_for(*settings.height_width, settings.frames)
        made[modality] = kind.model_validate({**sizes, **given})
    return made


def transforms_for(encoder: Encoder) -> dict[str, Transform]:
    """Those that the encoder carries; of a published one, which carries none, the modalities' own at its sizes."""
    if encoder.preprocessing:
        said = {m: said for m, said in encoder.preprocessing.items() if m in encoder.serves}
        return {m.layer: m.transform.model_validate(said[m.layer]) for m in map(modalities.find, said) if m is not None}
    made: dict[str, Transform] = {}
    for modality in filter(None, map(modalities.find, encoder.modalities)):
        settings = encoder.tower(modality.layer).settings
        # A tower that looks at one frame at a time takes as many as its modality has.
        frames = settings.frames if settings.temporal else None
        sizes = modality.transform.settings_for(*settings.height_width, frames)
        made[modality.layer] = modality.transform.model_validate(sizes)
    return made


def described(transforms: Mapping[str, Transform]) -> dict[str, dict[str, Any]]:
    """JSON-able: what an encoder carries."""
    return {modality: transform.model_dump(mode="json") for modality, transform in transforms.items()}


def preprocessing_identity(said: Mapping[str, Mapping[str, Any]]) -> str:
    """Stands for the preparation of inputs: embeddings of two are never compared."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
