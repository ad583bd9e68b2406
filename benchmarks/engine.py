"""What Ray costs against a plain pool of processes, and whether the driver grows with the number of clips.

    python benchmarks/engine.py [--workers 2]

Start-up is left out: the clock runs from the first shard that is done to the last. Target: Ray costs at most
15 % at 50 ms of CPU a clip, and the driver's memory is the same at 500 and at 5,000 clips.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SHARD_SIZE = 10
# Ray's workers are processes of their own and find the stage by this.
os.environ["PYTHONPATH"] = str(ROOT)
sys.path.insert(0, str(ROOT))


class Clock:
    """Progress that keeps when the first and the last shard were done, and the driver's memory at its highest."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last = 0.0
        self.clips = 0
        self.rss = 0

    def begin_run(self, phases: Sequence[Sequence[str]]) -> None:
        """Not looked at."""

    def begin_phase(self, number: int, phases: int, candidates: int, already: int) -> None:
        """Not looked at."""

    def note(self, line: str) -> None:
        """Not looked at."""

    def line(self) -> str:
        return ""

    def update(self, report: object) -> None:
        """Not looked at."""

    def done(self, report: object) -> None:
        self.last = time.monotonic()
        if self.first is None:
            self.first = self.last
        else:
            self.clips += SHARD_SIZE
        self.rss = max(self.rss, psutil.Process().memory_info().rss)

    def tick(self) -> None:
        """Not looked at."""


def measure(engine_name: str, clips: int, cost_s: float, workers: int) -> dict[str, float]:
    """Clips per second of a run without its start-up, and the driver's memory."""
    from vidal.build import How
    from vidal.dataset.storage import Storage
    from vidal.engine.driver import Run, build
    from vidal.recipe import check

    with tempfile.TemporaryDirectory() as name:
        listed = Path(name) / "candidates.csv"
        listed.write_text("url\n" + "".join(f"{n}.mp4\n" for n in range(clips)))
        stages = [{"benchmarks.engine_toys:Burn": {"cost_s": cost_s}}]
        recipe = check({"source": {"list": str(listed)}, "shards": {"size": SHARD_SIZE}, "stages": stages}, "benchmark")
        clock = Clock()
        engine = How(engine=engine_name, workers=workers).start(recipe)  # type: ignore[arg-type]
        try:
            build(Run(recipe, Storage(f"{name}/out"), engine, clock))
        finally:
            engine.close()
    assert clock.first is not None
    return {"clips_s": clock.clips / (clock.last - clock.first), "rss_mb": clock.rss / 1e6}


def in_a_process_of_its_own(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--clips", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3, help="Of each engine, in turns; the best counts.")
    arguments.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        engine, clips, cost_s, workers = given.measure
        print(json.dumps(measure(engine, int(clips), float(cost_s), int(workers))))
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {given.workers} workers")
    best = {"local": 0.0, "ray": 0.0}
    for _ in range(given.rounds):
        for engine in best:
            found = in_a_process_of_its_own(engine, given.clips, 0.05, given.workers)
            best[engine] = max(best[engine], found["clips_s"])
    for engine, rate in best.items():
        print(f"{engine}: {rate:.1f} clips/s at 50 ms of CPU a clip")
    print(f"ray costs {1 - best['ray'] / best['local']:.1%}")
    for engine in best:
        memory = [
            in_a_process_of_its_own(engine, n, 0.002, given.workers)["rss_mb"] for n in (given.clips, 10 * given.clips)
        ]
        print(f"{engine}: driver {memory[0]:.0f} MB at {given.clips} clips, {memory[1]:.0f} MB at {10 * given.clips}")


if __name__ == "__main__":
    main()
