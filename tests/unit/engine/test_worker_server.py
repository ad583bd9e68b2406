"""Workers are forked from a process of one thread, have the environment of their run, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from tests.processes import still_alive
from tests.runs import rows, run, write_recipe
from vidal.engine import local
from vidal.engine.local import PoolEngine
from vidal.engine.worker_server import WorkerServer
from vidal.errors import MachineError


@pytest.fixture
def server() -> Iterator[WorkerServer]:
    server = WorkerServer(os.environ)
    yield server
    server.close()


def forked(server: WorkerServer) -> tuple[psutil.Process, Connection]:
    """A worker that waits for its job, and the driver's end of its pipe."""
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        return psutil.Process(server.fork(theirs, os.environ)), ours


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_server_has_one_thread_and_the_death_of_a_worker_ends_its_pipe_alone(server: WorkerServer) -> None:
    before = descriptors()
    (first, its_pipe), (second, other_pipe) = forked(server), forked(server)
    assert psutil.Process(server.pid).num_threads() == 1
    first.send_signal(signal.SIGSEGV)
    assert its_pipe.poll(20) and not other_pipe.poll(0)
    assert (server.end(first.pid), server.end(second.pid)) == (-signal.SIGSEGV, -signal.SIGKILL)
    assert not first.is_running() and not second.is_running()
    its_pipe.close()
    other_pipe.close()
    assert descriptors() == before


def test_workers_die_with_their_server(server: WorkerServer) -> None:
    worker, pipe = forked(server)
    with pipe:
        os.kill(server.pid, signal.SIGKILL)
        assert still_alive([worker]) == []
        assert server.end(worker.pid) == -signal.SIGKILL
        with pytest.raises(MachineError, match="no worker can be started; is memory short"):
            forked(server)
    assert not server.is_running()


def test_a_second_run_of_an_engine_has_the_environment_of_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, [{"tests.engine_toys:Sight": {"resources": {"gpus": 1}}}], 2)
    engine = PoolEngine(1)
    for visible, seen in [("0,1", "0"), ("3,4", "3")]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        run(recipe, tmp_path / seen, engine, have_gpu=True)
        assert {row["detail"] for row in rows(tmp_path / seen).values()} == {seen}
    engine.close()


@pytest.mark.parametrize("unread", [0, 1], ids=["with nothing in it", "with a note that it has not read"])
def test_a_worker_whose_driver_closed_its_pipe_ends_without_a_word(
    unread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is this process's here, and not the worker's.
    monkeypatch.setattr(local.multiprocessing, "set_start_method", lambda *_, **__: None)
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        for _ in range(unread):
            theirs.send(("done", None))
        ours.close()
        local.serve(theirs)
