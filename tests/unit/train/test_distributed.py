"""Ranks find each other, agree, and say in one line that another is gone."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.forks import FORKS
from tests.ranks import on_ranks
from vidal.errors import MachineError, OutputError
from vidal.train.checkpoint import Checkpoints
from vidal.train.distributed import World, barrier, from_main, gather_rows, total, world
from vidal.train.run import newest_of_all_ranks
from vidal.train.totals import StepTotals

_PATIENCE_S = 30


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with world("cpu") as here:
        assert here == World(rank=0, size=1, device=torch.device("cpu"))
        assert here.is_main and not dist.is_initialized()
        rows = torch.ones(2, 3, requires_grad=True)
        assert gather_rows(rows)[0] is rows
        assert total(torch.tensor(3.0)).item() == 3.0
        assert from_main({"a": 1}) == {"a": 1}
        barrier()


def weighted(rank: int, ranks: int) -> dict[str, Tensor]:
    """Each rank weighs the gathered rows differently, so that a gradient shows who used the row; nobody uses others."""
    own = torch.full((2, 1), float(rank + 1), dtype=torch.float64, requires_grad=True)
    other = torch.full((2, 3), -1.0 - rank, dtype=torch.float32, requires_grad=True)
    is_odd, number = torch.tensor([bool(rank % 2)] * 2), torch.tensor([2**48 + rank] * 2)
    everyone, others, odd, numbers, frozen = gather_rows(own, other, is_odd, number, own.detach())
    (everyone * (rank + 1)).sum().backward()
    assert own.grad is not None and other.grad is None and not frozen.requires_grad
    return {"rows": everyone.detach(), "grad": own.grad, "others": others.detach(), "odd": odd, "numbers": numbers,
            "frozen": frozen}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_gathered_rows_are_in_rank_order_and_take_the_gradient_of_all_who_used_them(ranks: int) -> None:
    for given in on_ranks(ranks, weighted):
        assert given["rows"].flatten().tolist() == [float(r + 1) for r in range(ranks) for _ in range(2)]
        assert (given["grad"] == sum(range(1, ranks + 1))).all()
        assert torch.equal(given["frozen"], given["rows"])
        assert given["others"].tolist() == [[-1.0 - r] * 3 for r in range(ranks) for _ in range(2)]
        assert given["odd"].tolist() == [bool(r % 2) for r in range(ranks) for _ in range(2)]
        assert given["numbers"].tolist() == [2**48 + r for r in range(ranks) for _ in range(2)]


def shared_gradient(rank: int, ranks: int) -> dict[str, Tensor]:
    other = torch.ones(ranks, 1, requires_grad=True)
    # Made before the gathering, its backward pass comes after it, with the very tensor that the gathering was given.
    doubled = other * 2
    (everyone,) = gather_rows(torch.ones(1, 1, requires_grad=True))
    ((everyone + doubled) * torch.full((ranks, 1), 3.0)).sum().backward()
    assert other.grad is not None
    return {"other": other.grad}


def test_summing_a_gradient_leaves_that_of_others_alone() -> None:
    for given in on_ranks(2, shared_gradient):
        assert (given["other"] == 6).all()


def agreed(rank: int, ranks: int) -> dict[str, Any]:
    parameters = [nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))]
    parameters[0].grad, parameters[1].grad = torch.tensor(float(rank)), torch.tensor(2.0 * rank)
    totals = StepTotals(
        torch.tensor([rank, -2.0 * rank]), parameters, group=torch.tensor([rank, 5]), valid=torch.tensor([True, rank > 1]),
        broken=torch.tensor([False, rank == 1]), interrupted=rank == 1, here=World(rank=rank, size=ranks),
    )  # fmt: skip
    told = totals.read(torch.tensor(float(-rank)))
    barrier()
    return {
        "means": [p.grad for p in parameters], "told": dataclasses.asdict(told), "said": from_main(f"rank {rank}"), "sum": total(torch.tensor(rank + 1)),
    }  # fmt: skip


def test_ranks_agree() -> None:
    for rank, given in enumerate(on_ranks(4, agreed)):
        first, second, third = given["means"]
        assert (first.item(), second.item(), third) == (1.5, 3.0, None)
        # Rows 0 to 3 and two of group 5; only rank 0 may interrupt.
        assert given["told"] == {
            "losses": [1.5, -3.0], "broken": 1, "was_interrupted": False, "samples": 6, "duplicate_negatives": 2,
            "own": [float(-rank)],
        }  # fmt: skip
        assert (given["said"], given["sum"].item()) == ("rank 0", 10)


def test_a_rank_without_a_gpu_of_its_own_is_rejected_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MachineError, match="local rank 3 needs GPU 3, but this machine has 2"), world("cuda"):
        pass


def test_ranks_that_were_not_started_together_are_rejected_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MachineError, match=r"the 2 ranks could not connect: .*torchrun") as caught, world("cpu"):
        pass
    assert "\n" not in str(caught.value)


def meet() -> None:
    gather_rows(torch.ones(1, 1))


def dies(rank: int, culprit: int) -> None:
    meet()
    if rank == culprit:
        os._exit(9)
    meet()


def hangs(rank: int, culprit: int) -> None:
    meet()
    if rank == culprit:
        time.sleep(_PATIENCE_S)
    meet()


def gives_up(rank: int, culprit: int) -> None:
    meet()
    if rank == culprit:
        raise OutputError("the culprit's own line")
    meet()


def dies_before_the_backward_pass(rank: int, culprit: int) -> None:
    (rows,) = gather_rows(torch.ones(1, 1, requires_grad=True))
    if rank == culprit:
        os._exit(9)
    rows.sum().backward()


def stumbles(rank: int, culprit: int) -> None:
    meet()
    raise RuntimeError("shapes (2, 3) and (4, 5) do not fit; the operation timed out of luck")


def run(
    rank: int, port: int, work: Callable[[int, int], None], culprit: int, said: Queue[tuple[int, str, str]]
) -> None:
    torch.set_num_threads(1)
    os.environ.update({"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    try:
        with world("cpu", timeout_s=3):
            work(rank, culprit)
        said.put((rank, "", ""))
    except Exception as error:
        said.put((rank, type(error).__name__, str(error)))


def outcome(
    work: Callable[[int, int], None], culprit: int, ranks: tuple[int, ...] = (0, 1)
) -> dict[int, tuple[str, str]]:
    """What each rank that could still speak said, and that none needed more than its timeout."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said: Queue[tuple[int, str, str]] = FORKS.Queue()
    processes = [FORKS.Process(target=run, args=(rank, port, work, culprit, said)) for rank in ranks]
    for process in processes:
        process.start()
    try:
        silent = {culprit} if work in (dies, hangs, dies_before_the_backward_pass) else set()
        lines = [said.get(timeout=_PATIENCE_S / 2) for _ in set(ranks) - silent]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return {rank: (kind, text) for rank, kind, text in lines}


