"""The transforms of an encoder's inputs, from a training recipe or from the record in an export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vidal import modality as modalities
from vidal.modality.modality import Transform
from vidal.train.towers.encoder import Encoder


def transforms_of(overrides: Mapping[str, Mapping[str, Any]], encoder: Encoder) -> dict[str, Transform]:
    """Return the transforms of a training recipe: the sizes of each tower, with the recipe's settings on top."""
    transforms: dict[str, Transform] = {}
    for modality, values in overrides.items():
        settings = encoder.tower(modality).settings
        kind = modalities.get(modality).transform
        sizes = kind.settings_for(*settings.height_width, settings.frames)
        transforms[modality] = kind.model_validate({**sizes, **values})
    return transforms


def transforms_for(encoder: Encoder) -> dict[str, Transform]:
    """Return the transforms recorded in an encoder; for a published one, the modalities' defaults at its sizes."""
    transforms: dict[str, Transform] = {}
    for modality in filter(None, map(modalities.find, encoder.preprocessing or encoder.modalities)):
        if encoder.preprocessing:
            if modality.layer in encoder.serves:
                recorded = encoder.preprocessing[modality.layer]
                transforms[modality.layer] = modality.transform.model_validate(recorded)
            continue
        settings = encoder.tower(modality.layer).settings
        # Without temporal attention frames are encoded one by one, so their number is the modality's default.
        frames = settings.frames if settings.temporal else None
        sizes = modality.transform.settings_for(*settings.height_width, frames)
        transforms[modality.layer] = modality.transform.model_validate(sizes)
    return transforms


def described(transforms: Mapping[str, Transform]) -> dict[str, dict[str, Any]]:
    """Return the JSON-serialisable settings of transforms, as an encoder records them."""
    return {modality: transform.model_dump(mode="json") for modality, transform in transforms.items()}


def preprocessing_identity(description: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a SHA-256 of described transforms; embeddings with different identities must not be compared."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
