"""Modalities. Each is one object: layer name, member names, decoder, transform, zero-shot prompts and report strip.

    from vidal import modality as modalities

    modalities.get("depth").decode({"depth.0.png": data})     # (1, h, w) uint16
    modalities.load("my_package.normals:NORMALS")             # register a modality of your own

A recipe, of a build or a training, registers one with the line ``modalities: [my_package.normals:NORMALS]``.
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
    require_allowed,
)

__all__ = [
    "all", "allow", "find", "get", "layer_of", "load", "load_all", "load_recorded", "paths_of", "register", "require",
    "require_allowed",
]  # fmt: skip
