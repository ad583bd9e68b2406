"""Time and peak memory of planning a million candidates, and of resuming when most shards are committed.

    python benchmarks/plan.py [--candidates 1000000]

Target: each under 60 s and under 2 GB.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from figures import options, show

SHARD_SIZE = 128
COMMITTED_SHARE = 0.95


def write_list(path: Path, candidates: int) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clip_id", "url", "title", "hashtags", "uploader"])
        for n in range(candidates):
            url = f"https://example.org/shorts/{n * 2_654_435_761 % 2**40:011x}"
            title = f"Short number {n} about cats, trains and the sea"
            writer.writerow([f"yt-{n:011x}", url, title, "#cat #train #sea", f"uploader {n % 5000}"])


def write_recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    stages = {"source": {"list": "candidates.csv"}, "shards": {"size": SHARD_SIZE}, "stages": ["fetch", "probe"]}
    path.write_text(json.dumps(stages))
    return path


class NoWork:
    """An engine that is given the work, and leaves it."""

    def __init__(self) -> None:
        self.assigned = 0

    def run(self, job: object, assignments: Sequence[object], progress: object) -> dict[int, object]:
        from vidal.errors import MachineError

        self.assigned = len(assignments)
        raise MachineError("that is all there is to measure")

    def share(self, objects: dict[str, object]) -> dict[str, object]:
        return objects

    def has_gpu(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing was started."""


def drive(folder: Path) -> int:
    """All that a build does before its first shard; gives how many shards there are to do."""
    from rich.console import Console

    from vidal import recipe as recipes
    from vidal.dataset.storage import Storage
    from vidal.engine.driver import Run, build, is_complete
    from vidal.engine.progress import LiveProgress
    from vidal.errors import MachineError

    recipe, storage, engine = recipes.load(folder / "recipe.yaml"), Storage(str(folder / "out")), NoWork()
    assert not is_complete(recipe, storage)
    try:
        build(Run(recipe, storage, engine, LiveProgress(Console(quiet=True), quiet=True)))  # type: ignore[arg-type]
    except MachineError:
        return engine.assigned
    raise AssertionError("the engine was given nothing")


def commit_most(folder: Path, shards: int) -> None:
    """What committed shards look like to a driver that resumes: files with their names."""
    manifests = folder / "out" / "manifest"
    manifests.mkdir()
    for shard in range(int(shards * COMMITTED_SHARE)):
        (manifests / f"{shard:06d}.parquet").touch()


def measure(folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    shards = drive(folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s": time.perf_counter() - started, "peak_mb": peak_mb, "shards_to_do": shards}


def in_a_process_of_its_own(folder: Path) -> dict[str, float]:
    """So that the peak is its own."""
    command = [sys.executable, __file__, "--measure", str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    candidates = 1000 if given.quick else given.candidates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_list(folder / "candidates.csv", candidates)
        write_recipe(folder)
        planning = in_a_process_of_its_own(folder)
        commit_most(folder, -(-candidates // SHARD_SIZE))
        resuming = in_a_process_of_its_own(folder)
    show({"candidates": candidates, "planning": planning, "resuming": resuming}, as_json=given.json)


if __name__ == "__main__":
    main()
