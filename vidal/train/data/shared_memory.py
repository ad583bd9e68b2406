"""Room in shared memory, through which loading processes hand their tensors over.

A container has 64 MB of it by default. Where it runs out in the middle, a process is killed by the kernel or cannot
hand over what it made, so what may be under way is compared with what is free before any process starts.
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
    """Bytes that can still be taken in a file system; None where it does not exist (macOS has no ``/dev/shm``)."""
    try:
        found = os.statvfs(place)
    except FileNotFoundError:
        return None
    return found.f_bavail * found.f_frsize


def needed_bytes(workers: int, prefetch: int, chunk_bytes: int) -> int:
    """What all ranks on this machine may hold at once: the chunks under way, and the one that is being copied."""
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return local_ranks * (workers * prefetch + 1) * chunk_bytes


def check_room(workers: int, prefetch: int, chunk_bytes: int, place: Path = PLACE) -> None:
    """Raises `MachineError`, which names what fits, where shared memory is too small for the loading processes."""
    needed, free = needed_bytes(workers, prefetch, chunk_bytes), free_bytes(place)
    if free is None or needed <= free:
        return
    fits = [n for n in range(1, workers) if needed_bytes(n, prefetch, chunk_bytes) <= free]
    hint = f"data.workers to {max(fits)}" if fits else "data.workers or data.prefetch, or set data.workers to 0"
    raise MachineError(
        f"data.workers {workers} with data.prefetch {prefetch} may hold {needed / _MB:.0f} MB of shared memory, and "
        f"{place} has {free / _MB:.0f} MB free; lower {hint}, or start the container with a larger --shm-size"
    )


def share(tensors: Iterable[Tensor]) -> None:
    """Move tensors to shared memory in the process that made them, where a lack of room is an error that is seen.

    Left to the queue between processes it would happen in a thread of its own, and the tensors would never arrive.
    """
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise MachineError(
            f"a loading process finds no shared memory ({why}); lower data.workers or data.prefetch, or start the "
            "container with a larger --shm-size"
        ) from error
