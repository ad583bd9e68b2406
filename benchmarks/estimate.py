"""What `vidal plan` says of a build, from a profile of 32 clips, against that build as measured; and its own time.

    python benchmarks/estimate.py [--clips 500] [--workers 2]

Clips are drawn by FFmpeg, 0.5 to 3 s long, and go through `fetch`, `probe`, a filter and `media` by the local engine.
The build is made before and after the profile, as the machine may have other work; the ratio is to the mean of the two.
Target: within 20 %, and ten million clips on a hundred machines, which fail, in under a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import log, options, show

FILMS = 25
SHARD_SIZE = 8
SIZES = ("320x180", "480x270", "640x360")
BIG = """
nodes:
  - {kind: cpu, count: 84, cpus: 16, failures_per_h: 0.05}
  - {kind: spare, count: 16, cpus: 16, failures_per_h: 0.2}
"""


def draw(folder: Path, films: int) -> None:
    from vidal.media.ffmpeg import find_ffmpeg

    for number in range(films):
        length_s, size = 0.5 + 2.5 * number / films, SIZES[number % len(SIZES)]
        video = f"testsrc2=size={size}:rate=25:duration={length_s}"
        sources = ["-f", "lavfi", "-i", video, "-f", "lavfi", "-i", f"sine=d={length_s}"]
        path = str(folder / f"{number}.mp4")
        command = [str(find_ffmpeg()), "-y", "-loglevel", "error", *sources, "-pix_fmt", "yuv420p", path]
        subprocess.run(command, check=True)


def write_recipe(folder: Path, clips: int, films: int) -> Path:
    listed = "".join(f"c{number},{number % films}.mp4\n" for number in range(clips))
    (folder / "clips.csv").write_text("clip_id,url\n" + listed)
    path = folder / "recipe.yaml"
    stages = ["fetch", "probe", {"too_short": {"min_s": 0.8}}, "media"]
    path.write_text(json.dumps({"source": {"list": "clips.csv"}, "shards": {"size": SHARD_SIZE}, "stages": stages}))
    return path


def vidal(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "vidal", *map(str, arguments), "--json"]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def compare(folder: Path, clips: int, sample: int, workers: int, films: int) -> dict[str, Any]:
    """Predict a build and make it, twice."""
    draw(folder, films)
    recipe = write_recipe(folder, clips, films)
    how = ["--engine", "local", "--workers", workers]
    before = vidal("build", recipe, "--out", folder / "before", *how)["wall_s"]
    log(f"measured {before:.1f} s")
    vidal("profile", recipe, "--clips", sample, "--out", folder / "profile.json", *how)
    plan = vidal("plan", recipe, "--clips", clips, "--cluster", f"1xcpu{workers}", "--profile", folder / "profile.json")
    log(f"predicted {plan['wall_s']}")
    after = vidal("build", recipe, "--out", folder / "after", *how)["wall_s"]
    stored = sum(path.stat().st_size for path in (folder / "after").rglob("*") if path.suffix in (".tar", ".parquet"))
    predicted = plan["wall_s"]["median"]
    return {
        "clips": clips, "profiled": sample, "workers": workers,
        "predicted_s": {"median": predicted, "min": plan["wall_s"]["p5"], "max": plan["wall_s"]["p95"]},
        "measured_s": [before, after],
        "predicted_of_measured": predicted / ((before + after) / 2),
        "storage_predicted_of_measured": sum(each["median"] for each in plan["storage_bytes"].values()) / stored,
    }  # fmt: skip


def plan_many(folder: Path, clips: int) -> dict[str, float]:
    """Time of a plan of many clips on a hundred machines, and what it says."""
    (folder / "big.yaml").write_text(BIG)
    started = time.perf_counter()
    command = ["plan", folder / "recipe.yaml", "--clips", clips, "--cluster", folder / "big.yaml"]
    plan = vidal(*command, "--profile", folder / "profile.json")
    return {"clips": clips, "s": time.perf_counter() - started, "hours": plan["wall_s"]["median"] / 3600}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.quick:
            figures = compare(folder, 8, 4, 1, 4)
            figures["many"] = plan_many(folder, 10_000)
        else:
            figures = compare(folder, given.clips, 32, given.workers, FILMS)
            figures["many"] = plan_many(folder, 10_000_000)
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
