"""What `vidal plan` says of a build, from a profile of 32 clips, against that build as measured; and its own time.

    python benchmarks/estimate.py [--clips 500] [--workers 2]
    python benchmarks/estimate.py --shape [--json]

Clips are drawn by FFmpeg, 0.5 to 3 s long, and go through `fetch`, `probe`, a filter and `media` by the local engine.
The build is made before and after the profile, as the machine may have other work; the ratio is to the mean of the two.
Target: within 20 %, and ten million clips on a hundred machines, which fail, in under a minute.

``--shape`` prints the plan of ten million clips from a synthetic profile, `COSTS`, on a hundred machines, `CLUSTER`.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from figures import log, options, show

FILMS = 25
SHARD_SIZE = 8
SIZES = ("320x180", "480x270", "640x360")
BIG = """
nodes:
  - {kind: cpu, count: 84, cpus: 16, failures_per_h: 0.05}
  - {kind: spare, count: 16, cpus: 16, failures_per_h: 0.2}
"""
COSTS: tuple[dict[str, tuple[int, float, float, float]], ...] = (
    {"fetch": (0, 1.2, 1.0, 1.0), "probe": (0, 0.05, 0.0, 0.9), "fingerprints": (0, 0.5, 0.0, 0.8)},
    {
        "media": (0, 1.5, 1.0, 0.7), "ocr": (0, 1.0, 5.0, 0.7), "depth": (1, 0.12, 40.0, 0.6),
        "infrared": (1, 0.1, 20.0, 0.6), "text_match": (2, 0.05, 1.0, 0.6),
    },
)  # fmt: skip
"""Of each phase, a stage's group (1 has GPUs), mean worker seconds of a clip and seconds to load it, all invented, and
the share of clips that reach it."""
MB_A_CLIP = ({"video": 2.0, "manifest": 0.003}, {"video": 1.0, "depth": 0.9, "infrared": 0.2, "audio": 0.2})
CLUSTER: dict[str, Any] = {
    "nodes": [
        {"kind": "cpu", "count": 84, "cpus": 16, "price_per_h": 0.7, "failures_per_h": 0.02},
        {"kind": "gpu", "count": 16, "cpus": 32, "gpus": 4, "price_per_h": 8.0, "failures_per_h": 0.05},
    ],
    "store": {"gbit_s": 100, "price_per_gb_month": 0.02},
}


def synthetic_profile() -> dict[str, Any]:
    """A profile of 64 candidates whose costs are those of `COSTS`, lognormal about their mean."""
    import numpy as np

    generator, count, phases = np.random.default_rng(0), 64, list[dict[str, Any]]()
    for costs, sizes in zip(COSTS, MB_A_CLIP, strict=True):
        stages = []
        for name, (group, mean_s, setup_s, share) in costs.items():
            spread = generator.lognormal(-0.18, 0.6, count)
            seconds = np.where(np.arange(count) < share * count, mean_s * spread, 0.0)
            stages.append(
                {
                    "name": name, "group": group, "gpus": float(group == 1), "setup_s": setup_s, "clips": count,
                    "rejected": 0, "failed": 0, "seconds": seconds.tolist(), "cpu_s": float(seconds.sum()),
                }
            )  # fmt: skip
        shares = np.arange(count) < costs[stages[-1]["name"]][3] * count
        phases.append({
            "start_s": 10.0, "stages": stages,
            "bytes": {name: (1e6 * size * shares).tolist() for name, size in sizes.items()},
        })  # fmt: skip
    return {
        "recipe": "synthetic", "made_by": "benchmarks/estimate.py", "engine": "ray", "workers": 16, "has_gpu": True,
        "candidates": count, "kept": round(0.6 * count), "shard_size": 128, "gpu_workers": None,
        "source_bytes": [2e6] * count, "peak_bytes": 2 * 10**9, "phases": phases, "hosts": [],
    }  # fmt: skip


def shape(folder: Path, clips: int) -> dict[str, Any]:
    """What `vidal plan` says of a build of the synthetic profile, with and without machines that are lost."""
    stages = [*COSTS[0], "duplicates", *COSTS[1]]
    (folder / "recipe.yaml").write_text(json.dumps({"source": {"urls": ["https://example.org"]}, "stages": stages}))
    (folder / "profile.json").write_text(json.dumps(synthetic_profile()))
    calm = [{**node, "failures_per_h": 0} for node in CLUSTER["nodes"]]
    plans, started = {}, time.perf_counter()
    for name, cluster in {"as_it_is": CLUSTER, "without_losses": {**CLUSTER, "nodes": calm}}.items():
        (folder / "cluster.yaml").write_text(json.dumps(cluster))
        command = ["plan", folder / "recipe.yaml", "--clips", clips, "--cluster", folder / "cluster.yaml"]
        plans[name] = vidal(*command, "--profile", folder / "profile.json")
    seconds_s, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    plan, built = plans["as_it_is"], plans["as_it_is"]["shape"]
    hours = built["wall_s"] / 3600
    ends = [0.0, *(hours * end for end in built["phase_ends"])]
    return {
        "clips": clips, "s_of_a_plan": seconds_s / 2, "cpu_s_of_a_plan": cpu_s / 2,
        "hours": {name: value / 3600 for name, value in plan["wall_s"].items()},
        "hours_of_phases": [end - begin for begin, end in itertools.pairwise(ends)],
        "busy_in_its_phase": plan["busy"],
        "one_more_saves_hours": {kind: more["saved_s"] / 3600 for kind, more in plan["one_more"].items()},
        "one_more_costs": {kind: more["costs"] for kind, more in plan["one_more"].items()},
        "machines_lost": built["machines_lost"], "shards_again": built["shards_again"],
        "hours_without_losses": plans["without_losses"]["wall_s"]["median"] / 3600,
        "tail_share": built["tail_share"], "cost": plan["cost"]["median"],
        "storage_tb": {name: size["median"] / 1e12 for name, size in plan["storage_bytes"].items()},
        "storage_price_per_month": plan["storage_price_per_month"],
        "clips_per_s": built["clips_per_s"], "hours_by_shards_of_an_execution": hours_by_execution(clips),
    }  # fmt: skip


def hours_by_execution(clips: int) -> dict[str, float]:
    """How long the same build takes by the shards that an execution on Ray has for each worker, but for 2,000."""
    import numpy as np

    from vidal.estimate import simulation
    from vidal.estimate.cluster import Cluster
    from vidal.estimate.profile import Profile
    from vidal.estimate.work import work_of

    profile, cluster = Profile.model_validate(synthetic_profile()), Cluster.model_validate(CLUSTER)
    hours = {}
    for rounds in (None, 4, 16, 64):
        at_once = partial(lambda rounds, workers: max(2_000, workers * (rounds or 0)), rounds)
        with mock.patch.object(simulation, "shards_per_execution", side_effect=at_once):
            rng, machines = np.random.default_rng(0), cluster.machines()
            built = simulation.simulate(work_of(profile, cluster), machines, clips, profile.shard_size, rng)
        hours[f"{rounds} a worker" if rounds else "2,000"] = built.wall_s / 3600
    return hours


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
    parser.add_argument("--shape", action="store_true", help="only the plan of ten million from a synthetic profile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.shape:
            figures = shape(folder, 10_000 if given.quick else 10_000_000)
        elif given.quick:
            figures = compare(folder, 4, 2, 1, 2)
            figures["many"] = plan_many(folder, 10_000)
        else:
            figures = compare(folder, given.clips, 32, given.workers, FILMS)
            figures["many"] = plan_many(folder, 10_000_000)
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
