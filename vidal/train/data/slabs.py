"""Slabs: blocks of memory that worker processes fill with batches, and that are copied to the device in one piece.

They are anonymous memory that a forked process shares with its parent, so nothing lies in ``/dev/shm``, of which a
container has 64 MB, and no batch is assembled: a worker writes each row where the copy to the device reads it.
"""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vidal.errors import MachineError, VidalWarning

# A tensor of any data type, and a vector load of a GPU, may begin at a multiple of it.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor in a slab."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


class Layout:
    """The places of a batch's tensors in a slab."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = dict(fields)
        self._starts: dict[str, int] = {}
        end = 0
        for name, field in fields.items():
            self._starts[name] = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = self._starts[name] + field.size
        self.size = end
        """Size in bytes."""

    def views(self, slab: Tensor) -> dict[str, Tensor]:
        """Return the tensors that share the memory of a slab (n,) uint8, n at least `size`."""
        return {
            name: slab[start : start + self._fields[name].size]
            .view(self._fields[name].dtype)
            .view(self._fields[name].shape)
            for name, start in self._starts.items()
        }


def allocate(count: int, size: int) -> list[Tensor]:
    """Return ``count`` slabs of ``size`` bytes, shared with the processes that are forked from now on.

    Raises `MachineError` if there is not enough memory.
    """
    try:
        return [torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8) for _ in range(count)]
    except OSError as error:
        raise MachineError(
            f"{count} batches of {size / 1e6:.0f} MB do not fit into memory ({error.strerror}); lower batch_size"
        ) from error


@contextmanager
def pinned(slabs: Sequence[Tensor]) -> Iterator[None]:
    """Pin slabs for the duration of the block: a copy from pinned memory to a GPU runs beside its computations.

    Where that fails, copies are correct but slower, and a warning says so.
    """
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    done = []
    try:
        for slab in slabs:
            if int(runtime.cudaHostRegister(slab.data_ptr(), slab.nbytes, 0)):
                warnings.warn("batches cannot be pinned, so copies to the GPU are slower", VidalWarning, stacklevel=2)
                break
            done.append(slab)
        yield
    finally:
        torch.cuda.synchronize()
        for slab in done:
            runtime.cudaHostUnregister(slab.data_ptr())


class Copy:
    """A copy of the first ``size`` bytes of a slab, on its way to the device."""

    def __init__(self, slab: Tensor, size: int, device: torch.device, stream: torch.cuda.Stream | None) -> None:
        """On a GPU, the copy runs in ``stream``; elsewhere it is complete at once."""
        self._done: torch.cuda.Event | None = None
        if stream is None:
            self._copy = slab[:size].to(device, copy=True)
            return
        with torch.cuda.stream(stream):
            self._copy = slab[:size].to(device, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(stream)

    def wait(self) -> None:
        """Return when the slab may be written again."""
        if self._done is not None:
            self._done.synchronize()

    def result(self) -> Tensor:
        """Return the copied bytes; the current stream of the GPU waits for them, the CPU does not."""
        if self._done is not None:
            current = torch.cuda.current_stream(self._copy.device)
            current.wait_event(self._done)
            # Its memory belongs to the copying stream, which must not reuse it before the current one is through.
            self._copy.record_stream(current)
        return self._copy
