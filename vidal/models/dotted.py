"""Models outside vidal: ``package.module:function`` in a stage's ``model`` names a function that loads one.

load = load_function("my_models.thermal:load")
translate = load(device="cuda", half=True, ...)     # the stage's documentation says what it passes and gets

The recipe is its writer's program, for stages as for models: whoever builds it runs that module. A dataset records the
reference and never imports it, so nothing has to be allowed to read one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidal.errors import ModelError

# `vidal:NAME` and `package:NAME` are references of other kinds.
_DOTTED = re.compile(r"(?!(?:vidal|package):)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_dotted(reference: str) -> bool:
    """Whether a model reference has the form ``package.module:function``."""
    return _DOTTED.fullmatch(reference) is not None


def source_file(reference: str) -> Path:
    """Return the file of a dotted reference's module, whose hash identifies the model; raises `ModelError`."""
    module = reference.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ModelError(f"model {reference}: {error}") from None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ModelError(f"model {reference}: no module {module} is installed; name package.module:function")
    return Path(spec.origin)


def load_function(reference: str) -> Callable[..., Any]:
    """Import the function that a dotted reference names; raises `ModelError`."""
    module, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model {reference}: {error}") from None
    if not callable(function):
        raise ModelError(f"model {reference}: {name} is not a function")
    checked: Callable[..., Any] = function
    return checked
