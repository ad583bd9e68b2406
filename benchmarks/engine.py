"""What Ray costs against a plain pool of processes, and whether the driver grows with the number of clips.

    python benchmarks/engine.py [--workers 2] [--repeat 5]

Start-up is left out: the clock runs from the first shard that is done to the last. The engines take turns, and what Ray
costs is computed within each turn, so that the machine's load hits both alike; medians are printed with their range.
Target: Ray costs at most 15 % at 50 ms of CPU a clip, and the driver's memory is the same at 500 and at 5,000 clips.
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
from typing import Any

import psutil
from figures import log, options, show, spread

ROOT = Path(__file__).resolve().parent.parent
SHARD_SIZE = 10
ENGINES = ("local", "ray")
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
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(clips: int, cost_s: float, workers: int, repeat: int) -> dict[str, Any]:
    """Turns of all engines over as many clips."""
    turns: list[dict[str, dict[str, float]]] = []
    for number in range(repeat):
        # Who goes first changes, so that neither always finds the machine as the other left it.
        order = ENGINES if number % 2 == 0 else ENGINES[::-1]
        turns.append({name: in_a_process_of_its_own(name, clips, cost_s, workers) for name in order})
        log(f"turn {number + 1} of {repeat}: {turns[-1]}")
    return {
        "clips_per_s": {name: spread([turn[name]["clips_s"] for turn in turns]) for name in ENGINES},
        "ray_costs": spread([1 - turn["ray"]["clips_s"] / turn["local"]["clips_s"] for turn in turns]),
        "driver_mb": {name: spread([turn[name]["rss_mb"] for turn in turns]) for name in ENGINES},
        "clips": clips, "cpu_s_per_clip": cost_s, "workers": workers, "repeat": repeat,
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=5, help="turns of each engine")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        engine, clips, cost_s, workers = given.measure
        print(json.dumps(measure(engine, int(clips), float(cost_s), int(workers))))
        return
    if given.quick:
        figures = compare(2 * SHARD_SIZE, 0.01, 1, 1)
    else:
        figures = compare(given.clips, 0.05, given.workers, given.repeat)
        figures["driver_mb_at_ten_times_the_clips"] = {
            name: in_a_process_of_its_own(name, 10 * given.clips, 0.002, given.workers)["rss_mb"] for name in ENGINES
        }
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
