"""The process group of a training run, and the collectives that training needs.

A process started by ``torchrun`` is one of several ranks. Any other process is the only rank, for which every
collective here returns its input.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vidal.errors import MachineError, one_line

# NCCL's default in torch; gloo's would be half an hour.
_TIMEOUT_S = 600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The position of this process among the ranks of the run, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    @property
    def is_gpu(self) -> bool:
        """Whether this rank computes on a GPU."""
        return self.device.type == "cuda"


@contextmanager
def world(device: str = "auto", timeout_s: float = _TIMEOUT_S) -> Iterator[World]:
    """Join the process group for the duration of the block.

    Raises `MachineError` if the ranks cannot connect, or a peer is lost or silent for ``timeout_s`` seconds. On GPUs
    nothing waits for a silent peer's collective: NCCL's watchdog ends the process instead.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    own_device = _device(device, local_rank)
    if size == 1:
        # Without a process group: every collective of this module then returns its input.
        yield World(device=own_device)
        return
    try:
        backend = "nccl" if own_device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout_s))
    except (ValueError, RuntimeError) as error:
        raise MachineError(
            f"the {size} ranks could not connect: {one_line(error, 200)}; start all of them with torchrun"
        ) from error
    rank = dist.get_rank()
    try:
        yield World(rank=rank, size=size, device=own_device)
    except RuntimeError as error:
        # The store and NCCL raise a DistError for a lost peer, gloo a plain RuntimeError.
        gloo = ("connection closed by peer", "connection reset by peer", "gloo")
        if not isinstance(error, dist.DistError) and not any(words in str(error).lower() for words in gloo):
            raise
        why = one_line(error, 200)
        raise MachineError(f"rank {rank} of {size} lost its peers: {why}; continue with --resume") from error
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    on_gpu = torch.cuda.is_available() if name == "auto" else name.startswith("cuda")
    if not on_gpu:
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise MachineError(f"local rank {local_rank} needs GPU {local_rank}, but this machine has {gpus}")
    device = torch.device("cuda", local_rank)
    # NCCL and new tensors take the current device: without this all ranks would share the first GPU.
    torch.cuda.set_device(device)
    return device


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def position() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


class _GatherRows(torch.autograd.Function):
    """All-gather of rows in rank order, whose backward pass sums a row's gradient over all ranks."""

    @staticmethod
    def forward(ctx: Any, *rows: Tensor) -> tuple[Tensor, ...]:
        # An output that nothing uses has no gradient then, on any rank, and none is summed.
        ctx.set_materialize_grads(False)
        ranks = dist.get_world_size()
        # As bytes: the tensors differ in data type.
        own = [part.flatten().view(torch.uint8) for part in rows]
        block = torch.cat(own)
        blocks = block.new_empty(ranks * len(block))
        dist.all_gather_single(blocks, block)
        parts = torch.split(blocks.view(ranks, -1), [len(part) for part in own], dim=1)
        gathered = tuple(
            part.contiguous().view(row.dtype).view(-1, *row.shape[1:]) for part, row in zip(parts, rows, strict=True)
        )
        needs = zip(gathered, ctx.needs_input_grad, strict=True)
        ctx.mark_non_differentiable(*(part for part, has_gradient in needs if not has_gradient))
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ranks = dist.get_world_size()
        given = [gradient.reshape(ranks, -1) for gradient in gradients if gradient is not None]
        of_ranks = torch.cat(given, dim=1)
        summed = of_ranks.new_empty(of_ranks.shape[1])
        dist.reduce_scatter_single(summed, of_ranks.view(-1))
        parts = iter(torch.split(summed, [gradient.shape[1] for gradient in given]))
        return tuple(None if g is None else next(parts).view(-1, *g.shape[1:]) for g in gradients)


def gather_rows(*rows: Tensor) -> tuple[Tensor, ...]:
    """Gather tensors (b, …) of every rank, b the same on each, as (ranks * b, …), in one collective.

    The result is differentiable with respect to the tensors that require a gradient; the backward pass is one
    collective, too.
    """
    if not is_distributed():
        return rows
    gathered: tuple[Tensor, ...] = _GatherRows.apply(*rows)
    return gathered


def total(value: Tensor) -> Tensor:
    """Return the sum over ranks, without gradient."""
    summed = value.detach().clone()
    if is_distributed():
        dist.all_reduce(summed)
    return summed


def from_main(value: Any) -> Any:
    """Return rank 0's value, a picklable object, on every rank."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def from_all(values: list[T]) -> list[T]:
    """Return the values of all ranks, picklable objects, in rank order."""
    if not is_distributed():
        return values
    lists: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lists, values)
    return [value for of_rank in lists for value in of_rank]


def barrier() -> None:
    """Wait until every rank has reached this point."""
    if is_distributed():
        dist.barrier()
