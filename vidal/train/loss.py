"""Contrastive losses of two batches of embeddings, over all ranks.

Shape letters: b rows of a rank, n rows of all ranks, d width. Embeddings come un-normalised. A row pair that is not
``valid`` (padding, or a sample that could not be read) is neither row nor column. Value and gradients are such that
the mean over ranks, which DDP takes of gradients, equals one process with the whole batch.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vidal.train.distributed import gather_rows, is_distributed, total

_CHUNK_ROWS = 4096


class LossSettings(BaseModel):
    """Which loss, and how ranks share their rows."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["info_nce", "sigmoid"] = "info_nce"
    local: bool = True
    """Each rank scores its own rows against all: memory O(b n) rather than O(n n), the same numbers."""
    gather_gradient: bool = True
    """Let the gradient flow to the rows of other ranks."""
    mask_duplicates: bool = False
    """Leave columns out that are known to match: the same text, or the same clip."""

    @model_validator(mode="after")
    def _is_right(self) -> LossSettings:
        if self.local and not self.gather_gradient:
            raise ValueError(
                "local without gather_gradient gives wrong gradients; set gather_gradient, or local: false"
            )
        if not self.gather_gradient:
            raise ValueError("without gather_gradient gradients are too small by the number of ranks; leave it on")
        return self


def contrastive_loss(
    settings: LossSettings, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor | None, valid: Tensor,
    group: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The loss that the settings name; ``a`` and ``b`` (b, d), ``valid`` (b,), ``group`` (b,) of equal contents."""
    group = group if settings.mask_duplicates else None
    if settings.kind == "sigmoid":
        assert bias is not None
        return sigmoid(a, b, scale, bias, valid, group=group)
    return info_nce(a, b, scale, valid, group=group, local=settings.local)


def info_nce(
    a: Tensor, b: Tensor, scale: Tensor, valid: Tensor | None = None, *, group: Tensor | None = None, local: bool = True
) -> Tensor:
    """Symmetric cross-entropy (CLIP): the mean of both directions over all valid rows of all ranks."""
    rows = _Rows(a, b, valid, group)
    if local:
        parts = [rows.cross_entropy(rows.a, rows.all_b, scale), rows.cross_entropy(rows.b, rows.all_a, scale)]
        world = rows.ranks
    else:
        whole = _Rows(rows.all_a, rows.all_b, rows.all_valid, rows.all_group, is_gathered=True)
        parts = [
            whole.cross_entropy(whole.a, whole.b, scale), whole.cross_entropy(whole.b, whole.a, scale)
        ]  # fmt: skip
        # Every rank has the whole loss, whose gradient reaches its rows once from each of them.
        world = 1
    return (parts[0] + parts[1]) / 2 * world / rows.count


def sigmoid(
    a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, valid: Tensor | None = None, *, group: Tensor | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> Tensor:  # fmt: skip
    """Pairwise sigmoid loss (SigLIP): its sum over all pairs of valid rows by the number of rows.

    A rank scores its rows against the gathered ones in chunks: one collective where a ring has many, and never more
    than a chunk's logits in memory.
    """
    rows = _Rows(a, b, valid, group)
    chunks = [slice(start, start + chunk_rows) for start in range(0, len(rows.all_b), chunk_rows)]
    if len(chunks) == 1:
        return rows.pairwise(chunks[0], scale, bias) * rows.ranks / rows.count
    sums = [
        checkpoint(rows.pairwise, chunk, scale, bias, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
    ]
    return torch.stack(sums).sum() * rows.ranks / rows.count


def duplicate_negatives(group: Tensor, valid: Tensor) -> Tensor:
    """How many pairs of rows of all ranks count against each other although their contents are equal.

    Both directions count, so two rows with one text are two.
    """
    everyone, counts = gather_rows(group, with_gradient=False), gather_rows(valid, with_gradient=False)
    sizes: Tensor = everyone[counts].unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
    return (sizes * (sizes - 1)).sum()


class _Rows:
    """Normalised rows of this rank and of all, with which of them count."""

    def __init__(
        self, a: Tensor, b: Tensor, valid: Tensor | None, group: Tensor | None, *, is_gathered: bool = False
    ) -> None:
        self.valid = torch.ones(len(a), dtype=torch.bool, device=a.device) if valid is None else valid
        self.a, self.b = (_unit(side, self.valid) for side in (a, b))
        self.group = group
        spread = is_distributed() and not is_gathered
        self.ranks = torch.distributed.get_world_size() if spread else 1
        self.offset = torch.distributed.get_rank() * len(a) if spread else 0
        self.all_a = gather_rows(self.a, with_gradient=True) if spread else self.a
        self.all_b = gather_rows(self.b, with_gradient=True) if spread else self.b
        self.all_valid = gather_rows(self.valid, with_gradient=False) if spread else self.valid
        self.all_group = group if group is None or not spread else gather_rows(group, with_gradient=False)
        count = self.valid.sum() if is_gathered else total(self.valid.sum())
        self.count = count.clamp(min=1)

    def own_columns(self) -> Tensor:
        """(b,) the column that is each row's other side."""
        return torch.arange(len(self.a), device=self.a.device) + self.offset

    def left_out(self, start: int, stop: int) -> Tensor:
        """(b, columns) which pairs count for nothing."""
        out = ~self.all_valid[start:stop].expand(len(self.a), -1)
        if self.group is not None and self.all_group is not None:
            columns = torch.arange(start, stop, device=self.a.device)
            is_own = columns == self.own_columns()[:, None]
            out = out | ((self.group[:, None] == self.all_group[start:stop]) & ~is_own)
        return out

    def cross_entropy(self, queries: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
        """The sum over this rank's valid rows."""
        logits = scale * queries @ keys.T
        logits = logits.masked_fill(self.left_out(0, len(keys)), float("-inf"))
        targets = self.own_columns()
        # A row that does not count may have nothing but -inf, whose gradient would be NaN.
        logits = torch.where(self.valid[:, None], logits, torch.zeros_like(logits))
        losses = F.cross_entropy(logits, targets, reduction="none")
        return torch.where(self.valid, losses, torch.zeros_like(losses)).sum()

    def pairwise(self, chunk: slice, scale: Tensor, bias: Tensor) -> Tensor:
        """The sum over this rank's valid rows and the columns of one chunk."""
        keys = self.all_b[chunk]
        start, stop = chunk.start, chunk.start + len(keys)
        logits = scale * self.a @ keys.T + bias
        columns = torch.arange(start, stop, device=logits.device)
        signs = torch.where(columns == self.own_columns()[:, None], 1.0, -1.0).to(logits.dtype)
        losses = -F.logsigmoid(signs * logits)
        counts = self.valid[:, None] & ~self.left_out(start, stop)
        return torch.where(counts, losses, torch.zeros_like(losses)).sum()


def _unit(rows: Tensor, valid: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least; one that does not count becomes 0, since it may hold a NaN."""
    rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
    return F.normalize(rows.masked_fill(~valid[:, None], 0), dim=-1)
