"""The modalities that are known: vidal's own, and those that a recipe, an option or a program named.

A dataset records which modality its layers are of, as ``package.module:NAME``. A dataset may be a stranger's, so a
reader imports such a module only where the caller allowed it.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping

from vidal.errors import RecipeError, UserError, VidalWarning
from vidal.modality.modality import Modality

_OWN = (
    "vidal.modality.video:VIDEO",
    "vidal.modality.infrared:INFRARED",
    "vidal.modality.depth:DEPTH",
    "vidal.modality.audio:AUDIO",
)
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LAYER = re.compile(r"[a-z][a-z0-9]{0,31}", re.ASCII)
_RESERVED = ("text", "image", "source", "joint", "manifest", "phases")
"""Names that mean something else in a recipe or a dataset's folder."""
_FILES = ("source",)
"""Layers that keep files as they came, and are no modality."""

_known: dict[str, Modality] = {}
_paths: dict[str, str] = {}
"""By layer, where a modality outside vidal was loaded from."""
_allowed: set[str] = set()


def all() -> list[Modality]:
    """Every modality that is known, vidal's own first."""
    if not _known:
        _known.update({m.layer: m for m in map(_object, _OWN)})
    return list(_known.values())


def find(layer: str) -> Modality | None:
    """The modality of a layer; None for a layer of none that is known."""
    return next((m for m in all() if m.layer == layer), None)


def get(layer: str) -> Modality:
    """The modality of a layer; raises `UserError`."""
    found = find(layer)
    if found is None:
        raise UserError(f"no modality `{layer}`: there is {', '.join(m.layer for m in all())}")
    return found


def layer_of(suffix: str) -> str | None:
    """The layer that a member's suffix says it belongs to; None for texts and for what is not known."""
    return next((m.layer for m in all() if m.takes(suffix)), None)


def register(modality: Modality, path: str | None = None) -> None:
    """Make a modality known; ``path`` is the ``package.module:NAME`` that datasets record. Raises `UserError`."""
    there = find(modality.layer)
    if there is modality:
        return
    if there is not None:
        raise UserError(f"modality `{modality.layer}`: there is one of that name already ({type(there).__name__})")
    if not _LAYER.fullmatch(modality.layer) or modality.layer in _RESERVED:
        raise UserError(
            f"modality `{modality.layer}`: a name is lower case letters and digits, and none of {', '.join(_RESERVED)}"
        )
    _known[modality.layer] = modality
    if path is not None:
        _paths[modality.layer] = path


def load(path: str) -> Modality:
    """Import ``package.module:NAME`` and register the modality there; raises `RecipeError`."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise RecipeError(f"modality {path!r}: write package.module:NAME")
    try:
        modality = _object(path)
    except (ImportError, AttributeError, TypeError) as error:
        raise RecipeError(f"modality {path}: {error}") from None
    register(modality, path)
    return modality


def load_all(paths: object, place: str) -> dict[str, str]:
    """Load the modalities that a recipe's ``modalities`` lists; gives their paths by layer. Raises `RecipeError`."""
    if not isinstance(paths, list | None):
        raise RecipeError(f"{place}: `modalities` is a list of package.module:NAME, not {paths!r}")
    try:
        return {load(path).layer: path for path in paths or ()}
    except UserError as error:
        raise RecipeError(f"{place}: modalities: {error}") from None


def allow(prefix: str) -> None:
    """Let datasets and runs name modalities of a package, or of a module: ``my_package``."""
    _allowed.add(prefix)


def load_recorded(recorded: Mapping[str, str], place: str, layers: Iterable[str] = ()) -> None:
    """Load the modalities that a dataset or an encoder names and the caller allows; warns of every other one.

    ``layers`` are all that it has: of one that is neither named nor known nobody can say what it holds.
    """
    for layer, path in recorded.items():
        if find(layer) is None and not _load_if_allowed(path):
            _warn(place, layer, f"its modality {_shown(path)} is not loaded; {_mend(path)}")
    for layer in layers:
        if layer not in recorded and layer not in _FILES and find(layer) is None:
            _warn(place, layer, "no modality of that name is known; name its modality with vidal.modality.register")


def require(paths: Iterable[str], place: str) -> None:
    """Load the modalities without which something cannot be read; raises `UserError` where that is not allowed."""
    for path in paths:
        if path not in _paths.values() and not _load_if_allowed(path):
            raise UserError(f"{place}: its modality {_shown(path)} is not loaded; {_mend(path)}")


def paths_of(layers: Iterable[str]) -> dict[str, str]:
    """By layer, where its modality was loaded from; vidal's own are left out."""
    return {layer: _paths[layer] for layer in layers if layer in _paths}


def _object(path: str) -> Modality:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, Modality):
        raise TypeError("it is no vidal.modality.modality.Modality")
    return found


def _load_if_allowed(path: str) -> bool:
    if not _PATH.fullmatch(path):
        return False
    module = path.partition(":")[0]
    # What the program has imported already runs no code of a stranger's.
    if module not in sys.modules and not any(module == p or module.startswith(f"{p}.") for p in _allowed):
        return False
    load(path)
    return True


def _warn(place: str, layer: str, why: str) -> None:
    warnings.warn(f"{place}: layer `{_shown(layer)}` is left out: {why}", VidalWarning, stacklevel=4)


def _mend(path: str) -> str:
    if not _PATH.fullmatch(path):
        return "it is written as package.module:NAME"
    return f"where you trust that module, --allow-module {path.partition(':')[0]} or vidal.modality.load loads it"


def _shown(text: str) -> str:
    """A stranger's word, in one short line."""
    return ascii(text)[1:-1][:120]
