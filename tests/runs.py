"""Recipes of toy stages, runs of them, and the bytes that came out: what tests of runs lean on."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from vidal import recipe as recipes
from vidal.dataset import lock
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.verify import verify
from vidal.engine.driver import Run, build
from vidal.engine.job import Engine, ShardReport
from vidal.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent

# Worker processes find the stages of `tests` as the tests do.
os.environ["PYTHONPATH"] = str(ROOT)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

PAINT, SHADE, CAPTION, AUDIO = (f"tests.engine_toys:{name}" for name in ("Paint", "Shade", "Caption", "Audio"))
SHOW, EMBED, SAME_TITLE, WEIGH = (f"tests.engine_toys:{name}" for name in ("Show", "Embed", "SameTitle", "Weigh"))
LETTERS, FEW_LETTERS, RANK = (f"tests.letter_toys:{name}" for name in ("Letters", "FewLetters", "Rank"))
TROUBLE, WAIT, BROKEN_SETUP = (f"tests.trouble_toys:{name}" for name in ("Trouble", "Wait", "BrokenSetup"))

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


def write_list(folder: Path, titles: Sequence[str], name: str = "candidates.csv") -> Path:
    """A csv of one candidate a title; ids are c000, c001, …"""
    path = folder / name
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
