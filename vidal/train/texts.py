"""`Texts`: the text embeddings of a step, from a frozen text tower or from a cache of its embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vidal.train.data.rows import Tokenize
from vidal.train.distributed import World
from vidal.train.recipe import Precision
from vidal.train.text_cache import Progress, TextCache
from vidal.train.towers.text import TextTower

# The shape of every forward pass, whatever the texts: on it depend the last bits of an embedding.
_ROWS_PER_PASS = {"cpu": 32, "cuda": 256}
# Part of the cache's folder name: raise it when the same tower gives other embeddings.
_VERSION = 1


class Texts:
    """Encodes texts with a frozen tower, in the precision of the run; the same values come from its cache."""

    def __init__(self, tower: TextTower, here: World, precision: Precision) -> None:
        self._tower, self._here = tower, here
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._rows_per_pass = _ROWS_PER_PASS[here.device.type]
        self._cache: TextCache | None = None

    def cache(self, folder: Path, texts: Iterable[str], progress: Progress = lambda done, total: None) -> int:
        """From now on, take embeddings from a cache below ``folder``; return the number of texts it did not have.

        The tower encodes those of ``texts`` that are missing and then leaves the device. A collective: the texts have
        to be the same on every rank. Raises `StorageError` if the cache cannot be written.
        """
        # What the embedding of a text depends on.
        parts = (_VERSION, self._tower.identity(), self._dtype, self._here.device.type, self._rows_per_pass)
        identity = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        self._cache = TextCache(folder / identity, self._tower.dim, self._dtype, self._here)
        encoded = self._cache.add(texts, self._encode, progress)
        self._tower.to("cpu")
        return encoded

    @property
    def tokenize(self) -> Tokenize | None:
        """The tower's tokeniser, for the loader's workers; None if embeddings come from the cache."""
        return self._tower.tokenize if self._cache is None else None

    def encode(self, texts: Sequence[str], tokens: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the embeddings (n, d) on the device in float32, without gradient, not normalised.

        ``tokens`` are the token ids and the attention mask of the texts, if the workers made them.
        """
        if self._cache is None:
            return self._encode(texts, tokens).float()
        rows = self._cache.rows(texts)
        # From pinned memory, as the CPU would wait for any other copy.
        rows = rows.pin_memory() if self._here.is_gpu else rows
        return rows.to(self._here.device, non_blocking=True).float()

    def _encode(self, texts: Sequence[str], tokens: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Encode n texts as (n, d), in bfloat16 or float32."""
        is_bf16 = self._dtype is torch.bfloat16
        with torch.autocast(self._here.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            ids, mask = tokens or self._tower.tokenize(texts)
            return self._tower.encode_tokens(ids, mask, self._rows_per_pass).to(self._dtype)
