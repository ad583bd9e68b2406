"""The engines without Ray: everything in this process, or a pool of local processes."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from vidal import extras
from vidal.engine.gpu import sees_gpu
from vidal.engine.job import Assignment, Job, Notes, Progress, ShardReport, UnderWay
from vidal.engine.shared import SocketHost
from vidal.engine.worker import Worker, become_worker, environment, fatal_error, fatal_text
from vidal.engine.worker_server import WorkerServer
from vidal.errors import MachineError, NotNowError
from vidal.process import exit_text, sweep_folders
from vidal.stage import Direct, Shared

_TICK_S = 0.5
_ADVANCE_S = 0.1
_MOST_SHARDS = 2
"""Shards that one worker makes at once, while one of them waits."""


class InProcessEngine:
    """Runs everything in the driver's process, for debugging: a stage that crashes or hangs takes the run with it."""

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        left: dict[int, UnderWay | NotNowError] = {}
        with contextlib.closing(Worker(job, job.groups, _ProgressNotes(progress))) as worker:
            worker.setup()
            for assignment in assignments:
                report = worker.make(assignment)
                progress.done(report)
                if report.not_now is not None:
                    left[report.shard] = report.not_now
        return left

    has_gpu = staticmethod(sees_gpu)

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        return {name: Direct(target) for name, target in objects.items()}

    def close(self) -> None:
        """Nothing to do: no process was started."""


class _ProgressNotes(Notes):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, shard: int, under_way: UnderWay, *, surely: bool) -> None:
        self._progress.tick()

    def advance(self, report: ShardReport) -> None:
        self._progress.update(report)


@dataclass(slots=True)
class _Member:
    """One process of the pool, as the driver sees it."""

    server: WorkerServer
    """The one that forked it, which alone may end it; after that one's death there is another."""
    pid: int
    pipe: Connection
    number: int
    """Its place in the pool, which decides its GPU; a worker that replaces a dead one takes over its number."""
    shards: dict[int, tuple[Assignment, UnderWay]] = field(default_factory=dict)
    """The shards that it is making: one, or two while one of them waits for others than this machine."""
    turn: int | None = None
    """The shard whose stages compute; None while each waits."""
    wants_more: bool = False

    def give(self, assignment: Assignment) -> None:
        """Send it a shard, which is its own before it is sent: where it is dead, its pipe ends next."""
        self.shards[assignment.shard] = assignment, UnderWay()
        self.wants_more = False
        with contextlib.suppress(OSError):
            self.pipe.send(assignment)

    def end(self) -> int:
        """Kill it if it still runs; returns its exit code, or minus the number of the signal that ended it."""
        self.pipe.close()
        return self.server.end(self.pid)

    def blamed(self) -> list[int]:
        """The shards that may have killed it: the one that had the turn, all where none had it."""
        return [self.turn] if self.turn in self.shards else list(self.shards)


