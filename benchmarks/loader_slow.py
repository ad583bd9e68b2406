"""The race of `loader.py --store slow-s3`: loaders on one slow and flaky object store, the same clips for each."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from figures import log
from loader_store import BUCKET, FAULTS, Faults, SlowStore, slow_store

import vidal

_RUN = Path(__file__).parent / "peers" / "loader_run.py"
_ROOT = Path(__file__).parent.parent
_LIMIT_S = 300
PEERS = ("litdata", "streaming")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A loader with its settings."""

    name: str
    loader: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fills: Mapping[str, Any] | None = None
    """Options with which it fills and reads its cache; None if it fills it in any case."""
    is_cached: bool = True


ENTRIES = (
    Entry(name="vidal", loader="vidal"),
    Entry(
        name="webdataset, warn_and_continue", loader="webdataset", options={"continues": True, "caches": False},
        fills={"continues": True, "caches": True},
    ),
    Entry(name="webdataset", loader="webdataset", options={"continues": False, "caches": False}, is_cached=False),
    Entry(name="litdata", loader="litdata"),
    Entry(name="streaming", loader="streaming"),
    Entry(name="vidal, cache too small", loader="vidal", options={"cache_bytes": 0}, is_cached=False),
)  # fmt: skip


def race(folder: Path, scratch: Path, faults: Faults, given: Any) -> dict[str, Any]:
    """Race the loaders on the dataset in ``folder``; by loader and cache, the median of each figure over the turns."""
    expected = {samples.clip_id(i) for samples in [vidal.open(str(folder))] for i in range(len(samples))}
    chosen = ("vidal", *given.against) if given.against else [entry.name for entry in ENTRIES]
    entries = [e for e in ENTRIES if e.name in chosen and (e.loader not in PEERS or given.peer)]
    if given.quick:
        entries = [entries[0], replace(entries[1], is_cached=False)]
    results: dict[str, list[dict[str, Any]]] = {}
    with slow_store() as store:
        sizes = {"vidal": store.upload(folder, "set")}
        if given.peer:
            _unpack(folder, scratch / "clips")
            for peer in PEERS:
                _run(given.peer, "write", peer, str(scratch / "clips"), str(scratch / peer))
                sizes[peer] = store.upload(scratch / peer, peer)
        for seed in range(given.repeat):
            for entry in entries if seed % 2 == 0 else reversed(entries):
                runner = _Runner(store, scratch / "cache", given, replace(faults, seed=seed), expected)
                for name, result in runner.runs(entry).items():
                    log(f"turn {seed}: {name}: {_line(result)}")
                    results.setdefault(name, []).append(result)
    return {
        "runs": {name: _summary(of) for name, of in results.items()}, "mb": {k: v / 1e6 for k, v in sizes.items()},
        "clips": len(expected), "batch": given.batch, "workers": given.workers, "repeat": given.repeat,
        "latency ms": 1000 * faults.latency_s, "MB/s of a connection": faults.bytes_per_s / 1e6,
        "errors": faults.errors,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Runner:
    store: SlowStore
    cache: Path
    given: Any
    faults: Faults
    expected: set[str]

    def runs(self, entry: Entry) -> dict[str, dict[str, Any]]:
        """Read an epoch with an empty cache and one with a full cache; both again without errors, if one failed."""
        runs = self._pair(entry, self.faults, "")
        if any(result["error"] for result in runs.values()):
            runs |= self._pair(entry, replace(self.faults, errors=0), ", no errors")
        return runs

    def _pair(self, entry: Entry, faults: Faults, suffix: str) -> dict[str, dict[str, Any]]:
        shutil.rmtree(self.cache, ignore_errors=True)
        runs = {f"{entry.name}, cold{suffix}": self._epoch(entry, entry.options, faults)}
        if entry.is_cached:
            if entry.fills is not None:
                self._epoch(entry, entry.fills, faults)
            runs[f"{entry.name}, warm{suffix}"] = self._epoch(entry, entry.fills or entry.options, faults)
        shutil.rmtree(self.cache, ignore_errors=True)
        return runs

    def _epoch(self, entry: Entry, options: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
        self.store.counts_then(faults)
        self.cache.mkdir(parents=True, exist_ok=True)
        shards = -(-self.given.clips // self.given.shard_size)
        where = "set" if entry.loader == "vidal" else entry.loader
        settings = {
            "address": f"s3://{BUCKET}/{where}", "cache": str(self.cache), "options": options, "seed": faults.seed,
            "urls": [f"{self.store.address}/{BUCKET}/set/video/{shard:06d}.tar" for shard in range(shards)],
            "batch": self.given.batch, "workers": self.given.workers,
        }  # fmt: skip
        python = self.given.peer if entry.loader in PEERS else sys.executable
        try:
            answer = _run(python, "read", entry.loader, json.dumps(settings), endpoint=self.store.address)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            limit = isinstance(error, subprocess.TimeoutExpired)
            what = f"no end after {_LIMIT_S} s" if limit else f"its process ended with {error.returncode}"  # type: ignore[union-attr]
            answer = {"arrived": [], "seen": [], "error": what, "whole_s": float(_LIMIT_S), "cpu_s": 0.0}
        return _figures(answer, self.expected) | self.store.counts_then(replace(faults, errors=0))


def _figures(answer: dict[str, Any], expected: set[str]) -> dict[str, Any]:
    seen, arrived = Counter(answer["seen"]), answer["arrived"]
    steady, steady_cpu_ms = _since(arrived, 0)
    return {
        "samples/s": steady, "samples/s of the second half": _since(arrived, len(arrived) // 2 - 1)[0],
        "samples/s with start": seen.total() / answer["whole_s"], "first batch s": arrived[0][0] if arrived else 0.0,
        "CPU ms a sample": 1000 * answer["cpu_s"] / max(seen.total(), 1), "CPU ms after the first batch": steady_cpu_ms,
        "lost": len(expected - seen.keys()), "repeated": seen.total() - len(seen), "error": answer["error"],
    }  # fmt: skip


def _since(arrived: Sequence[tuple[float, int, float]], batch: int) -> tuple[float, float]:
    """Samples per second, and CPU ms of each, of what arrives after a batch."""
    if len(arrived) < batch + 2 or batch < 0:
        return 0.0, 0.0
    count = sum(each[1] for each in arrived[batch + 1 :])
    (from_s, _, from_cpu_s), (to_s, _, to_cpu_s) = arrived[batch], arrived[-1]
    return count / (to_s - from_s), 1000 * (to_cpu_s - from_cpu_s) / count


def _run(python: str, *arguments: str, endpoint: str = "") -> Any:
    """Run a loader's part; the JSON that it prints last."""
    environment = {
        **os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    done = subprocess.run(
        [python, _RUN, *arguments], capture_output=True, text=True, timeout=_LIMIT_S, env=environment, check=False
    )
    if done.returncode:
        log(done.stderr[-2000:])
        done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1]) if arguments[0] == "read" else None


def _unpack(folder: Path, out: Path) -> None:
    """The clips of a dataset as files, from which the peers' formats are written."""
    samples = vidal.open(str(folder))
    for i in range(len(samples)):
        clip = out / samples.clip_id(i)
        clip.mkdir(parents=True)
        (clip / "caption.txt").write_text(samples.row(i)["caption"])
        for suffix, data in samples.read(i, "video").items():
            (clip / suffix.removeprefix("frame.")).write_bytes(data)


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians; of faults the sum over the turns, of lost and repeated samples as well."""
    summed = (*FAULTS, "lost", "repeated")
    errors = sorted({result["error"] for result in results if result["error"]})
    return {
        name: sum(r[name] for r in results) if name in summed else statistics.median(r[name] for r in results)
        for name in results[0] if name != "error"
    } | {"error": "; ".join(errors) or None}  # fmt: skip


def _line(result: Mapping[str, Any]) -> str:
    shown = {**result, "bytes": f"{result['bytes'] / 1e6:.0f}e6"}
    return ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items() if v is not None)


def table(figures: dict[str, Any]) -> str:
    """The runs as a table of text."""
    head = (
        "loader", "samples/s", "second half", "with start", "first batch", "CPU", "CPU after it", "requests", "MB",
        "503 reset cut", "lost", "repeated", "error",
    )  # fmt: skip
    rows = [
        (
            name, f"{of['samples/s']:.0f}", f"{of['samples/s of the second half']:.0f}",
            f"{of['samples/s with start']:.0f}", f"{of['first batch s']:.2f} s", f"{of['CPU ms a sample']:.2f} ms",
            f"{of['CPU ms after the first batch']:.2f} ms",
            f"{of['requests']:.0f}", f"{of['bytes'] / 1e6:.0f}", " ".join(str(of[fault]) for fault in FAULTS),
            str(of["lost"]), str(of["repeated"]), of["error"] or "",
        )
        for name, of in figures["runs"].items()
    ]  # fmt: skip
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    )
