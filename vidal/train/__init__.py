"""The contrastive trainer, and the encoders that it makes.

from vidal.train import load_encoder
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidal.train.towers.load import load_encoder

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    # Torch is imported by whoever asks for an encoder, not by the command line that reads a recipe.
    if name == "load_encoder":
        from vidal.train.towers.load import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
