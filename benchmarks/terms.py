"""Time and peak memory of `vidal terms` on a million synthetic captions, and on the lists that ship.

    python benchmarks/terms.py [--captions 1000000]

Target: the million in under 15 minutes and under 4 GB, the lists in under 60 s. One process, one thread.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import options, show

LISTS = Path(__file__).resolve().parents[1] / "manifests" / "terms"
SEED = 0
REPEATED_SHARE = 0.1
MISSPELT_SHARE = 0.02
BENCHMARK_SHARE = 0.02
ADJECTIVES = ["small", "big", "red", "old", "young", "wooden", "wet", "bright", "dark", "long", "tall", "empty"]
PLACES = ["in the", "on a", "near the", "under a", "next to the", "behind a", "in front of the", "along the"]


def caption_maker(rng: random.Random) -> object:
    """Sentences of 8 to 16 words over the nouns of ImageNet-21k and the verbs of Kinetics-400, by Zipf's law."""
    labels = (LISTS / "imagenet-21k.txt").read_text().split()
    nouns = sorted({word.lower() for word in labels if word.isalpha() and len(word) > 2})
    verbs = sorted({w for w in (LISTS / "kinetics-400.txt").read_text().split() if w.endswith("ing")})
    rng.shuffle(nouns)
    zipf = [1 / (rank + 10) for rank in range(len(nouns))]
    total = 0.0
    bounds = [total := total + each for each in zipf]

    def noun() -> str:
        (word,) = rng.choices(nouns, cum_weights=bounds)
        if rng.random() < MISSPELT_SHARE:
            place = rng.randrange(len(word))
            word = word[:place] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[place:]
        return word

    def make() -> str:
        parts = [
            "A",
            rng.choice(ADJECTIVES),
            noun(),
            "is",
            rng.choice(verbs),
            "the",
            noun(),
            rng.choice(PLACES),
            noun(),
        ]
        if rng.random() < 0.5:
            parts += ["while two", noun() + "s", "watch it"]
        return " ".join(parts) + rng.choice(["", ".", " !"])

    return make


def write_captions(folder: Path, captions: int) -> None:
    rng = random.Random(SEED)
    make = caption_maker(rng)
    assert callable(make)
    recent: list[str] = []
    with (
        (folder / "first.csv").open("w", newline="") as first,
        (folder / "second.jsonl").open("w") as second,
        (folder / "benchmark.txt").open("w") as benchmark,
    ):
        writer = csv.writer(first)
        writer.writerow(["id", "caption"])
        for n in range(captions):
            caption = rng.choice(recent) if recent and rng.random() < REPEATED_SHARE else make()
            if len(recent) < 50_000:
                recent.append(caption)
            if n % 2:
                writer.writerow([n, caption])
            else:
                second.write(json.dumps({"id": n, "text": caption}) + "\n")
            if rng.random() < BENCHMARK_SHARE:
                benchmark.write(caption + "\n")


def measure(arguments: list[str]) -> dict[str, float]:
    """Time and peak memory of the command, in a process of its own."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")}
    command = [sys.executable, "-m", "vidal", "terms", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **threads}, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {"s": time.perf_counter() - started, "cpu_s": cpu_s, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--captions", type=int, default=1_000_000)
    given = parser.parse_args()
    lists = [LISTS / "kinetics-400.txt"] if given.quick else sorted(LISTS.glob("*.txt"))
    captions, number = (500, 50) if given.quick else (given.captions, 5000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = ["--out", str(folder / "terms.parquet"), "--plot", str(folder / "terms.svg")]
        of_lists = measure([*map(str, lists), *out, "--number", str(number)])
        write_captions(folder, captions)
        sources = [f"{folder}/first.csv:caption", f"{folder}/second.jsonl:text", "--exclude", f"{folder}/benchmark.txt"]
        of_captions = measure([*sources, *out, "--number", str(min(100_000, captions // 10))])
    show({"shipped_lists": of_lists, f"{captions}_captions": of_captions}, as_json=given.json)


if __name__ == "__main__":
    main()
