"""How fast the viewer answers at a million rows: the first page, a sorted page, a search, a slider.

    python benchmarks/view.py [--clips 1000000]             the answers, over HTTP
    python benchmarks/view.py [--clips 1000000] --browser   the page, as headless Chromium shows it

The dataset is manifests only, with texts, eight stored numbers and 22 members a clip; no media is read.
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from figures import options, show, spread
from view_page import measure_page

from tools.browser import chromium

SHARD_SIZE = 1000
_SUFFIXES = [
    "mp4", *(f"frame.{k}.jpg" for k in range(8)), *(f"depth.{k}.png" for k in range(6)),
    *(f"infrared.{k}.jpg" for k in range(6)), "flac",
]  # fmt: skip
_NUMBERS = ("blur", "motion", "luma_mean", "duration_s", "silence_share", "speech_share", "ocr_area_share", "fps")
_SENTENCE = "a person walks a small dog along the harbour while boats come in and the sun goes down"


def write(out: Path, clips: int, seed: int = 0) -> None:
    """Write a dataset of manifests, whose numbers are drawn by the seed; every tenth clip is rejected."""
    from vidal.clip import SCHEMA_VERSION, manifest_schema, schema
    from vidal.dataset import manifest
    from vidal.dataset.dataset import DatasetInfo, write_info
    from vidal.dataset.storage import Storage

    storage, wanted, random = Storage(str(out)), schema(), np.random.default_rng(seed)
    members = _members(random)
    for shard, first in enumerate(range(0, clips, SHARD_SIZE)):
        numbers = np.arange(first, min(first + SHARD_SIZE, clips))
        rejected = numbers % 10 == 0
        columns: dict[str, Any] = {
            "clip_id": [f"yt-{n:011d}" for n in numbers],
            "url": [f"https://www.example.org/shorts/{n:011d}" for n in numbers],
            "shard": [shard] * len(numbers),
            "position": numbers,
            "status": np.where(rejected, "rejected", "kept"),
            "stage": [("too_blurry", "too_long")[n % 20 // 10] if n % 10 == 0 else None for n in numbers],
            "reason": [("too_blurry", "too_long")[n % 20 // 10] if n % 10 == 0 else None for n in numbers],
            "title": [f"Number {n}: {_SENTENCE[: 20 + n % 40]}" for n in numbers],
            "video_caption": [f"{n} {_SENTENCE}" for n in numbers],
            "caption": [f"{n} {_SENTENCE} {n}" for n in numbers],
            "members": members.slice(0, len(numbers)),
        } | {name: random.random(len(numbers)) for name in _NUMBERS}
        hashes = random.integers(1, 2**63, (len(numbers), 8)).astype(">u8")
        columns["frame_hash"] = [frames.tobytes().hex() for frames in hashes]
        table = pa.table({
            field.name: pa.array(columns[field.name], field.type) if field.name in columns
            else pa.nulls(len(numbers), field.type)
            for field in wanted
        }).cast(manifest_schema())  # fmt: skip
        storage.write(manifest.name_of(shard), manifest.table_to_parquet(table))
    write_info(storage, DatasetInfo(
        name="large", schema_version=SCHEMA_VERSION, fingerprint="0" * 16, candidates=clips, layers=["video"],
        shards=-(-clips // SHARD_SIZE), definition={},
        recipe={"stages": [{"name": "too_blurry", "settings": {"max_blur": 12.0}}]}, created_by="benchmark",
    ))  # fmt: skip


def _members(random: np.random.Generator) -> pa.Array:
    """Return the members of a shard, the same for every shard but as large as any."""
    from vidal.clip import schema

    flat = [
        {"layer": suffix.partition(".")[0], "name": f"yt-{n:011d}.{suffix}", "offset": 4608 * n, "size": 4096,
         "sha256": random.bytes(32).hex()}
        for n in range(SHARD_SIZE) for suffix in _SUFFIXES
    ]  # fmt: skip
    one = len(_SUFFIXES)
    return pa.array([flat[n : n + one] for n in range(0, len(flat), one)], schema().field("members").type)


def measure(out: Path) -> dict[str, float]:
    """Ask a server in this process over HTTP, from its start on."""
    import threading

    from vidal.dataset.dataset import Dataset
    from vidal.view.api import Api
    from vidal.view.server import Server, serve

    figures, started = {}, time.perf_counter()
    server = Server(Api(Dataset.open(str(out))))
    threading.Thread(target=serve, args=[server], daemon=True).start()

    def ask(answer: str, **parameters: Any) -> float:
        begun = time.perf_counter()
        with urllib.request.urlopen(f"{server.url}api/{answer}?{urllib.parse.urlencode(parameters)}") as response:
            assert json.load(response)
        return time.perf_counter() - begun

    ask("clips")
    figures["start_and_first_page_s"] = time.perf_counter() - started
    figures["summary_s"] = ask("summary")
    figures["sorted_page_s"] = ask("clips", sort="blur", order="desc")
    figures["next_sorted_page_s"] = ask("clips", sort="blur", order="desc", offset=50)
    figures["condition_page_s"] = ask("clips", where="blur < 0.3 and motion > 0.5")
    figures["search_page_s"] = ask("clips", search="NUMBER 77")
    figures["histogram_s"] = ask("histogram", column="blur")
    figures["slider_first_s"] = ask("count", bound="motion>=0.5")
    slides = [ask("count", bound=f"motion>={n / 20}") for n in range(20)]
    figures["slider_s"], figures["slider_max_s"] = spread(slides)["median"], max(slides)
    figures["clip_s"] = ask("clip", clip=f"yt-{0:011d}", shard=0)
    server.shutdown()
    return figures


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="folder to write the dataset to, used again if it is there")
    parser.add_argument("--browser", action="store_true", help="measure the page in headless Chromium")
    args = parser.parse_args()
    executable = chromium() if args.browser else None
    if args.browser and executable is None:
        parser.exit(2, "no Chromium is installed; without --browser the answers are measured over HTTP\n")
    with tempfile.TemporaryDirectory() as temporary:
        out = args.keep or Path(temporary)
        if not (out / "dataset.json").exists():
            write(out, 2000 if args.quick else args.clips)
        figures = measure_page(out, executable) if executable else measure(out)
    show(figures, as_json=args.json)


if __name__ == "__main__":
    main()
