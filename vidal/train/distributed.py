"""Ranks of a run: who this process is, and the few collectives that training needs.

Started by ``torchrun`` a process is one rank of many; started otherwise it is the only one, and every collective here
is what it is for one.
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
from torch import Tensor, nn

from vidal.errors import MachineError

_TIMEOUT_S = 600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among the run's."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """The rank that writes files and speaks."""
        return self.rank == 0


@contextmanager
def world(device: str = "auto", timeout_s: float = _TIMEOUT_S) -> Iterator[World]:
    """The world of this process, joined for the length of the block.

    Raises `MachineError` where the ranks do not come together, or one is lost or silent for ``timeout_s``. On GPUs the
    silence ends differently: NCCL's watchdog ends the process, since nothing waits for a collective that could raise.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = _place(device, local_rank)
    if size == 1:
        yield World(device=place)
        return
    rank = _join(place, size, timeout_s)
    try:
        yield World(rank=rank, size=size, local_rank=local_rank, device=place)
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise MachineError(f"rank {rank} of {size} lost its peers: {_line(error)}; continue with --resume") from error
    finally:
        dist.destroy_process_group()


def _place(device: str, local_rank: int) -> torch.device:
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    if not on_gpu:
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise MachineError(f"local rank {local_rank} wants GPU {local_rank}, and this machine has {gpus}")
    place = torch.device("cuda", local_rank)
    torch.cuda.set_device(place)
    return place


def _join(place: torch.device, size: int, timeout_s: float) -> int:
    """Form the process group; gives this process's rank in it."""
    backend = "nccl" if place.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout_s))
    except (ValueError, RuntimeError) as error:
        raise MachineError(
            f"the {size} ranks did not come together: {_line(error)}; start them all, with torchrun"
        ) from error
    return dist.get_rank()


def _is_lost_peer(error: RuntimeError) -> bool:
    """Gloo says it as a plain RuntimeError, the store and NCCL as errors of their own."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        words in text for words in ("connection closed by peer", "connection reset by peer", "gloo")
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks, in rank order; the gradient of a row is summed over the ranks that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: the sum is made in place, and autograd may hand the same tensor to others.
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: Tensor, *, with_gradient: bool) -> Tensor:
    """(b, …) of every rank to (world * b, …), as many rows on each; differentiable where asked."""
    if not is_distributed():
        return rows
    if with_gradient and rows.requires_grad:
        gathered: Tensor = _GatherRows.apply(rows)
        return gathered
    return _gathered(rows.detach())


def _gathered(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def total(value: Tensor) -> Tensor:
    """The sum over ranks, without gradient."""
    summed = value.detach().clone()
    if is_distributed():
        dist.all_reduce(summed)
    return summed


def mean_gradients(parameters: Iterator[nn.Parameter]) -> None:
    """Average gradients over ranks, for parameters that no wrapper takes care of."""
    if not is_distributed():
        return
    with_gradient = [p for p in parameters if p.grad is not None]
    if not with_gradient:
        return
    flat = torch.cat([p.grad.flatten() for p in with_gradient if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [p.numel() for p in with_gradient])
    for p, part in zip(with_gradient, parts, strict=True):
        p.grad = part.view_as(p)


def from_main(value: Any) -> Any:
    """The main rank's value of a plain object, on every rank."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(values: list[T]) -> list[T]:
    """The plain objects of every rank, in rank order."""
    if not is_distributed():
        return values
    boxes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(boxes, values)
    return [value for box in boxes for value in box]


def barrier() -> None:
    if is_distributed():
        dist.barrier()
