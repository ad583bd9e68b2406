"""Recipes of toy stages, runs of them, and the bytes that came out: what tests of runs lean on."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from vidal import recipe as recipes
from vidal.commands import app
from vidal.commands.terminal import console, errors, guarded, print_warning
from vidal.dataset import lock
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.verify import verify
from vidal.engine.driver import Run, build
from vidal.engine.job import Engine, ShardReport
from vidal.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent

# Worker processes find `tests.engine_toys` as the tests do.
os.environ["PYTHONPATH"] = str(ROOT)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

PAINT, SHADE, TROUBLE, WAIT = (f"tests.engine_toys:{name}" for name in ("Paint", "Shade", "Trouble", "Wait"))
CAPTION, AUDIO, WEIGH = (f"tests.engine_toys:{name}" for name in ("Caption", "Audio", "Weigh"))
SHOW, EMBED = (f"tests.engine_toys:{name}" for name in ("Show", "Embed"))
LETTERS, FEW_LETTERS, RANK = (f"tests.engine_toys:{name}" for name in ("Letters", "FewLetters", "Rank"))
SAME_TITLE, BROKEN_SETUP = (f"tests.engine_toys:{name}" for name in ("SameTitle", "BrokenSetup"))

Row = dict[str, Any]


class Silence:
    """Progress that nobody looks at; keeps which shards were done."""

    def __init__(self) -> None:
        self.done_shards: list[int] = []

    def begin_run(self, phases: Sequence[Sequence[str]]) -> None:
        """Not looked at."""

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        """Not looked at."""

    def note(self, line: str) -> None:
        """Not looked at."""

    def line(self) -> str:
        return "under way"

    def update(self, report: ShardReport) -> None:
        """Not looked at."""

    def done(self, report: ShardReport) -> None:
        self.done_shards.append(report.shard)

    def tick(self) -> None:
        """Not looked at."""


def write_list(folder: Path, titles: Sequence[str]) -> Path:
    """A csv of one candidate a title; ids are c000, c001, …"""
    path = folder / "candidates.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clip_id", "url", "title"])
        writer.writerows([f"c{n:03d}", f"{n}.mp4", title] for n, title in enumerate(titles))
    return path


def write_recipe(folder: Path, stages: Iterable[Any], titles: Sequence[str] | int = 12, **keys: Any) -> Path:
    """A recipe file over a list of its own."""
    listed = write_list(folder, [f"clip {n}" for n in range(titles)] if isinstance(titles, int) else titles)
    path = folder / "toys.yaml"
    recipe = {"name": "toys", "source": {"list": str(listed)}, "shards": {"size": 4}, "stages": list(stages), **keys}
    path.write_text(yaml.safe_dump(recipe))
    return path


def run(recipe: Recipe | Path, out: Path | str, engine: Engine, **keys: Any) -> Silence:
    """Drive a recipe to the end; gives what was told of it."""
    progress = Silence()
    checked = recipes.load(recipe) if isinstance(recipe, Path) else recipe
    build(Run(checked, Storage(str(out)), engine, progress, **keys))
    return progress


def rows(out: Path | str) -> dict[str, Row]:
    """The manifest by clip."""
    table = pq.read_table(Path(out) / "manifest")
    return {row["clip_id"]: row for row in table.to_pylist()}


def rows_in_order(address: Path | str) -> list[Row]:
    """Those of a revision by the plan's order, an id as often as it is there."""
    return list(Dataset.open(str(address)).rows())


def problems(out: Path) -> list[str]:
    """What `vidal verify` finds in a dataset as it was built, and in its current revision."""
    return [str(problem) for address in (f"{out}@0", str(out)) for problem in verify(Dataset.open(address))]


def outcomes(out: Path | str) -> dict[str, tuple[str, str | None]]:
    """Status and reason by clip."""
    return {clip_id: (row["status"], row["reason"]) for clip_id, row in rows(out).items()}


def digests(out: Path | str) -> dict[str, str]:
    """SHA-256 of every file of a dataset, hidden ones included; not of the lock, which counts runs and passes."""
    root = Path(out)
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != lock.FOLDER)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def vidal(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """A vidal command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vidal", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "300", **(env or {})},
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def command(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process, under the same guard: two to four seconds of imports less than `vidal`.

    For tests of what a command says and does. Whoever tests a process (its death, its environment at import, what it
    prints through a child) takes `vidal`.
    """
    words, out, err = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Those of pytest make an error of a warning; a user's process prints it.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        patch.setattr(warnings, "showwarning", print_warning)
        patch.chdir(cwd or ROOT)
        for name, value in {"COLUMNS": "300", **(env or {})}.items():
            patch.setenv(name, value)
        # A console keeps the COLUMNS that it found when it was made, which test processes may set.
        for each in (console, errors):
            patch.setattr(each, "_width", None)
        with redirect_stdout(out), redirect_stderr(err):
            code = guarded(lambda: app(words, standalone_mode=True))
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def start_vidal(*arguments: str | Path) -> subprocess.Popen[str]:
    """A vidal command under way, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vidal", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below one, by process object, so that a reused id is no match."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def still_alive(processes: Iterable[psutil.Process], within_s: float = 20) -> list[psutil.Process]:
    """Those that do not end in time; a zombie has ended."""
    _, alive = psutil.wait_procs(list(processes), timeout=within_s)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