class PoolEngine:
    """A pool of processes, each with its own pipe, so that a death is noticed at once and attributed to its clip."""

    def __init__(self, workers: int) -> None:
        self._size = workers
        self._members: list[_Member] = []
        self._server: WorkerServer | None = None
        self._host = contextlib.ExitStack()
        """Ends the host of shared objects, if there is one."""

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        waiting = deque(assignments)
        left: dict[int, UnderWay | NotNowError] = {}
        deaths_in_setup = 0
        try:
            while waiting or any(m.shards for m in self._members):
                busy = sum(bool(m.shards) for m in self._members)
                while len(self._members) < min(self._size, len(waiting) + busy):
                    number = min(set(range(self._size)) - {m.number for m in self._members})
                    self._members.append(self._start(job, number))
                ready = wait([m.pipe for m in self._members], timeout=_TICK_S)
                for member in [m for m in self._members if m.pipe in ready]:
                    if self._receive(member, left, progress):
                        continue
                    self._members.remove(member)
                    exit_code = member.end()
                    blamed = member.blamed()
                    for shard, (assignment, under_way) in member.shards.items():
                        if shard in blamed:
                            left[shard] = under_way
                        else:
                            # It only waited, so that it is made again as if it had not begun.
                            waiting.appendleft(assignment)
                    # One death in setup may be chance; when more than all workers have died there, the next ones will.
                    if not member.shards and (deaths_in_setup := deaths_in_setup + 1) > 1 + self._size:
                        how = exit_text(exit_code)
                        raise MachineError(f"workers die while they load their models ({how}); is memory short?")
                for member in self._members:
                    if member.wants_more and waiting:
                        member.give(waiting.popleft())
                progress.tick()
        finally:
            self._end_members()
        return left

    @staticmethod
    def _receive(member: _Member, left: dict[int, UnderWay | NotNowError], progress: Progress) -> bool:
        """Handle one message of a worker; False where its process has died."""
        try:
            kind, value = member.pipe.recv()
        except (EOFError, OSError):
            return False
        if kind == "fatal":
            raise fatal_error(*value)
        if kind == "begin":
            shard, under_way = value
            member.shards[shard] = member.shards[shard][0], under_way
        elif kind == "turn":
            member.turn = value
        elif kind == "advance":
            progress.update(value)
        elif kind == "done":
            progress.done(value)
            del member.shards[value.shard]
            if value.not_now is not None:
                left[value.shard] = value.not_now
        if kind in ("ready", "more") or not member.shards:
            member.wants_more = True
        return True

    has_gpu = staticmethod(sees_gpu)

    def share(self, objects: Mapping[str, object]) -> Mapping[str, Shared]:
        self._host.close()
        return self._host.enter_context(contextlib.closing(SocketHost(objects))).proxies if objects else {}

    def close(self) -> None:
        self._end_members()
        self._host.close()
        if self._server is not None:
            self._server.close()
            self._server = None

    def _start(self, job: Job, number: int) -> _Member:
        # Forked, but not from here: the driver has threads, and CUDA does not work in a fork of a process that has
        # started it.
        if self._server is None or not self._server.is_running():
            self._server = WorkerServer(os.environ | environment(gpus=0))
        driver_pipe, worker_pipe = multiprocessing.Pipe()
        # While the driver holds this end, a worker's death would not end the pipe.
        with worker_pipe:
            variables = os.environ | environment(gpus=job.gpus) | own_gpus(number, job.gpus)
            pid = self._server.fork(worker_pipe, variables)
        member = _Member(server=self._server, pid=pid, pipe=driver_pipe, number=number)
        # After its variables, as what the job holds is imported when it is received.
        with contextlib.suppress(OSError):
            driver_pipe.send(job)
        return member

    def _end_members(self) -> None:
        # Killed, not asked: what a worker has not committed is no part of the dataset, and a stage may hang.
        for member in self._members:
            member.end()
        self._members = []
        sweep_folders()


def own_gpus(number: int, gpus: float) -> dict[str, str]:
    """The variable that shows the worker of this number its GPUs; empty where it sees all that the driver sees.

    Workers take the driver's GPUs in turn, and start again with the first one where there are more of them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None and gpus and not extras.missing(["torch"]):
        import torch

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    if not gpus or not visible:
        return {}
    devices = visible.split(",")
    own = (int(number * gpus) + further for further in range(min(math.ceil(gpus), len(devices))))
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[index % len(devices)] for index in own)}


# The last, where the driver closed the pipe with notes in it that it had not read.
_CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


def serve(pipe: Connection) -> None:
    """The main function of a pool's process: set up, then make one shard after another until the pipe is closed."""
    # As in any process that was not spawned: locks that libraries make then end with this process, and are not reported
    # as leaked when it is killed.
    multiprocessing.set_start_method("fork", force=True)
    try:
        job = pipe.recv()
        become_worker(gpus=job.gpus)
        notes = _PipeNotes(pipe)
        with contextlib.closing(Worker(job, job.groups, notes, notes.more)) as worker:
            worker.setup()
            notes.send("ready", None)
            # Its threads last: the end of one would end the processes that it has started.
            with ThreadPoolExecutor(_MOST_SHARDS) as pool:
                while True:
                    pool.submit(_make, worker, pipe.recv(), notes)
    except _CLOSED:
        return
    except BaseException as error:
        pipe.send(("fatal", fatal_text(error)))
        raise SystemExit(1) from error


def _make(worker: Worker, assignment: Assignment, notes: _PipeNotes) -> None:
    with contextlib.suppress(*_CLOSED):
        try:
            notes.send("done", worker.make(assignment))
        except BaseException as error:
            notes.send("fatal", fatal_text(error))


class _PipeNotes(Notes):
    """Notes sent through the pipe: what was written survives the process, so every note is certain to arrive."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._advanced, self._advanced_at = (-1, ""), 0.0
        """Shard and stage of the counts that were last sent, and when."""

    def send(self, kind: str, value: object) -> None:
        with self._lock:
            self._pipe.send((kind, value))

    def begin(self, shard: int, under_way: UnderWay, *, surely: bool) -> None:
        self.send("begin", (shard, under_way))

    def turn(self, shard: int | None) -> None:
        self.send("turn", shard)

    def advance(self, report: ShardReport) -> None:
        # A display shows no more, and a message takes as long as a quick stage.
        latest, now = (report.shard, report.stage), time.monotonic()
        if latest != self._advanced or now - self._advanced_at >= _ADVANCE_S:
            self._advanced, self._advanced_at = latest, now
            self.send("advance", report)

    def more(self) -> None:
        """Ask for another shard beside the one that is being made."""
        self.send("more", None)
