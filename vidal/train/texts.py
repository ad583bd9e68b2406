"""`Texts`: text embeddings of the frozen text tower, optionally precomputed, since they never change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vidal.train.towers.text import TextTower


class Texts:
    """Encodes texts on demand, or looks them up if all were precomputed."""

    def __init__(self, tower: TextTower, device: torch.device, batch_size: int = 32) -> None:
        self._tower, self._device, self._batch_size = tower, device, batch_size
        self._rows: dict[str, int] = {}
        self._table: Tensor | None = None

    def precompute(self, texts: Iterable[str]) -> None:
        """Encode each distinct text once, in sorted order."""
        # Padding rows have an empty text.
        distinct = sorted(set(texts) | {""})
        self._table = self._tower.encode(distinct, self._batch_size).to(self._device)
        self._rows = {text: row for row, text in enumerate(distinct)}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings (b, d) in float32, without gradient, not normalised."""
        if self._table is not None and all(text in self._rows for text in texts):
            return self._table[torch.tensor([self._rows[text] for text in texts], device=self._device)]
        with torch.no_grad():
            return self._tower.encode(list(texts), self._batch_size)
