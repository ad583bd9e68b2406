"""`StepTotals`: the numbers of a step, summed over ranks in one collective and read by the host in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidal.train.distributed import World, total
from vidal.train.loss import duplicate_negatives


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The numbers of a step over all ranks, on the host."""

    losses: list[float]
    """The mean over ranks of each loss."""
    was_interrupted: bool
    """Whether rank 0 was when it summed."""
    broken: int
    samples: int
    """Valid rows."""
    duplicate_negatives: int
    own: list[float]
    """Values of this rank alone, which came with the others."""


class StepTotals:
    """Sums numbers of a step over ranks as one float64 vector: each that reaches the host alone makes it wait."""

    def __init__(
        self, losses: Tensor, parameters: Sequence[nn.Parameter], *, group: Tensor, valid: Tensor, broken: Tensor,
        interrupted: bool, here: World,
    ) -> None:  # fmt: skip
        """Sum, and average the gradients of scalars that no DDP or FSDP wrapper synchronises.

        ``losses`` (p,) and ``group``, ``valid`` and ``broken`` (b,) are this rank's; groups are from 0 to 2**53, exact
        in float64.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        # Rank by rank, so that their sum is a gather. 0 is a row that does not count.
        rows = torch.zeros(here.size, len(group), dtype=torch.float64, device=here.device)
        rows[here.rank] = torch.where(valid, group + 1, 0)
        # Filled on the device: a tensor of the host's number would be a copy for which the host waits.
        flag = torch.full((), float(interrupted and here.is_main), dtype=torch.float64, device=here.device)
        scalars = torch.stack([*(x.detach().double() for x in (*losses, *gradients)), flag, broken.sum().double()])
        summed = total(torch.cat([scalars, rows.flatten()]))
        self._losses = len(losses)
        means = summed[: self._losses + len(gradients)] / here.size
        self._summed = torch.cat([means[: self._losses], summed[len(means) :]])
        for gradient, mean in zip(gradients, means[self._losses :], strict=True):
            gradient.copy_(mean)

    def read(self, *own: Tensor) -> Totals:
        """Return the totals and the scalars ``own`` of this rank; the one time that the host waits for the device."""
        scalars = torch.stack([value.detach().to(self._summed) for value in own])
        values = torch.cat([scalars, self._summed]).tolist()
        told = values[len(own) :]
        losses, (was_interrupted, broken, *rows) = told[: self._losses], told[self._losses :]
        groups = [row for row in rows if row]
        return Totals(
            losses=losses, was_interrupted=bool(was_interrupted), broken=int(broken), samples=len(groups),
            duplicate_negatives=duplicate_negatives(groups), own=values[: len(own)],
        )  # fmt: skip
