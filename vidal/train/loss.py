"""Contrastive losses between batches of features, over all ranks.

Shapes: b rows of a rank, n rows of all ranks, d feature dimension. ``image_features`` and ``text_features`` are CLIP's
names for the two sides of a pair, whichever modalities they are; features need not be normalised. Rows that are not
``valid`` (padding, or samples that could not be read) are neither queries nor candidates. The mean over ranks of the
loss and of its gradients, which DDP computes, equals those of one process with the whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vidal.train.distributed import gather_rows, position
from vidal.train.tiles import LEFT_OUT, tiled_logsumexp

# With as many rows of the rank's own, 64 MiB of float32 logits at a time.
_CHUNK_ROWS = 4096


class LossSettings(BaseModel):
    """The kind of loss, and how it is computed over several ranks."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["info_nce", "sigmoid"] = "info_nce"
    """InfoNCE as in CLIP (Radford et al., 2021), or the pairwise sigmoid loss of SigLIP (Zhai et al., 2023)."""
    local: bool = True
    """Each rank computes the logits of its own rows against all, in O(b n) memory instead of O(n n); the loss is the
    same. open_clip calls it ``local_loss``."""
    mask_duplicates: bool = False
    """Exclude negatives that are in fact matches, as they have the same text or are the same clip."""
    tile_rows: int | None = Field(None, ge=1)
    """For large batches: compute the logits in tiles of so many rows and columns, and again in the backward pass, so
    that they are never in memory at once; null computes each rank's at once. The loss is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTerms:
    """What the loss of a pair has beside the features of its sides."""

    sides: tuple[int, int]
    """Indices of the sides among those of the step."""
    logit_scale: Tensor
    """The factor itself, not its logarithm."""
    logit_bias: Tensor | None = None
    """Needed by the sigmoid loss."""
    group: Tensor | None = None
    """(b,) int64, equal for rows with equal contents."""
    teachers: Sequence[Taught] = ()
    """What teachers say of the same rows; without any, the loss is contrastive alone."""
    distil_weight: float = 0.0
    """Share w of the teachers: the loss is (1 - w) times the contrastive one plus w times the divergence from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A teacher's embeddings (b, d) of the rows of a pair, and the factor of their cosine similarities."""

    image: Tensor
    text: Tensor
    known: Tensor
    """(b,) bool, the rows that it has both embeddings of; the others are no part of its similarities."""
    logit_scale: float


def contrastive_losses(
    settings: LossSettings, features: Sequence[Tensor], pairs: Sequence[PairTerms], valid: Tensor
) -> list[Tensor]:
    """Return the loss of ``settings.kind`` of each pair, a scalar, over the features (b, d) of several sides.

    The features of a side are gathered once, however many pairs it is in. ``valid`` is (b,) bool. With teachers, it is
    mixed with the divergence from them, of which each is an equal part.
    """
    masks = settings.mask_duplicates
    rows = _gathered(features, valid, [(*pair.sides, pair.group if masks else None) for pair in pairs])
    losses = [
        of_pair.sigmoid(pair.logit_scale, pair.logit_bias, settings.tile_rows or _CHUNK_ROWS)
        if settings.kind == "sigmoid"
        else of_pair.info_nce(pair.logit_scale, local=settings.local, tile_rows=settings.tile_rows)
        for of_pair, pair in zip(rows, pairs, strict=True)
    ]
    for number, (of_pair, pair) in enumerate(zip(rows, pairs, strict=True)):
        if pair.teachers:
            apart = [of_pair.divergence(taught, pair.logit_scale, settings.tile_rows) for taught in pair.teachers]
            mixed = (1 - pair.distil_weight) * losses[number] + pair.distil_weight * torch.stack(apart).mean()
            losses[number] = mixed
    return losses


