"""`play`: one schedule, a function of seed and number, and what it broke."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import acts
from tests.simulation.checker import Checker
from tests.simulation.scheduler import Fate, Process, Stuck, World
from tests.simulation.seams import quick_manifests, simulated
from tests.simulation.store import Store, Troubles
from vidal.errors import VidalError

_HOSTS = ("ape", "bee")
_MOST_LIVES = 3
"""How often a command is started again that has died or failed."""


@dataclass(frozen=True, slots=True)
class Played:
    """What happened in a schedule."""

    seed: int
    number: int
    faults: list[str]
    log: list[str]
    late: int
    """Manifests that came in late, which is known not to be exact."""

    @property
    def command(self) -> str:
        """The command that plays it again."""
        return f"make simulate SEED={self.seed} ONLY={self.number}"


def play(seed: int, number: int) -> Played:
    """Play one schedule."""
    world = World(f"{seed}/{number}")
    store = Store(world)
    checker = Checker(world, store)
    with simulated(world, store), quick_manifests():
        try:
            _Director(world, store, checker).play()
        except Stuck as error:
            checker.fault(str(error))
    return Played(seed, number, checker.faults, world.log, len(checker.late))


class _Director:
    """Starts processes, lets them die, pause and come again, and ends with one that meets no trouble."""

    def __init__(self, world: World, store: Store, checker: Checker) -> None:
        self._world, self._store, self._checker, self._draw = world, store, checker, world.random
        self._count = 0

    def play(self) -> None:
        draw = self._draw
        self._store.troubles = self._troubles()
        for _ in range(draw.randint(2, 3)):
            command = self._build if draw.random() < 0.7 else functools.partial(self._rewrite, draw.randint(0, 1))
            self._world.at(draw.uniform(0, 20), functools.partial(self._start, command, draw.choice(_HOSTS)))
        for _ in range(2):
            self._world.at(draw.uniform(0, 100), self._start_reader)
        self._world.run()
        self._store.troubles = Troubles()
        self._start(self._build, "cat", lives=0)
        self._world.run()
        last = self._world.processes[-1]
        if last.error is not None:
            self._checker.fault(f"the build cannot be resumed: {last.error}")
        self._world.spawn("check", "cat", lambda: acts.check(self._checker))
        self._world.run()
        for process in self._world.processes:
            if process.error is not None and not isinstance(process.error, VidalError):
                where = traceback.extract_tb(process.error.__traceback__)
                places = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "vidal" in frame.filename)
                self._checker.fault(f"{process.name} ends with {process.error!r} at {' '.join(places)}")

    def _troubles(self) -> Troubles:
        draw = self._draw
        troubles = Troubles(slow=draw.choice([0.0, 0.05, 0.2]))
        for kind in ("lost_before", "lost_after", "sent_twice", "conflict"):
            setattr(troubles, kind, draw.choice([0.0, 0.0, 0.02]))
        if draw.random() < 0.15:
            troubles.full_from_s = draw.uniform(0, 30)
            troubles.full_to_s = troubles.full_from_s + draw.uniform(1, 60)
        return troubles

    def _fate(self) -> Fate:
        draw = self._draw
        fate = Fate()
        if draw.random() < 0.5:
            fate.dies_at = draw.randint(1, 70)
        for _ in range(draw.choice([0, 0, 1, 2])):
            fate.pauses[draw.randint(1, 70)] = draw.choice([5.0, 70.0, 200.0])
        return fate

    def _start(self, command: Callable[[str], None], host: str, lives: int = _MOST_LIVES) -> None:
        self._count += 1
        name = f"{command.func.__name__ if isinstance(command, functools.partial) else command.__name__}{self._count}"
        fate = self._fate() if lives else Fate()
        process = self._world.spawn(name.strip("_"), host, lambda: command(name), fate)
        if lives:
            # A host notices late, or early, that its process is gone.
            self._world.at(self._draw.uniform(1, 150), functools.partial(self._again, process, command, lives - 1))

    def _again(self, process: Process, command: Callable[[str], None], lives: int) -> None:
        if process.is_dead or process.error is not None:
            if lives:
                self._start(command, self._draw.choice(_HOSTS), lives)
        elif not process.has_ended:
            self._world.at(self._draw.uniform(1, 150), functools.partial(self._again, process, command, lives))

    def _start_reader(self) -> None:
        self._world.spawn("reader", "cat", lambda: acts.read(self._checker))

    def _build(self, word: str) -> None:
        acts.build(word)

    def _rewrite(self, shard: int, word: str) -> None:
        self._checker.rewrites += 1
        self._checker.unfinished_rewrites += 1
        acts.rewrite(word, shard)
        self._checker.unfinished_rewrites -= 1
