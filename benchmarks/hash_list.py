"""What a list of hashes costs: CPU of a clip, and memory of the stage `hash_list`, by the length of the list.

    python benchmarks/hash_list.py [--hashes 1000000]

One list has SHA-256s of files, one perceptual hashes of frames, so many of each, drawn at random; no clip is on them,
so that each of its eight frames is compared with all. The lists are read in a process of its own, whose peak counts
from the imports on.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import options, show, spread

FRAMES = 8


def write_list(path: Path, hashes: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # One by one: the peak of a process is at least what the one that starts it holds.
    with path.open("w") as file:
        file.writelines(f"{random.bytes(size).hex()}\n" for _ in range(hashes))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: str, clips: int) -> dict[str, object]:
    from vidal.stages.hash_list import HashLists

    before, started = peak_mb(), time.process_time()
    lists = HashLists([f"{folder}/files.txt", f"{folder}/frames.txt"])
    read_s, clip_ms = time.process_time() - started, []
    random = np.random.default_rng(2)
    for _ in range(clips):
        file, frames = random.bytes(32).hex(), random.bytes(8 * FRAMES).hex()
        started = time.process_time()
        assert lists.place_of_file(file) is None and lists.nearest(frames) is not None
        clip_ms.append(1000 * (time.process_time() - started))
    return {"read_cpu_s": read_s, "clip_cpu_ms": spread(clip_ms), "peak_mb": peak_mb() - before, "imports_mb": before}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--clips", type=int, default=50)
    given = parser.parse_args()
    hashes, clips = (2000, 3) if given.quick else (given.hashes, given.clips)
    with tempfile.TemporaryDirectory() as folder:
        write_list(Path(folder, "files.txt"), hashes, 32, seed=0)
        write_list(Path(folder, "frames.txt"), hashes, 8, seed=1)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures = pool.apply(measure, (folder, clips))
    show({"hashes": hashes, **figures}, as_json=given.json)


if __name__ == "__main__":
    main()
