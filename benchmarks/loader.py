"""Samples per second of the loader against stock webdataset, on the depth layer, as a ratio.

    python benchmarks/loader.py [--repeat 5]

(a) webdataset reads tars into which all layers were packed jointly, ours the depth layer's own tars: at least 2 times.
(b) both read the depth layer's own tars: at least 0.95.

A clip is as one of VIDAL's: ten seconds of 720p in 2 MB, and images and audio as large as the sample dataset's. The
ratio of (a) depends on what there is to read past: ``--mp4-kb 377`` has the sample's small video.

Either side takes one of the eight depth images at random and the caption of each clip, decodes and transforms it
with the very same functions, in as many worker processes of one thread each. Ours shuffles globally and reads single
members in random order; webdataset shuffles shards, reads tars from front to back, and shuffles in a buffer. It is also
measured with ``select_files``, which lets it leave other members out as they stream by. The page cache is warm. Rates
are those once the first batch is there, as a run of hours has them; those with the start of the workers stand beside
them. All take turns, so that the machine's load hits them alike; ratios are computed within each turn, and medians are
printed with their range.

    python benchmarks/loader.py --store slow-s3 [--peer PYTHON]

races vidal, webdataset and, with ``--peer``, litdata and mosaicml-streaming on an S3 server on loopback that takes 50
ms a request, gives each connection 20 MB/s, and fails 5 % of all requests (`loader_store.py`). ``PYTHON`` is that of
an environment of its own, made with

    uv venv --python 3.11 DIR && uv pip install --python DIR/bin/python -r benchmarks/peers/loader.txt

A clip is eight JPEG frames and a caption, 150 KB; each reader takes one of the frames at random and decodes and
transforms it with vidal's functions, in two workers. vidal and webdataset read the same tars, litdata and streaming
their own formats in chunks of 16 MB. Cold is an epoch without anything in a cache; warm is another with what that left.
webdataset runs with `warn_and_continue`, and without a handler; its cold epoch streams, and a further one fills its
cache. What the server counted, and what was lost or repeated of the epoch, stands beside the rates.

The rate after the first batch leaves out what was made by then: the three others make up to eight batches ahead, half
of an epoch of 1,024 clips, a sixteenth of one of ``--clips 8192``, and some fetch whole chunks first. The rate with the
start, and the CPU time of a sample of the whole epoch, count all work; on busy cores the CPU time says more than the
clock.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import soundfile
import torch
import webdataset as wds
from figures import log, options, show, spread
from loader_slow import ENTRIES, race, table
from loader_store import Faults

import vidal
from vidal.clip import SCHEMA_VERSION
from vidal.dataset import plan as plans
from vidal.dataset import planning
from vidal.dataset.commit import ShardWriter
from vidal.dataset.dataset import Dataset, DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.export.export import write_joint
from vidal.modality.depth import DEPTH, DepthTransform
from vidal.record import from_row
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import TextViews
from vidal.work import SAMPLE_RATE, Member

GOALS = {"webdataset, joint tars": 2.0, "webdataset, depth tars": 0.95}
LAYERS = ["video", "depth", "infrared", "audio"]
WIDTH, HEIGHT, FRAMES, DURATION_S = 256, 455, 8, 7
PAIR = ("text", "depth")
# As the depth stage writes them.
PNG = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP, cv2.IMWRITE_PNG_COMPRESSION, 4]
TRANSFORM = DepthTransform()
BUFFER = 1000


def write_set(
    out: Path, clips: int, shard_size: int, mp4_bytes: int, workers: int, layers: Sequence[str] = LAYERS
) -> None:
    """Clips whose images and audio have the sizes of the sample dataset's; what they show does not matter."""
    storage = Storage(str(out))
    out.mkdir(parents=True)
    rows = [{"clip_id": f"c{n:05d}", "url": f"synthetic:{n}", "title": f"clip {n}"} for n in range(clips)]
    plans.write(storage, planning.make(pa.Table.from_pylist(rows), shard_size=shard_size, seed=0), shard_size)
    shards = plans.Plan(storage).shard_count
    write_info(storage, DatasetInfo(
        name="loader", schema_version=SCHEMA_VERSION, fingerprint="0", layers=list(layers), candidates=clips,
        shards=shards, recipe={}, definition={}, created_by="benchmarks/loader.py",
    ))  # fmt: skip
    write = partial(_write_shard, str(out), mp4_bytes=mp4_bytes, layers=list(layers))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else nullcontext() as pool:
        list((pool.map if pool else map)(write, range(shards)))


