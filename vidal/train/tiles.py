"""`tiled_logsumexp`: the denominators of a contrastive loss, of which the logits are never there at once.

A tile of the logits is made, used and forgotten, in the forward pass and once more in the backward pass (Cheng et al.,
2024, Inf-CL): memory grows with the features, not with the square of the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Of a pair that is left out. Scales are 100 at most, so that beside any other logit its probability is exactly 0; not
# -inf, as a row of which all pairs are left out would be NaN.
LEFT_OUT = -1e4

Excluded = Callable[[slice, slice], Tensor]
"""Returns, of the tile of some rows and columns, which pairs are left out: (rows, columns) bool."""


def tiled_logsumexp(queries: Tensor, candidates: Tensor, scale: Tensor, excluded: Excluded, tile_rows: int) -> Tensor:
    """Return log(sum(exp(scale * query @ candidate))) over the candidates (n, d) of each query (b, d), as (b,).

    Differentiable with respect to the three tensors; ``tile_rows`` are the rows and columns of a tile.
    """
    result: Tensor = _LogSumExp.apply(queries, candidates, scale, excluded, tile_rows)
    return result


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, scale: Tensor, excluded: Excluded, tile_rows: int
    ) -> Tensor:
        total = queries.new_full((len(queries),), float("-inf"))
        for rows, columns in _tiles(len(queries), len(candidates), tile_rows):
            logits = _cosines(queries, candidates, rows, columns).mul_(scale)
            of_tile = logits.masked_fill_(excluded(rows, columns), LEFT_OUT).logsumexp(dim=1)
            total[rows] = torch.logaddexp(total[rows], of_tile)
        ctx.save_for_backward(queries, candidates, scale, total)
        ctx.excluded, ctx.tile_rows = excluded, tile_rows
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, candidates, scale, total = ctx.saved_tensors
        (gradient,) = gradients
        of_queries, of_candidates, of_scale = (torch.zeros_like(x) for x in (queries, candidates, scale))
        for rows, columns in _tiles(len(queries), len(candidates), ctx.tile_rows):
            cosines = _cosines(queries, candidates, rows, columns)
            logits = (cosines * scale).masked_fill_(ctx.excluded(rows, columns), LEFT_OUT)
            # The gradient with respect to the logits of the tile.
            weights = logits.sub_(total[rows, None]).exp_().mul_(gradient[rows, None])
            of_queries[rows].addmm_(weights, candidates[columns])
            of_candidates[columns].addmm_(weights.T, queries[rows])
            of_scale += weights.mul_(cosines).sum()
        return of_queries.mul_(scale), of_candidates.mul_(scale), of_scale, None, None


def _cosines(queries: Tensor, candidates: Tensor, rows: slice, columns: slice) -> Tensor:
    return queries[rows] @ candidates[columns].T


def _tiles(rows: int, columns: int, size: int) -> Iterator[tuple[slice, slice]]:
    spans = ([slice(start, min(start + size, n)) for start in range(0, n, size)] for n in (rows, columns))
    return itertools.product(*spans)
