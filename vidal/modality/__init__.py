"""Modalities: each is one object that holds its layer, member names, decoder, preparation, prompts and report strip.

    from vidal import modality as modalities

    modalities.get("depth").decode({"depth.0.png": data})     # (1, h, w) uint16
    modalities.load("my_package.normals:NORMALS")             # a modality of your own, known from here on

A recipe names a modality of your own in one line, ``modalities: [my_package.normals:NORMALS]``, for a build as for a
training.
"""

from __future__ import annotations

from vidal.modality.registry import (
    all,
    allow,
    find,
    get,
    layer_of,
    load,
    load_all,
    load_recorded,
    paths_of,
    register,
    require,
)

__all__ = [
    "all", "allow", "find", "get", "layer_of", "load", "load_all", "load_recorded", "paths_of", "register", "require",
]  # fmt: skip
