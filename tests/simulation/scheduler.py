"""`World`: processes of several hosts in one process, on one virtual clock, of which one thread runs at a time.

What a process does is real, synchronous code in a thread of its own. It stops at each request to the store, each sleep
and each wait, and the scheduler decides what happens next: everything that it draws comes from one seeded generator, so
a schedule is a function of its seed.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MOST_EVENTS = 30_000


class Killed(BaseException):
    """Raised in a process that is dead, at whatever it asks for next; no code of vidal catches it."""


class Stuck(Exception):
    """A schedule that does not come to an end."""


def closed_gate() -> threading.Lock:
    """Return a lock that is held: a semaphore of one, at a third of its time."""
    gate = threading.Lock()
    gate.acquire()
    return gate


@dataclass(slots=True)
class Fate:
    """What happens to a process, by the number of its request."""

    dies_at: int | None = None
    pauses: dict[int, float] = field(default_factory=dict)
    """Seconds for which the whole process stands still just before a request is sent."""


@dataclass(slots=True, eq=False)
class Process:
    """A process of a host; its threads stop and die with it."""

    name: str
    host: str
    pid: int
    started_s: float
    clock_offset_s: float
    """By which the clock of its host is wrong."""
    fate: Fate
    is_dead: bool = False
    has_ended: bool = False
    paused_until_s: float = 0.0
    requests: int = 0
    owner: int = 0
    """The highest number that it has created in the lock's folder."""
    tasks: list[Task] = field(default_factory=list)
    error: BaseException | None = None
    """What its main function has raised."""


class Task:
    """A thread of a process; it runs while the scheduler waits, and the other way round."""

    def __init__(self, world: World, process: Process, work: Callable[[], object]) -> None:
        self.world, self.process, self._work = world, process, work
        self.answer: Any = None
        self.error: BaseException | None = None
        """What the request that it waits for has raised."""
        self.asked = 0
        """The highest number in the lock's folder when it last asked."""
        self.is_done = False
        self.turn = 0
        """Counts its waits, so that an alarm for an earlier one is known as late."""
        self.watchers: list[Callable[[], None]] = []
        self._gate = closed_gate()
        self._thread = threading.Thread(target=self._run, daemon=True)
        process.tasks.append(self)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        self._gate.acquire()
        try:
            if not self.process.is_dead:
                self._work()
        except Killed:
            pass
        except BaseException as error:
            self.process.error = error
        self.is_done = True
        for watcher in self.watchers:
            watcher()
        self.world.gate.release()

    def resume(self) -> None:
        """Let it run up to its next wait; called by the scheduler."""
        self.world.current = self
        self._gate.release()
        self.world.gate.acquire()
        self.world.current = None

    def wait(self) -> None:
        """Stop until the scheduler resumes it; called by the task. Raises `Killed`."""
        if self.process.is_dead:
            raise Killed
        self.world.gate.release()
        self._gate.acquire()
        if self.process.is_dead:
            raise Killed


class World:
    """The clock, the queue of what is to happen, and the processes."""

    def __init__(self, seed: str) -> None:
        self.random, self.tears = random.Random(seed), random.Random(f"{seed} tears")
        self.now_s = 0.0
        self.current: Task | None = None
        self.gate = closed_gate()
        self.processes: list[Process] = []
        self.log: list[str] = []
        """Every request in the order in which the store took it."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._offsets: dict[str, float] = {}

    def spawn(self, name: str, host: str, work: Callable[[], object], fate: Fate | None = None) -> Process:
        """Start a process now."""
        if host not in self._offsets:
            # Days: no clock of a host may be compared with another's.
            self._offsets[host] = self.random.uniform(-1e5, 1e5)
        pid = 100 + len(self.processes)
        process = Process(name, host, pid, self.now_s, self._offsets[host], fate or Fate())
        self.processes.append(process)

        def whole() -> None:
            try:
                work()
            finally:
                process.has_ended = True

        self.start(process, whole)
        return process

    def start(self, process: Process, work: Callable[[], object]) -> Task:
        """Start a thread of a process."""
        task = Task(self, process, work)
        task.start()
        self.wake(task, 0.0)
        return task

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let something happen later."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._sequence, act))

    def wake(self, task: Task, delay_s: float) -> None:
        """Resume a task later, unless something else has resumed it before; a paused one once its pause is over."""
        turn = task.turn

        def act() -> None:
            if task.is_done or task.turn != turn:
                return
            if not task.process.is_dead and task.process.paused_until_s > self.now_s:
                self.wake(task, task.process.paused_until_s - self.now_s)
                return
            task.turn += 1
            task.resume()

        self.at(delay_s, act)

    def kill(self, process: Process) -> None:
        """End a process; requests that it has sent may still arrive."""
        if not process.is_dead:
            process.is_dead = True
            self.log.append(f"{self.now_s:.3f} {process.name} dies")
            for task in process.tasks:
                self.wake(task, 0.0)

    def run(self) -> None:
        """Let everything happen, until every process has ended or is dead. Raises `Stuck`."""
        events = 0
        while self._queue:
            self.now_s, _, act = heapq.heappop(self._queue)
            act()
            events += 1
            if events > _MOST_EVENTS:
                raise Stuck(f"no end after {_MOST_EVENTS} events")
        if waiting := [p.name for p in self.processes if not all(task.is_done for task in p.tasks)]:
            raise Stuck(f"{waiting} wait for ever")

    def end(self) -> None:
        """End every thread that is left of a schedule that failed."""
        self._queue.clear()
        for process in self.processes:
            process.is_dead = True
            for task in process.tasks:
                while not task.is_done:
                    task.resume()

    def me(self) -> Task:
        """The task that runs."""
        assert self.current is not None, "asked outside of a process"
        return self.current

    def clock(self) -> float:
        """The time on the clock of the current task's host."""
        task = self.me()
        return self.now_s + task.process.clock_offset_s

    def sleep(self, seconds: float) -> None:
        task = self.me()
        self.wake(task, seconds)
        task.wait()