@pytest.mark.parametrize("work", [dies, hangs, gives_up, dies_before_the_backward_pass])
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_lost_rank_ends_the_others_with_a_line(work: Callable[[int, int], None], culprit: int) -> None:
    told = outcome(work, culprit)
    kind, line = told[1 - culprit]
    assert kind == "MachineError", line
    assert line.startswith(f"rank {1 - culprit} of 2 lost its peers: ") and line.endswith("continue with --resume")
    assert "\n" not in line
    if work is gives_up:
        assert told[culprit] == ("OutputError", "the culprit's own line")


def test_a_rank_that_never_comes_ends_the_wait_with_a_line() -> None:
    kind, line = outcome(meet_once, culprit=1, ranks=(0,))[0]
    assert kind == "MachineError" and line.startswith("the 2 ranks could not connect: ")


def meet_once(rank: int, culprit: int) -> None:
    meet()


def test_an_error_in_the_work_is_not_blamed_on_a_peer() -> None:
    assert {kind for kind, _ in outcome(stumbles, culprit=-1).values()} == {"RuntimeError"}


def resumed_from(rank: int, ranks: int, folders: list[str]) -> dict[str, Any]:
    try:
        found = newest_of_all_ranks(Checkpoints(folders[rank]))
    except OutputError as error:
        return {"error": str(error)}
    return {"step": found.step if found is not None else None}


SEEN = {"the second has more": ((10,), (10, 20), 10), "none": ((), (), None)}


@pytest.mark.parametrize(("first", "second", "step"), SEEN.values(), ids=SEEN)
def test_ranks_resume_from_the_checkpoint_that_the_first_sees(
    first: tuple[int, ...], second: tuple[int, ...], step: int | None, tmp_path: Path
) -> None:
    assert on_ranks(2, resumed_from, with_checkpoints(tmp_path, first, second)) == [{"step": step}] * 2


def test_a_rank_that_does_not_see_it_is_named(tmp_path: Path) -> None:
    for rank, told in enumerate(on_ranks(2, resumed_from, with_checkpoints(tmp_path, (10, 20), (10,)))):
        assert f"{tmp_path}/{rank}/checkpoints: rank 1 does not see the checkpoint of 20 steps" in told["error"]


def with_checkpoints(folder: Path, *steps_of_ranks: tuple[int, ...]) -> list[str]:
    """A folder for each rank, as on machines that share no disk."""
    for rank, steps in enumerate(steps_of_ranks):
        for step in steps:
            Checkpoints(folder / str(rank)).save(step, {"w": torch.ones(1)}, {"state": torch.ones(1)})
    return [str(folder / str(rank)) for rank in range(len(steps_of_ranks))]
