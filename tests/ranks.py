"""Runs a function or a command on several ranks over gloo, for tests of what ranks do together."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import tests.forks  # noqa: F401  (a rank is such a copy)
from tests.processes import command

_TIMEOUT_S = 60


def on_ranks(ranks: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(rank, ranks, *arguments)`` gave on each rank; one rank is this process, without a group."""
    if ranks == 1:
        return [work(0, 1, *arguments)]
    return _started(ranks, _member, work, arguments)


def command_on_ranks(ranks: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `tests.processes.command` gives on ranks in the environment of torchrun's: the words of all, and the first code
    that is not 0.

    It takes 13 s of imports less than torchrun, whose launcher and ranks are processes of their own.
    """
    # As torchrun's launcher does, the parent holds the store at which the ranks meet.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    said = _started(ranks, _commanded, store.port, [str(argument) for argument in arguments])
    codes, outputs, errors = zip(*said, strict=True)
    return subprocess.CompletedProcess(arguments, max(codes, key=bool), "".join(outputs), "".join(errors))


def _started(ranks: int, kind: Callable[..., Any], *arguments: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.start_processes(
            _rank, (ranks, kind, arguments, folder), nprocs=ranks, join=False, start_method="forkserver"
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


def _rank(rank: int, ranks: int, kind: Callable[..., Any], arguments: tuple[Any, ...], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo"})
    kind(rank, ranks, Path(folder), *arguments)


def _member(rank: int, ranks: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    torch.save(work(rank, ranks, *arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _commanded(rank: int, ranks: int, folder: Path, port: int, arguments: list[str]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}  # fmt: skip
    done = command(*arguments, env={name: str(value) for name, value in place.items()})
    torch.save((done.returncode, done.stdout, done.stderr), folder / f"{rank}.pt")
