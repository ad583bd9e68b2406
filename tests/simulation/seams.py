"""What the real code takes from its host, given by a world instead: clock, threads of the lock, process ids, the store."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil
import pyarrow as pa

from tests.simulation.scheduler import Task, World
from tests.simulation.store import SimulatedS3, Store
from vidal.dataset import dataset, lock, manifest
from vidal.dataset.dataset import Dataset


class _Event:
    """`threading.Event` on the virtual clock."""

    def __init__(self, world: World) -> None:
        self._world, self._is_set, self._waiting = world, False, list[Task]()

    def set(self) -> None:
        self._is_set = True
        for task in self._waiting:
            self._world.wake(task, 0.0)
        self._waiting.clear()

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            task = self._world.me()
            self._waiting.append(task)
            self._world.wake(task, timeout)
            task.wait()
            # Here again after the time, it must not be woken from what it waits for next.
            if task in self._waiting:
                self._waiting.remove(task)
        return self._is_set


class _Thread:
    """`threading.Thread` of a simulated process, which dies with it."""

    def __init__(self, world: World, target: Callable[[], object], daemon: bool) -> None:
        assert daemon
        self._world, self._target, self._task = world, target, None

    def start(self) -> None:
        self._task: Any = self._world.start(self._world.me().process, self._target)

    def join(self) -> None:
        if not self._task.is_done:
            me = self._world.me()
            self._task.watchers.append(lambda: self._world.wake(me, 0.0))
            me.wait()


class _Pool(ThreadPoolExecutor):
    """`ThreadPoolExecutor` that works as it is asked, as a thread of its own would be no task of the world."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class _OsProcess:
    """`psutil.Process`: a process of the host that asks."""

    def __init__(self, world: World, pid: int | None = None) -> None:
        me = world.me().process
        here = (p for p in world.processes if p.host == me.host and not p.is_dead and not p.has_ended)
        found = me if pid is None else next((p for p in here if p.pid == pid), None)
        if found is None:
            raise psutil.NoSuchProcess(pid or 0)
        self.pid, self._started_s = found.pid, found.started_s + found.clock_offset_s

    def create_time(self) -> float:
        return self._started_s


def _to_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue()


def _from_arrow(data: bytes, columns: list[str] | None = None) -> pa.Table:
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    return manifest.without_categories(table if columns is None else table.select(columns))


@contextlib.contextmanager
def quick_manifests() -> Iterator[None]:
    """Let manifests be Arrow's own files: ninety columns of Parquet take 8 of the 12 ms of a shard of two clips."""
    with (
        mock.patch.object(manifest, "table_to_parquet", _to_arrow),
        mock.patch.object(manifest, "read", _from_arrow),
        mock.patch.object(manifest, "read_schema", lambda data: pa.ipc.open_file(pa.BufferReader(data)).schema),
    ):
        yield


@contextlib.contextmanager
def simulated(world: World, store: Store) -> Iterator[None]:
    """Let vidal run in a world, up to the end of the block."""
    put: dict[str, Any] = {
        "threading": SimpleNamespace(
            Event=functools.partial(_Event, world), Thread=lambda target, daemon: _Thread(world, target, daemon)
        ),
        "socket": SimpleNamespace(gethostname=lambda: world.me().process.host),
        "psutil": SimpleNamespace(Process=functools.partial(_OsProcess, world), NoSuchProcess=psutil.NoSuchProcess),
        "time": SimpleNamespace(time=world.clock),
        "take": functools.partial(lock.take, clock=world.clock, sleep=world.sleep),
    }
    with contextlib.ExitStack() as stack:
        for name, value in put.items():
            stack.enter_context(mock.patch.object(lock, name, value))
        # What a tar is made in is no part of the store.
        stack.enter_context(mock.patch.object(os, "fsync", lambda descriptor: None))
        for name in ("plan", "extra_schema"):
            # Until Python 3.12, all instances share the lock of a cached property, and these are of several processes.
            stack.enter_context(mock.patch.object(Dataset.__dict__[name], "lock", contextlib.nullcontext()))
        stack.enter_context(mock.patch.object(dataset, "ThreadPoolExecutor", _Pool))
        stack.enter_context(mock.patch.object(SimulatedS3, "store", store, create=True))
        try:
            yield
        finally:
            world.end()
