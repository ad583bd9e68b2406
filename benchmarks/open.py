"""Time and memory of opening a large dataset, and how fast its samples are found and read.

    python benchmarks/open.py [--clips 200000]

The dataset is a manifest with texts and 22 members a clip; its tars are holes of the right size, so that what is
measured is vidal and not the disk. Memory grows with the clips: a million take five times what 200,000 do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from figures import options, show

SHARD_SIZE = 1000
_MEMBERS = {
    "video": ["mp4", *(f"frame.{k}.jpg" for k in range(8)), "json"],
    "depth": [f"depth.{k}.png" for k in range(4)],
    "infrared": [f"infrared.{k}.jpg" for k in range(4)],
    "audio": ["flac"],
    "json": ["depth", "infrared", "audio"],
}
"""22 in all; under ``json`` the layers that have one of their own."""
MEMBER_BYTES = 4096


def write(out: Path, clips: int) -> None:
    from vidal.clip import SCHEMA_VERSION
    from vidal.dataset.dataset import DatasetInfo, write_info
    from vidal.dataset.storage import Storage

    storage, shards = Storage(str(out)), -(-clips // SHARD_SIZE)
    for shard in range(shards):
        first = shard * SHARD_SIZE
        _write_shard(storage, out, shard, list(range(first, min(first + SHARD_SIZE, clips))))
    layers = ["video", "depth", "infrared", "audio"]
    write_info(storage, DatasetInfo(
        name="large", schema_version=SCHEMA_VERSION, fingerprint="0" * 16, layers=layers, candidates=clips,
        shards=shards, recipe={}, definition={}, created_by="benchmark",
    ))  # fmt: skip


def _write_shard(storage: object, out: Path, shard: int, numbers: list[int]) -> None:
    from vidal.clip import schema
    from vidal.dataset import manifest

    members, ends = _members(numbers)
    sentence = "a person walks a small dog along the harbour while boats come in and the sun goes down "
    texts = {
        "clip_id": [f"yt-{n:011d}" for n in numbers],
        "url": [f"https://www.example.org/shorts/{n:011d}" for n in numbers],
        "status": ["kept"] * len(numbers),
        "title": [f"Number {n}: {sentence[:40]}" for n in numbers],
        "hashtags": [["one", "two", f"tag{n % 999}"] for n in numbers],
        "frame_captions": [[f"{sentence[:50]} {n} {k}" for k in range(8)] for n in numbers],
        "video_caption": [f"{n} {sentence}" for n in numbers],
        "caption": [f"{n} {sentence * 2}" for n in numbers],
        "frame_hash": [f"{n:0128x}" for n in numbers],
        "shard": [shard] * len(numbers),
        "position": numbers,
        "blur": [n % 100 / 100 for n in numbers],
        "layers": [["video", "depth", "infrared", "audio"]] * len(numbers),
    }
    wanted = schema()
    columns = {
        name: members if name == "members" else pa.array(texts[name], wanted.field(name).type) if name in texts
        else pa.nulls(len(numbers), wanted.field(name).type)
        for name in wanted.names
    }  # fmt: skip
    data = manifest.table_to_parquet(pa.table(columns).cast(wanted))
    storage.write(manifest.name_of(shard), data)  # type: ignore[attr-defined]
    for layer, size in ends.items():
        path = out / layer / f"{manifest.stem_of(shard)}.tar"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as handle:
            os.truncate(handle.fileno(), size)


def _members(numbers: list[int]) -> tuple[pa.Array, dict[str, int]]:
    one = [(layer, suffix) for layer, suffixes in _MEMBERS.items() if layer != "json" for suffix in suffixes]
    one += [(layer, "json") for layer in _MEMBERS["json"]]
    place = {layer: 0 for layer, _ in one}
    layers, names, offsets, hashes = [], [], [], []
    random = np.random.default_rng(numbers[0])
    for n in numbers:
        for layer, suffix in one:
            layers.append(layer)
            names.append(f"yt-{n:011d}.{suffix}")
            offsets.append(place[layer] + 512)
            hashes.append(random.bytes(32).hex())
            place[layer] += 512 + MEMBER_BYTES
    flat = pa.StructArray.from_arrays(
        [
            pa.array(layers), pa.array(names), pa.array(offsets, pa.int64()),
            pa.array([MEMBER_BYTES] * len(names), pa.int64()), pa.array(hashes),
        ],
        names=["layer", "name", "offset", "size", "sha256"],
    )  # fmt: skip
    starts = pa.array(np.arange(0, len(names) + 1, len(one)), pa.int32())
    return pa.ListArray.from_arrays(starts, flat), {layer: size + 1024 for layer, size in place.items()}


def measure(out: str) -> dict[str, float]:
    """In a process of its own, whose memory is nobody else's."""
    import duckdb

    import vidal
    from vidal.reader.samples import Samples
    from vidal.train.data.text_views import PRESETS, TextViews

    assert Samples and duckdb, "what they take is not the dataset's memory"
    process, figures = psutil.Process(), {}
    before = process.memory_full_info().uss
    started = time.perf_counter()
    samples = vidal.open(out)
    figures["open_s"] = time.perf_counter() - started
    figures["open_mb"] = (process.memory_full_info().uss - before) / 1e6
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before / 1e6
    figures["damaged_s"] = _seconds(samples.damaged)
    figures["select_s"] = _seconds(lambda: samples.select("blur < 0.5 and caption like '%harbour%'"))
    figures["has_s"] = _seconds(lambda: samples.has("depth"))
    order = np.random.default_rng(0).integers(len(samples), size=2000)
    views, rng = TextViews(weights=PRESETS["mix"]), np.random.default_rng(0)
    figures["reads_per_s"] = _rate(order, lambda i: samples.read(i, "depth", ["depth.2.png"]))
    figures["layers_per_s"] = _rate(order, lambda i: samples.read(i, "depth"))
    figures["texts_per_s"] = _rate(order, lambda i: views.choose(samples.part(i, views.columns), rng))
    figures["rows_per_s"] = _rate(order[:300], samples.row)
    return figures


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rate(order: np.ndarray, work: Callable[[int], object]) -> float:
    return len(order) / _seconds(lambda: [work(int(i)) for i in order])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="folder to write the dataset to, used again if it is there")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = args.keep or Path(temporary)
        if not (out / "dataset.json").exists():
            write(out, 2000 if args.quick else args.clips)
        command = [sys.executable, __file__, "--measure", str(out)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    show(json.loads(said.stdout), as_json=args.json)


if __name__ == "__main__":
    main()
