"""`play`: one schedule, a function of seed and number, and what it broke."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import acts, commands
from tests.simulation.checker import Checker
from tests.simulation.scheduler import Fate, Process, Stuck, World
from tests.simulation.seams import quick_manifests, simulated
from tests.simulation.store import Store, Troubles
from vidal.errors import VidalError

_HOSTS = ("ape", "bee")
_IN_PLACE = ("retry", "remove")
_MOST_LIVES = 3
"""How often a command is started again that has died or failed."""


@dataclass(frozen=True, slots=True)
class Played:
    """What happened in a schedule."""

    seed: int
    number: int
    faults: list[str]
    log: list[str]

    @property
    def command(self) -> str:
        """The command that plays it again."""
        return f"make simulate SEED={self.seed} ONLY={self.number}"


@dataclass(frozen=True, slots=True)
class Command:
    """What a process does, given a word that tells its bytes from others'."""

    name: str
    act: Callable[[str], None]
    rewrites: bool = False
    """Whether it changes committed files in place, so that readers meanwhile are promised nothing."""


def play(seed: int, number: int) -> Played:
    """Play one schedule."""
    world = World(f"{seed}/{number}")
    store = Store(world)
    checker = Checker(world, store)
    with simulated(world, store), quick_manifests():
        try:
            # The commands take three times as long as the shards alone.
            director = Commands if number % 10 == 9 else Shards
            director(world, store, checker).play()
        except Stuck as error:
            checker.fault(str(error))
    return Played(seed, number, checker.faults, world.log)


class Director:
    """Starts processes, lets them die, pause and come again, and ends with some that meet no trouble."""

    def __init__(self, world: World, store: Store, checker: Checker) -> None:
        self.world, self.store, self.checker, self.draw = world, store, checker, world.random
        self._count = 0

    def begin(self) -> None:
        """Prepare the store before any trouble."""

    def command(self) -> Command:
        """Draw what a process does."""
        raise NotImplementedError

    def last(self) -> Sequence[Command]:
        """Return what completes the dataset, whatever has happened to it."""
        raise NotImplementedError

    def end(self) -> None:
        """Look at what only this kind of schedule promises."""

    def play(self) -> None:
        """Play the schedule, and let the checker look at what is left."""
        draw = self.draw
        self.begin()
        self.store.troubles = self._troubles()
        for _ in range(draw.randint(2, 3)):
            command, host = self.command(), draw.choice(_HOSTS)
            self.world.at(draw.uniform(0, 20), functools.partial(self.start, command, host, _MOST_LIVES))
        for _ in range(2):
            self.world.at(draw.uniform(0, 100), self._start_reader)
        self.world.run()
        self.store.troubles = Troubles()
        for command in self.last():
            process = self.start(command, "cat", lives=0)
            self.world.run()
            if process.error is not None:
                self.checker.fault(f"{process.name} cannot complete the dataset: {process.error}")
        self.end()
        self.world.spawn("check", "cat", lambda: acts.check(self.checker))
        self.world.run()
        for process in self.world.processes:
            if process.error is not None and not isinstance(process.error, VidalError):
                where = traceback.extract_tb(process.error.__traceback__)
                places = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "vidal" in frame.filename)
                self.checker.fault(f"{process.name} ends with {process.error!r} at {' '.join(places)}")

    def _troubles(self) -> Troubles:
        draw = self.draw
        troubles = Troubles(slow=draw.choice([0.0, 0.05, 0.2]))
        for kind in ("lost_before", "lost_after", "sent_twice", "conflict"):
            setattr(troubles, kind, draw.choice([0.0, 0.0, 0.02]))
        troubles.torn = self.world.tears.choice([0.0, 0.0, 0.3])
        if draw.random() < 0.15:
            troubles.full_from_s = draw.uniform(0, 30)
            troubles.full_to_s = troubles.full_from_s + draw.uniform(1, 60)
        return troubles

    def _fate(self) -> Fate:
        draw = self.draw
        fate = Fate()
        if draw.random() < 0.5:
            fate.dies_at = draw.randint(1, 70)
        for _ in range(draw.choice([0, 0, 1, 2])):
            fate.pauses[draw.randint(1, 70)] = draw.choice([5.0, 70.0, 200.0])
        return fate

    def start(self, command: Command, host: str, lives: int) -> Process:
        """Start a process; with ``lives``, it meets troubles, and is started again as often where it dies or fails."""
        self._count += 1
        name = f"{command.name}{self._count}"
        if command.rewrites:
            self.checker.rewrites += 1
            self.checker.unfinished_rewrites += 1

        def work() -> None:
            command.act(name)
            if command.rewrites:
                self.checker.unfinished_rewrites -= 1

        process = self.world.spawn(name, host, work, self._fate() if lives else None)
        if lives:
            # A host notices early or late that its process is gone.
            self.world.at(self.draw.uniform(1, 150), functools.partial(self._again, process, command, lives - 1))
        return process

    def _again(self, process: Process, command: Command, lives: int) -> None:
        if process.is_dead or process.error is not None:
            if lives:
                self.start(command, self.draw.choice(_HOSTS), lives)
        elif not process.has_ended:
            self.world.at(self.draw.uniform(1, 150), functools.partial(self._again, process, command, lives))

    def _start_reader(self) -> None:
        self.world.spawn("reader", "cat", lambda: acts.read(self.checker))


class Shards(Director):
    """Processes that build one dataset, and rewrite its shards."""

    def command(self) -> Command:
        shard = self.draw.randint(0, 1)
        rewrite = Command("rewrite", lambda word: acts.rewrite(word, shard), rewrites=True)
        return _BUILD if self.draw.random() < 0.7 else rewrite

    def last(self) -> Sequence[Command]:
        return [_BUILD]


class Commands(Director):
    """Whole commands over one dataset, that is built already in most schedules."""

    def begin(self) -> None:
        self._begun: set[str] = set()
        if self.draw.random() < 0.8:
            self.start(_COMMANDS["build"], "cat", lives=0)
            self.world.run()

    def command(self) -> Command:
        name = self.draw.choice(sorted(_COMMANDS))
        self._begun.add(name)
        return _COMMANDS[name]

    def last(self) -> Sequence[Command]:
        return [_COMMANDS[name] for name in ("build", "remove") if name == "build" or name in self._begun]

    def end(self) -> None:
        if "remove" in self._begun:
            for path, version in self.store.objects.items():
                if path.endswith(".tar") and f"{commands.REMOVED}.".encode() in version.data:
                    self.checker.fault(f"{path} still has the clip that was removed")


_BUILD = Command("build", acts.build)
_COMMANDS = {
    act.__name__: Command(act.__name__, lambda word, act=act: act(), rewrites=act.__name__ in _IN_PLACE)
    for act in (commands.build, commands.retry, commands.add, commands.grow, commands.refilter, commands.remove)
}
