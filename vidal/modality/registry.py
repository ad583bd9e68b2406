"""The registered modalities: vidal's own and those registered by a recipe, a command-line option or a program.

A dataset records the modalities of its layers as ``package.module:NAME``. As datasets are untrusted, a reader imports
such a module only if the caller allows it.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping

from vidal.errors import RecipeError, UserError, VidalWarning
from vidal.modality.modality import Modality

_OWN = {
    "video": "vidal.modality.video:VIDEO",
    "infrared": "vidal.modality.infrared:INFRARED",
    "depth": "vidal.modality.depth:DEPTH",
    "audio": "vidal.modality.audio:AUDIO",
}
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
# A layer's name becomes a folder, and part of a member's name, in which a dot begins the next part.
_LAYER = re.compile(r"[a-z][a-z0-9]{0,31}", re.ASCII)
_RESERVED = ("text", "image", "source", "joint", "manifest", "phases", "flags", "teachers")
"""Names with another meaning in a recipe or in a dataset's folder."""
_FILES = ("source",)
"""Layers that store the source files and have no modality."""

_registered: dict[str, Modality] = {}
_paths: dict[str, str] = {}
"""Import path of each modality that is not vidal's own, by layer."""
# Empty by default: importing what a dataset names would run a stranger's code.
_allowed: set[str] = set()


def all() -> list[Modality]:
    """Return all registered modalities, vidal's own first."""
    own = [get(layer) for layer in _OWN]
    return [*own, *(modality for layer, modality in _registered.items() if layer not in _OWN)]


def find(layer: str) -> Modality | None:
    """Return the modality of a layer, or None if none is registered."""
    # Imported at the first use, and no other: these modules bring OpenCV along, and take time to import.
    if layer in _OWN and layer not in _registered:
        _registered[layer] = _import(_OWN[layer])
    return _registered.get(layer)


def get(layer: str) -> Modality:
    """Return the modality of a layer; raises `UserError` if none is registered."""
    modality = find(layer)
    if modality is None:
        raise UserError(f"no modality `{layer}`; choose from {', '.join(m.layer for m in all())}")
    return modality


def layer_of(suffix: str) -> str | None:
    """Return the layer of a member by its suffix; None for texts and unknown members."""
    return next((m.layer for m in all() if m.takes(suffix)), None)


def register(modality: Modality, path: str | None = None) -> None:
    """Register a modality; ``path`` is the ``package.module:NAME`` that datasets record.

    Raises `UserError` if its name is invalid, reserved or taken by another modality.
    """
    existing = find(modality.layer)
    if existing is modality:
        return
    if existing is not None:
        raise UserError(f"modality `{modality.layer}`: the name is already in use by {type(existing).__name__}")
    if not _LAYER.fullmatch(modality.layer) or modality.layer in _RESERVED:
        raise UserError(
            f"modality `{modality.layer}`: a name consists of lower-case letters and digits and is not one of "
            f"{', '.join(_RESERVED)}"
        )
    _registered[modality.layer] = modality
    if path is not None:
        _paths[modality.layer] = path


def load(path: str) -> Modality:
    """Import and register the modality ``package.module:NAME``; raises `RecipeError` if that fails."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise RecipeError(f"modality {path!r}: write package.module:NAME; vidal's own need no entry")
    try:
        modality = _import(path)
    except (ImportError, AttributeError, TypeError) as error:
        raise RecipeError(f"modality {path}: {error}") from None
    register(modality, path)
    return modality


def load_all(paths: object, place: str) -> dict[str, str]:
    """Load the modalities in a recipe's ``modalities`` and return their paths by layer.

    ``place`` names the recipe in the `RecipeError` that is raised if one cannot be loaded.
    """
    if not isinstance(paths, list | None):
        raise RecipeError(f"{place}: `modalities` is a list of package.module:NAME, not {paths!r}")
    try:
        return {load(path).layer: path for path in paths or ()}
    except UserError as error:
        raise RecipeError(f"{place}: modalities: {error}") from None


def allow(prefix: str) -> None:
    """Allow datasets and runs to import modalities, stages and models from a package, such as ``my_package``."""
    _allowed.add(prefix)


def load_recorded(recorded: Mapping[str, str], place: str, layers: Iterable[str] = ()) -> None:
    """Load the modalities that a dataset or encoder records, if the caller allows their modules, else warn.

    ``layers`` are all its layers; a layer without a recorded or registered modality causes a warning as well.
    """
    for layer, path in recorded.items():
        if find(layer) is None and not _load_if_allowed(path):
            _warn(place, layer, f"its modality {_short(path)} is not loaded; {_advice(path)}")
    for layer in layers:
        if layer not in recorded and layer not in _FILES and find(layer) is None:
            _warn(place, layer, "no modality of that name is registered; register one with vidal.modality.register")


def require(paths: Iterable[str], place: str) -> None:
    """Load the modalities that ``place`` cannot be read without; raises `UserError` if one is not allowed."""
    for path in paths:
        if path not in _paths.values() and not _load_if_allowed(path):
            raise UserError(f"{place}: its modality {_short(path)} is not loaded; {_advice(path)}")


def paths_of(layers: Iterable[str]) -> dict[str, str]:
    """Return the import paths of the layers' modalities, by layer, without vidal's own."""
    return {layer: _paths[layer] for layer in layers if layer in _paths}


def _import(path: str) -> Modality:
    module, _, name = path.partition(":")
    modality = getattr(importlib.import_module(module), name)
    if not isinstance(modality, Modality):
        raise TypeError("it is not a vidal.modality.modality.Modality")
    return modality


def require_allowed(paths: Iterable[str], place: str) -> None:
    """Raise `UserError` for a ``package.module:NAME`` that ``place`` names and the caller does not allow."""
    for path in paths:
        if not _is_allowed(path):
            raise UserError(f"{place}: it names {_short(path)}, which is not imported; {_advice(path)}")


def _is_allowed(path: str) -> bool:
    module = path.partition(":")[0]
    # Using a module that the program has already imported runs no untrusted code.
    return module in sys.modules or any(module == p or module.startswith(f"{p}.") for p in _allowed)


def _load_if_allowed(path: str) -> bool:
    if not _PATH.fullmatch(path) or not _is_allowed(path):
        return False
    load(path)
    return True


def _warn(place: str, layer: str, why: str) -> None:
    warnings.warn(f"{place}: layer `{_short(layer)}` is skipped: {why}", VidalWarning, stacklevel=4)


def _advice(path: str) -> str:
    if not _PATH.fullmatch(path):
        return "it must have the form package.module:NAME"
    return f"if you trust that module, use --allow-module {path.partition(':')[0]} or vidal.modality.load"


def _short(text: str) -> str:
    """Return untrusted text as a short line of ASCII."""
    return ascii(text)[1:-1][:120]