def contrastive_loss(
    settings: LossSettings, image_features: Tensor, text_features: Tensor, logit_scale: Tensor,
    logit_bias: Tensor | None = None, valid: Tensor | None = None, group: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the loss of one pair of features (b, d), as `contrastive_losses` does; by default all rows are valid.

    contrastive_loss(LossSettings(), image_features, text_features, torch.tensor(1 / 0.07))    # CLIP's
    """
    if valid is None:
        valid = torch.ones(len(image_features), dtype=torch.bool, device=image_features.device)
    terms = PairTerms(sides=(0, 1), logit_scale=logit_scale, logit_bias=logit_bias, group=group)
    return contrastive_losses(settings, (image_features, text_features), [terms], valid)[0]


def duplicate_negatives(groups: Iterable[float]) -> int:
    """Return the number of negatives whose contents, and so groups, equal those of the row: false negatives.

    Both directions count, so two rows with the same text are two.
    """
    return sum(size * (size - 1) for size in Counter(groups).values())


def _gathered(
    features: Sequence[Tensor], valid: Tensor, pairs: Sequence[tuple[int, int, Tensor | None]]
) -> list[_Rows]:
    """The rows of each pair, of two sides and groups, gathered in one collective, where SigLIP's ring has many."""
    own = [normalised(side, valid) for side in features]
    groups = [group for *_, group in pairs if group is not None]
    all_valid, *everyone = gather_rows(valid, *own, *groups)
    all_groups = iter(everyone[len(own) :])
    rank, ranks = position()
    return [
        _Rows(
            image=own[first], text=own[second], valid=valid, group=group, all_image=everyone[first],
            all_text=everyone[second], all_valid=all_valid, all_group=None if group is None else next(all_groups),
            offset=rank * len(valid), ranks=ranks,
        )
        for first, second, group in pairs
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The normalised features of a pair, of this rank and of all ranks, and which of the rows are valid."""

    image: Tensor
    text: Tensor
    valid: Tensor
    group: Tensor | None
    all_image: Tensor
    all_text: Tensor
    all_valid: Tensor
    all_group: Tensor | None
    offset: int
    """Index of this rank's first row among those of all ranks."""
    ranks: int

    def info_nce(self, logit_scale: Tensor, *, local: bool, tile_rows: int | None) -> Tensor:
        """The symmetric cross-entropy of CLIP, the mean of both directions over all valid rows of all ranks."""
        rows, ranks = self, self.ranks
        if not local:
            rows = replace(
                self, image=self.all_image, text=self.all_text, valid=self.all_valid, group=self.all_group, offset=0
            )
            # Every rank has the whole loss, and the gather sums the gradients of a row over the ranks: no factor is
            # left.
            ranks = 1
        image_to_text = rows.cross_entropy(rows.image, rows.all_text, logit_scale, tile_rows)
        text_to_image = rows.cross_entropy(rows.text, rows.all_image, logit_scale, tile_rows)
        return (image_to_text + text_to_image) / 2 * ranks / self.count()

    def sigmoid(self, logit_scale: Tensor, logit_bias: Tensor | None, chunk_rows: int) -> Tensor:
        """The sum over all pairs of valid rows, ``chunk_rows`` texts at a time, divided by the number of rows."""
        assert logit_bias is not None
        summed = _in_parts(self.pairwise, len(self.all_text), chunk_rows, logit_scale, logit_bias)
        return summed * self.ranks / self.count()

    def divergence(self, taught: Taught, logit_scale: Tensor, tile_rows: int | None) -> Tensor:
        """KL(teacher || student) of the softmax over candidates, the mean of both directions and all known rows.

        Of the rank's own rows against all, as with ``local``, ``tile_rows`` of them at a time. Duplicates are not
        masked: the teacher sees them.
        """
        known = self.valid & taught.known
        own = [normalised(side, known) for side in (taught.image, taught.text)]
        # Without gradient, so in a collective of their own: only steps with a teacher have it.
        all_known, *everyone = gather_rows(known, *own)
        pairs = [
            (self.image, self.all_text, own[0], everyone[1]),
            (self.text, self.all_image, own[1], everyone[0]),
        ]  # fmt: skip

        def apart(rows: slice, logit_scale: Tensor) -> Tensor:
            total = self.image.new_zeros(())
            for queries, candidates, taught_queries, taught_candidates in pairs:
                # Not -inf: of a row without a candidate every log-probability is finite then, and its gradient 0.
                student, teacher = (
                    logits.masked_fill(~all_known, LEFT_OUT).log_softmax(dim=1)
                    for logits in (
                        logit_scale * queries[rows] @ candidates.T,
                        taught.logit_scale * taught_queries[rows] @ taught_candidates.T,
                    )
                )
                of_rows = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
                total = total + torch.where(known[rows], of_rows, torch.zeros_like(of_rows)).sum()
            return total

        return _in_parts(apart, len(self.image), tile_rows, logit_scale) / 2 * self.ranks / all_known.sum().clamp(min=1)

    def count(self) -> Tensor:
        """The number of valid rows of all ranks, at least 1: the loss of a batch without one is 0, not NaN."""
        return self.all_valid.sum().clamp(min=1)

    def targets(self) -> Tensor:
        """(b,) the column of each row's positive."""
        return torch.arange(len(self.image), device=self.image.device) + self.offset

    def excluded(self, rows: slice, columns: slice) -> Tensor:
        """(rows, columns) the pairs that are neither positives nor negatives."""
        targets = self.targets()[rows]
        # Padding is on the end of each rank's rows, hence amid those of all ranks: it cannot be cut off, only masked.
        excluded = ~self.all_valid[columns].expand(len(targets), -1)
        if self.group is not None and self.all_group is not None:
            is_positive = torch.arange(columns.start, columns.stop, device=targets.device) == targets[:, None]
            excluded = excluded | ((self.group[rows, None] == self.all_group[columns]) & ~is_positive)
        return excluded

    def cross_entropy(self, queries: Tensor, candidates: Tensor, logit_scale: Tensor, tile_rows: int | None) -> Tensor:
        """The sum over this rank's valid rows."""
        if tile_rows is not None:
            own = candidates[self.offset : self.offset + len(queries)]
            losses = tiled_logsumexp(queries, candidates, logit_scale, self.excluded, tile_rows)
            losses = losses - logit_scale * (queries * own).sum(dim=1)
            return torch.where(self.valid, losses, torch.zeros_like(losses)).sum()
        logits = logit_scale * queries @ candidates.T
        logits = logits.masked_fill(self.excluded(slice(0, len(queries)), slice(0, len(candidates))), float("-inf"))
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
        counts = self.valid[:, None] & ~self.excluded(slice(0, len(self.image)), slice(start, stop))
        return torch.where(counts, losses, torch.zeros_like(losses)).sum()


def _in_parts(loss: Callable[..., Tensor], rows: int, part_rows: int | None, *scalars: Tensor) -> Tensor:
    """The sum of ``loss(slice, *scalars)`` over parts of the rows, whose logits are computed again for the gradient."""
    size = part_rows or rows
    parts = [slice(start, start + size) for start in range(0, rows, size)]
    if len(parts) == 1:
        # All logits fit: recomputing them would save nothing.
        return loss(parts[0], *scalars)
    # Logits draw nothing at random, so no generator's state has to be kept for the second time.
    sums = [checkpoint(loss, part, *scalars, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum()


def normalised(features: Tensor, valid: Tensor) -> Tensor:
    """Features of unit length, in at least float32; invalid rows become 0, since they may hold NaN."""
    features = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
    return F.normalize(features.masked_fill(~valid[:, None], 0), dim=-1)
