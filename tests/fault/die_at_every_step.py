"""A build, or a revision of one, that dies at its first step on the disk, at its second, …; each time, look and finish.

Called by `test_kill.py` as ``die_at_every_step.py ACT RECIPE FOLDER STRIDE HOW``. ACT is ``build``, or a revision of
what the recipe builds: ``add``, ``grow`` or ``refilter``, with the arguments that a file beside the recipe has. Stride 1
is every step. Prints how many steps there are and after how many of them a reader saw a torn dataset. A step is a write,
a sync, a rename, a link or a removal. If HOW is ``dies``, a process dies before it, and in the middle of a write; if it
is ``fails``, the disk fails it instead: the run ends in one line, or has done all that it says. Every run is a fork.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas  # noqa: F401  (pyarrow imports it at its first table: better once here than in every fork)
import psutil
from rich.console import Console

from tests import engine_toys, letter_toys  # noqa: F401
from tests.runs import digests, run
from vidal.build import How, add, grow
from vidal.dataset import local_disk
from vidal.dataset.dataset import Dataset, read_info
from vidal.dataset.storage import Storage
from vidal.dataset.tars import TarWriter
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import MachineError
from vidal.revisions.refilter import refilter

DIED, REFUSED = 9, 3


class Steps:
    """Counts the steps of this process, and ends it at one of them, or lets that one fail."""

    def __init__(self, last: int | None, *, fails: bool = False) -> None:
        self.count, self.last, self.fails = 0, last, fails

    def step(self, half_done: Callable[[], Any] = lambda: None) -> None:
        self.count += 1
        if self.count == self.last:
            half_done()
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            os._exit(DIED)


def instrument(steps: Steps) -> None:
    """Let every function that changes the disk be a step."""
    for name in ("fsync", "replace", "link", "unlink", "rmdir", "remove"):
        original = getattr(os, name)
        setattr(os, name, _before(steps, original))
    begin = TarWriter.__init__
    whole = local_disk.open if hasattr(local_disk, "open") else open

    class HalfFile:
        """A file whose writes die half done."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: bytes) -> None:
            steps.step(lambda: (self._file.write(data[: len(data) // 2]), self._file.flush()))
            self._file.write(data)

        def __enter__(self) -> HalfFile:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    def begin_half(self: TarWriter, handle: BinaryIO, layer: str) -> None:
        begin(self, cast(BinaryIO, HalfFile(handle)), layer)

    TarWriter.__init__ = begin_half  # type: ignore[method-assign]
    local_disk.open = lambda *arguments: HalfFile(whole(*arguments))  # type: ignore[attr-defined]


def _before(steps: Steps, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **keys: Any) -> Any:
        steps.step()
        return original(*arguments, **keys)

    return call


def forked(work: Callable[[], int]) -> int:
    """The exit code of a fork that does the work."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def act(name: str, recipe: Path, out: Path) -> None:
    """Run what is to die, or what finishes it."""
    how, console = How(engine="local", workers=0), Console(quiet=True)
    if name == "build":
        run(recipe, out, InProcessEngine())
    elif name == "add":
        add(recipe.with_name("more.yaml"), str(out), how, console, quiet=True)
    elif name == "grow":
        grow(str(out), [f"list={recipe.with_name('longer.csv')}"], how, console, quiet=True)
    else:
        refilter(str(out), [recipe.with_name("thresholds.txt").read_text()])


def dying(
    name: str, recipe: Path, out: Path, last: int | None, count_to: Path | None = None, *, fails: bool = False
) -> int:
    steps = Steps(last, fails=fails)
    instrument(steps)
    try:
        act(name, recipe, out)
    except MachineError as error:
        assert fails and "\n" not in str(error) and os.strerror(errno.EIO) in str(error), error
        return REFUSED
    if count_to:
        count_to.write_text(str(steps.count))
    return 0


def is_torn(out: Path, name: str) -> bool:
    """Whether a reader sees a shard that is committed and not whole; what is not there yet is not torn."""
    if name != "build":
        return any(problem for address in (str(out), f"{out}@0") for problem in verify(Dataset.open(address)))
    for folder in (out / "phases" / "1", out):
        if read_info(Storage(str(folder))) is not None:
            dataset = Dataset.open(str(folder))
            if any(problem.shard in dataset.committed() for problem in verify(dataset)):
                return True
    return False


def main(name: str, recipe: Path, folder: Path, stride: int, how: str) -> None:
    def begin(out: Path) -> None:
        if name != "build":
            shutil.copytree(folder / "base", out)

    if name == "add":
        # Where there is a GPU, it imports torch, as the stage that is added wants one: once here, not in every fork.
        InProcessEngine.has_gpu()
    if name != "build":
        assert forked(lambda: dying("build", recipe, folder / "base", None)) == 0
    begin(folder / "reference")
    assert forked(lambda: dying(name, recipe, folder / "reference", None, folder / "count")) == 0
    count, wanted = int((folder / "count").read_text()), digests(folder / "reference")
    torn = 0
    for last in range(1, count + 1, stride):
        out = folder / "out"
        begin(out)
        code = forked(lambda: dying(name, recipe, out, last, fails=how == "fails"))  # noqa: B023
        assert code == DIED if how == "dies" else code in (0, REFUSED), f"step {last}: {code}"
        assert code or digests(out) == wanted, f"step {last}: a run that says that it is done"
        torn += forked(lambda: int(is_torn(out, name)))  # noqa: B023
        assert forked(lambda: dying(name, recipe, out, None)) == 0, f"resuming after step {last}"  # noqa: B023
        there = digests(out)
        assert there == wanted, f"step {last}: {set(there.items()) ^ set(wanted.items())}"
        shutil.rmtree(out)
    assert psutil.Process().children() == []
    print(count, torn)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
