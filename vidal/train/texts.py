"""`Texts`: embeddings of captions by the frozen text tower, which never change and so need not be made twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vidal.train.towers.text import TextTower


class Texts:
    """Encodes captions as they come, or looks them up where all were encoded before the first step."""

    def __init__(self, tower: TextTower, device: torch.device, batch_size: int = 32) -> None:
        self._tower, self._device, self._batch_size = tower, device, batch_size
        self._known: dict[str, int] = {}
        self._table: Tensor | None = None

    def precompute(self, texts: Iterable[str]) -> int:
        """Encode each distinct text once, in an order that depends on the texts alone; gives how many there are."""
        distinct = sorted(set(texts) | {""})
        self._table = self._tower.encode(distinct, self._batch_size).to(self._device)
        self._known = {text: number for number, text in enumerate(distinct)}
        return len(distinct)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(b, d) float32, without gradient."""
        if self._table is not None and all(text in self._known for text in texts):
            return self._table[torch.tensor([self._known[text] for text in texts], device=self._device)]
        with torch.no_grad():
            return self._tower.encode(list(texts), self._batch_size)
