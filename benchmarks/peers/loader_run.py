"""One loader's part in the race on a slow object store: ``write`` its format, or ``read`` an epoch; JSON on stdout.

    python loader_run.py write litdata|streaming SET OUT
    python loader_run.py read vidal|webdataset|litdata|streaming SETTINGS

``SET`` has one file per frame and clip, ``SETTINGS`` is a JSON object. It is run by the Python of the environment that
has the loader, and imports of vidal only what all of them decode and transform with.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidal.modality.video import VIDEO, VideoTransform

FRAMES = 8
TRANSFORM = VideoTransform(frames=1)
CHUNK_BYTES = 16 << 20
"""Of litdata's chunks and of streaming's shards: the size of the tars. With their default, 64 MB, the set would have
one or two for each worker."""
MODULES = {
    "vidal": ["vidal.reader.samples", "vidal.train.data.loader", "s3fs"], "webdataset": ["webdataset"],
    "litdata": ["litdata"], "streaming": ["streaming"],
}  # fmt: skip
CAPTION = "caption"
Row = tuple[torch.Tensor, bool, str, str]
"""Pixels, whether the device is to mirror them, caption, id of the clip."""


def row(frame: Callable[[int], bytes], caption: str, clip_id: str) -> Row:
    """Decode and transform one of the frames at random."""
    rng = np.random.default_rng()
    (k,) = TRANSFORM.frames_to_read(FRAMES, rng)
    name = f"frame.{k}.jpg"
    prepared = TRANSFORM.prepare(VIDEO.decode({name: frame(k)}), rng)
    return prepared.values, prepared.is_mirrored, caption, clip_id


def of_fields(sample: dict[str, Any]) -> Row:
    return row(lambda k: bytes(sample[f"frame{k}"]), str(sample[CAPTION]), str(sample["clip_id"]))


def fields(clip: Path) -> dict[str, Any]:
    frames = {f"frame{k}": (clip / f"{k}.jpg").read_bytes() for k in range(FRAMES)}
    return {"clip_id": clip.name, CAPTION: (clip / "caption.txt").read_text(), **frames}


def batches(loader: Any) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """The pixels as the tower takes them, and the ids, of every batch of rows."""
    for values, mirrored, captions, clip_ids in loader:
        assert all(captions)
        yield TRANSFORM.finish(values, mirrored), list(clip_ids)


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def write_litdata(clips: list[Path], out: str) -> None:
    import litdata

    inputs = [str(clip) for clip in clips]
    litdata.optimize(_fields_of, inputs, out, chunk_bytes=CHUNK_BYTES, num_workers=1, verbose=False)


def _fields_of(clip: str) -> dict[str, Any]:
    return fields(Path(clip))


def write_streaming(clips: list[Path], out: str) -> None:
    from streaming import MDSWriter

    columns = {"clip_id": "str", CAPTION: "str"} | {f"frame{k}": "bytes" for k in range(FRAMES)}
    with MDSWriter(out=out, columns=columns, size_limit=CHUNK_BYTES) as writer:
        for clip in clips:
            writer.write(fields(clip))


def read_vidal(given: dict[str, Any]) -> Iterator[tuple[torch.Tensor, list[str]]]:
    import vidal
    from vidal.train.data.loader import Loader
    from vidal.train.data.plan import SamplePlan, SidesPlan
    from vidal.train.data.text_views import TextViews

    pair, seed = ("text", "video"), given["seed"]
    samples = vidal.open(given["address"], cache=given["cache"], **given.get("options", {}))
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=given["batch"], seed=seed, epochs=1)
    index, workers = {pair: [np.arange(len(samples))]}, given["workers"]
    for made in Loader([samples], index, plan, {"video": TRANSFORM}, TextViews(), seed=seed, workers=workers):
        ids = [clip for clip, ok in zip(made.clip_ids, made.valid.tolist(), strict=True) if ok and clip]
        yield made.inputs["video"][:], ids


def read_webdataset(given: dict[str, Any]) -> Iterator[tuple[torch.Tensor, list[str]]]:
    import webdataset as wds

    handler = wds.warn_and_continue if given["options"]["continues"] else wds.reraise_exception
    # An address of http goes to webdataset's own curl, with 30 tries.
    dataset = wds.WebDataset(
        given["urls"], shardshuffle=len(given["urls"]), seed=given["seed"], handler=handler,
        cache_dir=given["cache"] if given["options"]["caches"] else None, empty_check=False,
    )  # fmt: skip
    rows = dataset.shuffle(1000, seed=given["seed"]).map(_of_tar, handler=handler)
    return batches(
        wds.WebLoader(
            rows.batched(given["batch"]), batch_size=None, num_workers=given["workers"], worker_init_fn=one_thread,
            prefetch_factor=4 if given["workers"] else None,
        )
    )  # fmt: skip


def _of_tar(sample: dict[str, Any]) -> Row:
    return row(lambda k: sample[f"frame.{k}.jpg"], json.loads(sample["json"])["caption"], sample["__key__"])


def read_litdata(given: dict[str, Any]) -> Iterator[tuple[torch.Tensor, list[str]]]:
    import litdata
    from litdata.streaming import downloader

    # The store of the race speaks plain HTTP, which litdata has no setting for.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    dataset = litdata.StreamingDataset(
        given["address"], cache_dir=given["cache"], shuffle=True, seed=given["seed"], drop_last=False,
        max_pre_download=8, max_cache_size="100GB", transform=of_fields,
    )  # fmt: skip
    return batches(
        litdata.StreamingDataLoader(
            dataset, batch_size=given["batch"], num_workers=given["workers"], prefetch_factor=4,
            worker_init_fn=one_thread,
        )
    )  # fmt: skip


def read_streaming(given: dict[str, Any]) -> Iterator[tuple[torch.Tensor, list[str]]]:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Rows(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return of_fields(super().__getitem__(at))

    clean_stale_shared_memory()
    dataset = Rows(
        remote=given["address"], local=given["cache"], shuffle=True, shuffle_seed=given["seed"], download_retry=10,
        batch_size=given["batch"], predownload=8 * given["batch"], num_canonical_nodes=1,
    )  # fmt: skip
    for stream in dataset.streams:
        # Else the forked workers share the connection that fetched the index, and without TLS read each other's bytes.
        stream._downloader.clean_up()
    return batches(
        torch.utils.data.DataLoader(
            dataset, batch_size=given["batch"], num_workers=given["workers"], prefetch_factor=4,
            worker_init_fn=one_thread,
        )
    )  # fmt: skip


def read(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Read one epoch; the clock runs from before the dataset is opened, after imports."""
    reader = {
        "vidal": read_vidal, "webdataset": read_webdataset, "litdata": read_litdata, "streaming": read_streaming,
    }[name]  # fmt: skip
    for module in MODULES[name]:
        importlib.import_module(module)
    one_thread(0)
    seen: list[str] = []
    # By the batch: when it was there, how many samples it has, and the CPU time so far.
    arrived: list[tuple[float, int, float]] = []
    error, started, cpu_s = None, time.perf_counter(), _cpu_s()
    try:
        for pixels, clip_ids in reader(given):
            assert pixels.shape[1:] == TRANSFORM.input_shape and pixels.dtype == torch.float32
            seen += clip_ids
            arrived.append((time.perf_counter() - started, len(clip_ids), _cpu_s() - cpu_s))
    except Exception as caught:
        lines = [line for line in str(caught).splitlines() if line.strip()] or [""]
        error = f"{type(caught).__name__}: {lines[-1][:200]}"
    whole_s = time.perf_counter() - started
    # A worker's time is known once it has ended, which it does when its loader goes.
    gc.collect()
    return {"arrived": arrived, "seen": seen, "error": error, "whole_s": whole_s, "cpu_s": _cpu_s() - cpu_s}


def _cpu_s() -> float:
    """CPU time of this process, of its children, and of those of theirs that have ended, such as webdataset's curl."""
    # First, as it waits for those that have ended, whose time the system then counts.
    children = multiprocessing.active_children()
    cpu_s = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for child in children:
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        # The clock of another process, as clock_getcpuclockid(3) numbers it: /proc counts in steps of 10 ms.
        cpu_s += time.clock_gettime(~(child.pid or 0) << 3 | 2) + sum(map(int, stat[13:15])) / os.sysconf("SC_CLK_TCK")
    return cpu_s


if __name__ == "__main__":
    task, loader, *rest = sys.argv[1:]
    if task == "write":
        write = {"litdata": write_litdata, "streaming": write_streaming}[loader]
        write(sorted(Path(rest[0]).iterdir()), rest[1])
    else:
        answer = json.dumps(read(loader, json.loads(rest[0])))
        print(f"\n{answer}", flush=True)
        # Threads of a loader that failed may never end.
        os._exit(0)
