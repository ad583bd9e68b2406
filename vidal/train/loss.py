"""Contrastive losses between two batches of features, over all ranks.

Shapes: b rows of a rank, n rows of all ranks, d feature dimension. ``image_features`` and ``text_features`` are CLIP's
names for the two sides of a pair, whichever modalities they are; features need not be normalised. Rows that are not
``valid`` (padding, or samples that could not be read) are neither queries nor candidates. The mean over ranks of the
loss and of its gradients, which DDP computes, equals those of one process with the whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vidal.train.distributed import gather_rows, is_distributed

# With as many rows of the rank's own, 64 MiB of float32 logits at a time.
_CHUNK_ROWS = 4096


class LossSettings(BaseModel):
    """The kind of loss, and how it is computed over several ranks."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: Literal["info_nce", "sigmoid"] = "info_nce"
    """InfoNCE as in CLIP (Radford et al., 2021), or the pairwise sigmoid loss of SigLIP (Zhai et al., 2023)."""
    local: bool = True
    """Each rank computes the logits of its own rows against all, in O(b n) memory instead of O(n n); the loss is the
    same. open_clip calls it ``local_loss``."""
    mask_duplicates: bool = False
    """Exclude negatives that are in fact matches, as they have the same text or are the same clip."""


def contrastive_loss(
    settings: LossSettings, image_features: Tensor, text_features: Tensor, logit_scale: Tensor,
    logit_bias: Tensor | None, valid: Tensor, group: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the loss of ``settings.kind`` as a scalar.

    Features are (b, d), ``valid`` is (b,) bool, and ``group`` (b,) int64, equal for rows with equal contents.
    ``logit_scale`` is the factor itself, not its logarithm; the sigmoid loss needs ``logit_bias``.
    """
    group = group if settings.mask_duplicates else None
    if settings.kind == "sigmoid":
        assert logit_bias is not None
        return sigmoid(image_features, text_features, logit_scale, logit_bias, valid, group=group)
    return info_nce(image_features, text_features, logit_scale, valid, group=group, local=settings.local)


def info_nce(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, valid: Tensor | None = None, *,
    group: Tensor | None = None, local: bool = True,
) -> Tensor:  # fmt: skip
    """Return the symmetric cross-entropy of CLIP, the mean of both directions over all valid rows of all ranks."""
    rows = _Rows(image_features, text_features, valid, group)
    ranks, count = rows.ranks, rows.count
    if not local:
        rows = _Rows(rows.all_image, rows.all_text, rows.all_valid, rows.all_group, is_gathered=True)
        # Every rank has the whole loss, and the gather sums the gradients of a row over the ranks: no factor is left.
        ranks = 1
    image_to_text = rows.cross_entropy(rows.image, rows.all_text, logit_scale)
    text_to_image = rows.cross_entropy(rows.text, rows.all_image, logit_scale)
    return (image_to_text + text_to_image) / 2 * ranks / count


def sigmoid(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor,
    valid: Tensor | None = None, *, group: Tensor | None = None, chunk_rows: int = _CHUNK_ROWS,
) -> Tensor:  # fmt: skip
    """Return the pairwise sigmoid loss of SigLIP: its sum over all pairs of valid rows, divided by the number of rows.

    Features are gathered in one collective, where SigLIP's ring exchange has many; logits are computed for
    ``chunk_rows`` texts at a time, and recomputed in the backward pass.
    """
    rows = _Rows(image_features, text_features, valid, group)
    chunks = [slice(start, start + chunk_rows) for start in range(0, len(rows.all_text), chunk_rows)]
    if len(chunks) == 1:
        # All logits fit: recomputing them would save nothing.
        return rows.pairwise(chunks[0], logit_scale, logit_bias) * rows.ranks / rows.count
    sums = [
        # Logits draw nothing at random, so no generator's state has to be kept for the second time.
        checkpoint(rows.pairwise, chunk, logit_scale, logit_bias, use_reentrant=False, preserve_rng_state=False)
        for chunk in chunks
    ]
    return torch.stack(sums).sum() * rows.ranks / rows.count


def duplicate_negatives(groups: Iterable[float]) -> int:
    """Return the number of negatives whose contents, and so groups, equal those of the row: false negatives.

    Both directions count, so two rows with the same text are two.
    """
    return sum(size * (size - 1) for size in Counter(groups).values())


class _Rows:
    """Normalised features of this rank and of all ranks, and which of them are valid."""

    def __init__(
        self, image: Tensor, text: Tensor, valid: Tensor | None, group: Tensor | None, *, is_gathered: bool = False
    ) -> None:
        self.valid = torch.ones(len(image), dtype=torch.bool, device=image.device) if valid is None else valid
        self.image, self.text = (_normalised(features, self.valid) for features in (image, text))
        self.group = group
        gathers = is_distributed() and not is_gathered
        self.ranks = torch.distributed.get_world_size() if gathers else 1
        self.offset = torch.distributed.get_rank() * len(image) if gathers else 0
        own = (self.image, self.text, self.valid, *([] if group is None else [group]))
        self.all_image, self.all_text, self.all_valid, *groups = gather_rows(*own) if gathers else own
        self.all_group = groups[0] if groups else None
        # At least 1: the loss of a batch without a valid row is 0, not NaN.
        self.count = self.all_valid.sum().clamp(min=1)

    def targets(self) -> Tensor:
        """(b,) the column of each row's positive."""
        return torch.arange(len(self.image), device=self.image.device) + self.offset

    def excluded(self, start: int, stop: int) -> Tensor:
        """(b, stop - start) the pairs that are neither positives nor negatives."""
        # Padding is on the end of each rank's rows, hence amid those of all ranks: it cannot be cut off, only masked.
        excluded = ~self.all_valid[start:stop].expand(len(self.image), -1)
        if self.group is not None and self.all_group is not None:
            columns = torch.arange(start, stop, device=self.image.device)
            is_positive = columns == self.targets()[:, None]
            excluded = excluded | ((self.group[:, None] == self.all_group[start:stop]) & ~is_positive)
        return excluded

    def cross_entropy(self, queries: Tensor, candidates: Tensor, logit_scale: Tensor) -> Tensor:
        """The sum over this rank's valid rows."""
        logits = logit_scale * queries @ candidates.T
        logits = logits.masked_fill(self.excluded(0, len(candidates)), float("-inf"))
        # All logits of an invalid row may be -inf, and the gradient of their softmax NaN.
        logits = torch.where(self.valid[:, None], logits, torch.zeros_like(logits))
        losses = F.cross_entropy(logits, self.targets(), reduction="none")
        return torch.where(self.valid, losses, torch.zeros_like(losses)).sum()

    def pairwise(self, chunk: slice, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
        """The sum over this rank's valid rows and the columns of one chunk."""
        candidates = self.all_text[chunk]
        start, stop = chunk.start, chunk.start + len(candidates)
        logits = logit_scale * self.image @ candidates.T + logit_bias
        columns = torch.arange(start, stop, device=logits.device)
        signs = torch.where(columns == self.targets()[:, None], 1.0, -1.0).to(logits.dtype)
        losses = -F.logsigmoid(signs * logits)
        counts = self.valid[:, None] & ~self.excluded(start, stop)
        return torch.where(counts, losses, torch.zeros_like(losses)).sum()


def _normalised(features: Tensor, valid: Tensor) -> Tensor:
    """Features of unit length, in at least float32; invalid rows become 0, since they may hold NaN."""
    features = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
    return F.normalize(features.masked_fill(~valid[:, None], 0), dim=-1)
