"""Checks of the shared memory through which worker processes pass tensors to the main process.

A container has 64 MB of it by default. When it is exhausted, the kernel kills a worker or its tensors never arrive, so
the maximum that a run may hold is compared with the free space before any worker starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from vidal.errors import MachineError

PLACE = Path("/dev/shm")
_MB = 1_000_000


def free_bytes(place: Path) -> int | None:
    """Return the free bytes of a file system; None if it does not exist (macOS has no ``/dev/shm``)."""
    try:
        stats = os.statvfs(place)
    except FileNotFoundError:
        return None
    # Not f_bfree, which counts blocks that are reserved for root.
    return stats.f_bavail * stats.f_frsize


def needed_bytes(workers: int, prefetch: int, chunk_bytes: int) -> int:
    """Return the maximum bytes that all ranks of this machine hold: prefetched chunks, and the one being copied."""
    # The ranks of one machine share it; torchrun says how many there are.
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return local_ranks * (workers * prefetch + 1) * chunk_bytes


def check_room(workers: int, prefetch: int, chunk_bytes: int, place: Path = PLACE) -> None:
    """Raise `MachineError`, naming a number of workers that fits, if shared memory is too small for the workers."""
    needed, free = needed_bytes(workers, prefetch, chunk_bytes), free_bytes(place)
    if free is None or needed <= free:
        return
    fits = [n for n in range(1, workers) if needed_bytes(n, prefetch, chunk_bytes) <= free]
    hint = f"data.workers to {max(fits)}" if fits else "data.workers or data.prefetch, or set data.workers to 0"
    raise MachineError(
        f"data.workers {workers} with data.prefetch {prefetch} may take {needed / _MB:.0f} MB of shared memory, and "
        f"{place} has {free / _MB:.0f} MB free; lower {hint}, or start the container with a larger --shm-size"
    )


def share(tensors: Iterable[Tensor]) -> None:
    """Move tensors to shared memory; raises `MachineError` if it is full.

    Called by the worker itself: the queue between the processes would do it in a background thread, where a failure
    goes unnoticed and the tensors never arrive.
    """
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MachineError(
            f"a worker process ran out of shared memory ({reason}); lower data.workers or data.prefetch, or start the "
            "container with a larger --shm-size"
        ) from error
