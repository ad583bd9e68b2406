"""Time and peak memory of what a driver does by itself, which grows with the number of candidates.

    python benchmarks/plan.py [--candidates 1000000] [--shard-size 128] [--folder FOLDER]

Each step is a process of its own: planning a list; resuming when most shards are committed; then, over manifests with
random fingerprints and planted near-duplicates but without members, the counts of `vidal status`, the decision on
duplicates up to the plan that follows it, and `vidal verify`. With ``--folder`` the files stay, and a step whose
figures are in ``figures.json`` there is not made again: ten million take hours on a machine with other work.

Target: planning and resuming a million each under 60 s; every step of ten million under 3 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from figures import log, options, show

COMMITTED_SHARE = 0.95
STEPS = ("plan", "resume", "write_manifests", "status", "duplicates", "verify")


def write_list(path: Path, candidates: int) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clip_id", "url", "title", "hashtags", "uploader"])
        for n in range(candidates):
            url = f"https://example.org/shorts/{n * 2_654_435_761 % 2**40:011x}"
            title = f"Short number {n} about cats, trains and the sea"
            writer.writerow([f"yt-{n:011x}", url, title, "#cat #train #sea", f"uploader {n % 5000}"])


def write_recipe(folder: Path, shard_size: int) -> None:
    path = folder / "recipe.yaml"
    stages = {"source": {"list": "candidates.csv"}, "shards": {"size": shard_size}, "stages": ["fetch", "probe"]}
    path.write_text(json.dumps(stages))


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


def commit_most(out: Path) -> None:
    """What committed shards look like to a driver that resumes: files with their names."""
    from vidal.dataset.plan import Plan
    from vidal.dataset.storage import Storage

    (out / "manifest").mkdir(exist_ok=True)
    for shard in range(int(Plan(Storage(str(out))).shard_count * COMMITTED_SHARE)):
        (out / "manifest" / f"{shard:06d}.parquet").touch()


def write_manifests(out: Path) -> None:
    """Manifests of the whole plan: nine of ten clips are kept and fingerprinted, a twentieth repeat another clip.

    Those that a run that was stopped has written stay.
    """
    import pyarrow as pa

    from vidal.clip import manifest_schema
    from vidal.dataset import manifest
    from vidal.dataset.dataset import Dataset

    dataset = Dataset.open(str(out))
    schema = manifest_schema(dataset.extra_schema)
    schema = schema.with_metadata({**schema.metadata, "vidal.fingerprint": dataset.info.fingerprint})
    for number, rows in enumerate(dataset.plan.parts(dataset.plan.schema.names).to_batches()):
        last = out / manifest.name_of(rows["shard"][-1].as_py())
        if last.exists() and last.stat().st_size:
            continue
        columns = dict(zip(rows.schema.names, rows.columns, strict=True)) | fingerprints(rows.num_rows, number)
        nothing = {f.name: [[]] * rows.num_rows for f in schema if pa.types.is_list(f.type)}
        columns = nothing | {"attempts": [1] * rows.num_rows} | columns
        arrays = [pa.array(columns.get(f.name, [None] * rows.num_rows)).cast(f.type) for f in schema]
        table = pa.table(arrays, schema=schema)
        for begin in range(0, rows.num_rows, dataset.plan.shard_size):
            shard = table.slice(begin, dataset.plan.shard_size)
            path = out / manifest.name_of(shard["shard"][0].as_py())
            path.with_suffix(".new").write_bytes(manifest.table_to_parquet(shard))
            path.with_suffix(".new").rename(path)


def fingerprints(count: int, seed: int) -> dict[str, object]:
    """Columns of what the decision reads; every twentieth clip is the one before it with a bit of each hash flipped."""
    import numpy as np
    import pyarrow as pa

    generator = np.random.default_rng(seed)
    hashes = generator.integers(1, 2**63, (count, 8), dtype=np.uint64)
    duration_s = generator.uniform(3, 60, count)
    copies = np.arange(19, count, 20)
    hashes[copies], duration_s[copies] = hashes[copies - 1] ^ np.uint64(2), duration_s[copies - 1]
    digits, digests = hashes.astype(">u8").tobytes().hex(), generator.bytes(32 * count).hex()
    ends = np.concatenate([[0], np.cumsum(generator.integers(40, 120, count))]).astype(np.int32)
    is_kept = np.arange(count) % 10 != 4
    return {
        "status": np.where(is_kept, "kept", "failed"),
        "stage": pa.array(np.where(is_kept, None, "fetch"), pa.string()),
        "reason": pa.array(np.where(is_kept, None, "gone"), pa.string()),
        "source_sha256": [digests[n : n + 64] for n in range(0, len(digests), 64)],
        "frame_hash": [digits[n : n + 128] for n in range(0, len(digits), 128)],
        "audio_fingerprint": pa.ListArray.from_arrays(ends, generator.integers(0, 2**32, ends[-1])),
        "duration_s": duration_s,
        "has_audio": np.ones(count, np.bool_),
        "source_bytes": generator.integers(1, 10**7, count),
    }


def decide_duplicates(folder: Path) -> int:
    """The plan of the phase behind the decision; gives the number of its rejected clips."""
    import pyarrow.compute as pc

    from vidal.dataset import plan as plans
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.storage import Storage
    from vidal.engine.decided import decided_plan
    from vidal.stages.duplicates import Duplicates

    earlier, after = Dataset.open(str(folder / "out")), Storage(str(folder / "after"))
    plans.write_cuts(after, decided_plan(earlier, Duplicates()), earlier.plan.cuts)
    rejected = (pc.equal(batch["reason"], "duplicate") for batch in plans.Plan(after).parts(["reason"]).to_batches())
    return sum(pc.sum(each).as_py() or 0 for each in rejected)


def count_outcomes(folder: Path) -> int:
    from vidal.dataset.dataset import Dataset
    from vidal.report.outcomes import outcomes

    return outcomes(Dataset.open(str(folder / "out"))).num_rows


def count_problems(folder: Path) -> int:
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.verify import verify

    return sum(1 for _ in verify(Dataset.open(str(folder / "out"))))


def measure(step: str, folder: Path) -> dict[str, float]:
    """Take a step, and give its time, its peak memory and what it found."""
    started = time.perf_counter()
    if step == "plan":
        found = {"shards_to_do": drive(folder)}
    elif step == "resume":
        commit_most(folder / "out")
        started = time.perf_counter()
        found = {"shards_to_do": drive(folder)}
    elif step == "write_manifests":
        write_manifests(folder / "out")
        found = {}
    elif step == "status":
        found = {"outcomes": count_outcomes(folder)}
    elif step == "duplicates":
        found = {"rejected": decide_duplicates(folder)}
    else:
        found = {"problems": count_problems(folder)}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {"s": time.perf_counter() - started, "cpu_s": cpu_s, "peak_mb": usage.ru_maxrss / 1024, **found}


def in_a_process_of_its_own(step: str, folder: Path) -> dict[str, float]:
    """So that the peak is its own: a child's is at least what its parent has, which imports nothing large."""
    command = [sys.executable, __file__, "--measure", step, str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    log(f"{step}: {figures}")
    return figures


def measure_all(folder: Path, candidates: int, shard_size: int) -> dict[str, dict[str, float]]:
    """Take every step whose figures are not in the folder yet."""
    path, figures = folder / "figures.json", dict[str, dict[str, float]]()
    if path.exists():
        figures = json.loads(path.read_text())
    elif not (folder / "recipe.yaml").exists():
        write_list(folder / "candidates.csv", candidates)
        write_recipe(folder, shard_size)
    for step in (step for step in STEPS if step not in figures):
        figures[step] = {**in_a_process_of_its_own(step, folder), "load": os.getloadavg()[0]}
        path.write_text(json.dumps(figures))
    return figures


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--folder", help="where the files go, and stay; its steps are of one size")
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        step, name = given.measure
        print(json.dumps(measure(step, Path(name))))
        return
    candidates = 1000 if given.quick else given.candidates
    with contextlib.nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory() as name:
        Path(name).mkdir(parents=True, exist_ok=True)
        steps = measure_all(Path(name), candidates, given.shard_size)
    show({"candidates": candidates, "shard_size": given.shard_size, **steps}, as_json=given.json)


if __name__ == "__main__":
    main()
