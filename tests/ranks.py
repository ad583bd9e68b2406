"""Runs a function on several ranks over gloo, for tests of what ranks do together."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

_TIMEOUT_S = 60
# A rank is a copy of a process that has imported what the tests do, which takes seconds, and has used none of it: after
# a backward pass in this process a plain fork would have no autograd threads.
_IMPORTED = ["torch.distributed", "vidal.train.run", "open_clip", "timm.optim", "pytest"]
RANKS = multiprocessing.get_context("forkserver")
RANKS.set_forkserver_preload(_IMPORTED)


def on_ranks(ranks: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(rank, ranks, *arguments)`` gave on each rank; one rank is this process, without a group."""
    if ranks == 1:
        return [work(0, 1, *arguments)]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.start_processes(
            _rank, (ranks, work, arguments, folder), nprocs=ranks, join=False, start_method="forkserver"
        )
        assert context is not None
        try:
            deadline = time.monotonic() + _TIMEOUT_S
            # It comes back at the end of each rank, not only of all.
            while not context.join(timeout=1):
                assert time.monotonic() < deadline, "ranks do not come to an end"
        finally:
            for process in context.processes:
                process.kill()
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _rank(rank: int, ranks: int, work: Callable[..., Any], arguments: tuple[Any, ...], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo"})
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    torch.save(work(rank, ranks, *arguments), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