def _write_shard(out: str, shard: int, mp4_bytes: int, layers: list[str]) -> None:
    cv2.setNumThreads(1)
    storage = Storage(out)
    plan, rng, times = plans.Plan(storage), np.random.default_rng(shard), [k + 0.5 for k in range(FRAMES)]
    extra = plan.extra_schema()
    with tempfile.TemporaryDirectory() as scratch, ShardWriter(storage, shard, layers, Path(scratch), extra) as writer:
        for row in plan.rows(shard):
            clip = from_row(row)
            clip.status, clip.duration_s, clip.has_audio, clip.fingerprint = "kept", float(DURATION_S), True, "0"
            clip.frame_times, clip.frame_width, clip.frame_height = times, WIDTH, HEIGHT
            clip.caption, clip.caption_model = f"what clip {clip.clip_id} shows", "none"
            for member in _members(rng, times, mp4_bytes, layers):
                clip.work.put(member)
            writer.add(clip)
        writer.commit({"fingerprint": "0"})


def _members(rng: np.random.Generator, times: list[float], mp4_bytes: int, layers: Sequence[str]) -> Iterator[Member]:
    if mp4_bytes:
        yield Member(layer="video", suffix="mp4", data=rng.bytes(mp4_bytes))
    coarse = rng.uniform(0, 1, (7, 4, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 0.002, (HEIGHT, WIDTH, 3)).astype(np.float32)
    for k, time_s in enumerate(times):
        scene = np.roll(smooth, 3 * k, axis=1)
        colour = ((scene + grain).clip(0, 1) * 255).astype(np.uint8)
        depth = (500 + scene[..., 0] * 6000).clip(1, 10_000).astype(np.uint16)
        for layer, name, image, settings in (
            ("video", f"frame.{k}.jpg", colour, []),
            ("depth", f"depth.{k}.png", depth, PNG),
            ("infrared", f"infrared.{k}.jpg", (scene[..., 0].clip(0, 1) * 60).astype(np.uint8), []),
        ):
            if layer in layers:
                data = cv2.imencode(name[-4:], image, settings)[1].tobytes()
                yield Member(layer=layer, suffix=name, data=data, time_s=time_s)
    if "audio" not in layers:
        return
    audio = io.BytesIO()
    # Loud enough that FLAC needs half of its bits.
    soundfile.write(audio, rng.normal(0, 0.01, DURATION_S * SAMPLE_RATE), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    yield Member(layer="audio", suffix="flac", data=audio.getvalue())


def ours(folder: Path, epochs: int, batch: int, workers: int, seed: int) -> Iterator[int]:
    """Valid rows of each batch."""
    samples = vidal.open(str(folder))
    plan = SamplePlan([SidesPlan(sides=PAIR, sizes=(len(samples),))], batch_size=batch, seed=seed, epochs=epochs)
    index = {PAIR: [np.arange(len(samples))]}
    loader = Loader([samples], index, plan, {"depth": TRANSFORM}, TextViews(), seed=seed, workers=workers)
    for made in loader:
        # The device's part of the transform, here done by the process that takes the batches.
        pixels = made.inputs["depth"][:]
        assert pixels.shape[1:] == (3, TRANSFORM.size, TRANSFORM.size) and all(made.texts)
        yield int(made.valid.sum())


def stock(tars: list[Path], epochs: int, batch: int, workers: int, seed: int, select: bool = False) -> Iterator[int]:
    """The same with webdataset's own parts."""
    keys: dict[str, Any] = {"select_files": _is_wanted} if select else {}
    urls = [str(tar) for tar in tars]
    dataset = wds.WebDataset(urls, shardshuffle=len(urls), seed=seed, **keys).shuffle(BUFFER, seed=seed)
    loader: Any = wds.WebLoader(
        dataset.map(_row).batched(batch), batch_size=None, num_workers=workers, worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    for _ in range(epochs):
        for pixels, texts in loader:
            assert pixels.shape[1:] == (3, TRANSFORM.size, TRANSFORM.size) and len(texts) == len(pixels)
            yield len(pixels)


def _is_wanted(name: str) -> bool:
    return ".depth." in name or name.endswith(".json")


def _row(sample: dict[str, Any]) -> tuple[torch.Tensor, str]:
    rng = np.random.default_rng()
    stored = list(DEPTH.members(list(sample)).values())
    wanted = [stored[k] for k in TRANSFORM.frames_to_read(len(stored), rng)]
    pixels = TRANSFORM(DEPTH.decode({name: sample[name] for name in wanted}), rng)
    return pixels, json.loads(sample["json"])["caption"]


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def rate(batches: Iterator[int], expected: int) -> tuple[float, float]:
    """Samples per second once the first batch is there, and with the start of the workers and the first batch."""
    begun = time.perf_counter()
    first = next(batches)
    started = time.perf_counter()
    count = first + sum(batches)
    ended = time.perf_counter()
    assert count == expected, f"{count} of {expected} samples"
    return (count - first) / (ended - started), count / (ended - begun)


def measure(folder: Path, joint: Path, given: argparse.Namespace) -> dict[str, Any]:
    expected = given.clips * given.epochs
    settings = (given.epochs, given.batch, given.workers)
    joint_tars, layer_tars = sorted(joint.glob("*.tar")), sorted((folder / "depth").glob("*.tar"))
    runs: dict[str, Callable[[int], Iterator[int]]] = {
        "ours": lambda seed: ours(folder, *settings, seed),
        "webdataset, joint tars": lambda seed: stock(joint_tars, *settings, seed),
        "webdataset, joint tars, select_files": lambda seed: stock(joint_tars, *settings, seed, select=True),
        "webdataset, depth tars": lambda seed: stock(layer_tars, *settings, seed),
    }
    warm = [path.read_bytes() for path in (*joint_tars, *layer_tars)]
    sizes = [sum(map(len, warm[: len(joint_tars)])), sum(map(len, warm[len(joint_tars) :]))]
    del warm
    rates: dict[str, list[float]] = {name: [] for name in runs}
    with_start: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(given.repeat):
        for name in runs if seed % 2 == 0 else reversed(runs):
            steady, whole = rate(runs[name](seed), expected)
            rates[name].append(steady)
            with_start[name].append(whole)
    ours_is = {
        f"ours_against_{name}{suffix}": spread([a / b for a, b in zip(all_of["ours"], of, strict=True)])
        for suffix, all_of in (("", rates), (", with start", with_start))
        for name, of in all_of.items()
        if name != "ours"
    }
    return {
        "samples_per_s": {name: spread(of) for name, of in rates.items()},
        "samples_per_s_with_start": {name: spread(of) for name, of in with_start.items()}, **ours_is,
        "mb_per_clip": {"joint": sizes[0] / given.clips / 1e6, "depth": sizes[1] / given.clips / 1e6},
        "clips": given.clips, "epochs": given.epochs, "workers": given.workers, "batch": given.batch,
        "repeat": given.repeat,
    }  # fmt: skip


def local(scratch: Path, given: argparse.Namespace) -> int:
    folder, joint = scratch / "set", scratch / "joint"
    write_set(folder, given.clips, given.shard_size, given.mp4_kb * 1000, given.workers)
    joint.mkdir()
    write_joint(Dataset.open(str(folder)), str(joint))
    figures = measure(folder, joint, given)
    show(figures, as_json=given.json)
    missed = [name for name, goal in GOALS.items() if figures[f"ours_against_{name}"]["median"] < goal]
    return _verdict(missed, given)


def slow(scratch: Path, given: argparse.Namespace) -> int:
    write_set(scratch / "set", given.clips, given.shard_size, 0, given.workers, layers=["video"])
    figures = race(scratch / "set", scratch, Faults(errors=given.errors), given)
    if not given.json:
        print(table(figures), end="\n\n")
    runs = figures["runs"] if given.json else figures.pop("runs")
    show(figures, as_json=given.json)
    missed = []
    for cache in ("cold", "warm"):
        ours, rates = runs[f"vidal, {cache}"], {name: of["samples/s with start"] for name, of in runs.items()}
        missed += [name for name, of in rates.items() if cache in name and of > ours["samples/s with start"]]
        missed += [f"lost or repeated, {cache}"] if ours["lost"] or ours["repeated"] or ours["error"] else []
    return _verdict(missed, given)


def _verdict(missed: Sequence[str], given: argparse.Namespace) -> int:
    if missed and not given.quick:
        log(f"missed: {', '.join(missed)}")
    return 1 if missed and not given.quick else 0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--store", choices=["local", "slow-s3"], default="local")
    parser.add_argument("--clips", type=int, help="a multiple of 64")
    parser.add_argument("--epochs", type=int, default=4, help="in each turn, on the local disk")
    parser.add_argument("--repeat", type=int, help="turns of each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mp4-kb", type=int, default=2000, help="of each clip; 377 is the sample dataset's mean")
    parser.add_argument("--errors", type=float, default=0.05, help="share of the requests that the slow store fails")
    parser.add_argument("--peer", metavar="PYTHON", help="Python of an environment with litdata and streaming")
    parser.add_argument(
        "--against", metavar="NAME", nargs="+", choices=[e.name for e in ENTRIES], help="of the race: by default all"
    )
    given = parser.parse_args()
    is_local = given.store == "local"
    given.clips, given.repeat = given.clips or (512 if is_local else 1024), given.repeat or (5 if is_local else 3)
    given.shard_size = 64
    if given.quick:
        given.clips, given.epochs, given.repeat, given.batch, given.mp4_kb, given.workers = 8, 1, 1, 2, 10, 1
        given.shard_size = 4
    warnings.filterwarnings("ignore", module="webdataset")
    with tempfile.TemporaryDirectory() as scratch:
        raise SystemExit((local if is_local else slow)(Path(scratch), given))


if __name__ == "__main__":
    main()
