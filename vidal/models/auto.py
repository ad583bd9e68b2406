"""Loading through transformers' Auto classes: progress bars off, one line for each error."""

from __future__ import annotations

import importlib
from typing import Any

from vidal.errors import ModelError
from vidal.models.locate import locate


def load_auto(auto_class: str, reference: str, **options: Any) -> Any:
    """Return ``transformers.<auto_class>.from_pretrained`` of a model reference; raises `ModelError`.

    tokenizer = load_auto("AutoTokenizer", "/models/smol")
    """
    from safetensors import SafetensorError

    # transformers' annotations are partial, and mypy would hold every caller to them: hence Any.
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    place = locate(reference)
    try:
        return getattr(transformers, auto_class).from_pretrained(place.source, revision=place.revision, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"model {reference}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
