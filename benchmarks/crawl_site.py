"""The site that `crawl.py` crawls, as a process, the addresses on it with what is true of each, and `vidal` runs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parent.parent
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
REFUSING, DEAD = "127.0.0.4", "dead.invalid"
LONE = tuple(f"127.0.0.{number}" for number in range(20, 32))
_START_S = 60.0

Hit = tuple[float, str, str]
"""Second, host and path of a request."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Addresses of one kind: their share in 2,000, and what is true of them, None for a good file."""

    path: str
    count: int
    reasons: tuple[str, ...] = ()
    is_transient: bool = False
    host: str | None = None
    """By default those of `HOSTS` in turn."""


KINDS = {
    "good": Kind("/v/{n}.mp4", 1600),
    "five redirects": Kind("/hops/5/bunny-wake.mp4?n={n}", 60),
    "HLS": Kind("/hls/bunny-wake.mp4/index.m3u8?n={n}", 18),
    "429 with Retry-After, once": Kind("/once/rate_limited/{n}.mp4", 30),
    "503, once": Kind("/once/unavailable/{n}.mp4", 40),
    "gone": Kind("/fault/gone/{n}.mp4", 60, ("gone",)),
    "private": Kind("/fault/private/{n}.mp4", 40, ("private",)),
    "a page for a film": Kind("/fault/html/{n}.mp4", 40, ("not_media",)),
    "truncated": Kind("/fault/truncated/{n}.mp4", 40, ("truncated",), is_transient=True),
    "503": Kind("/fault/unavailable/{n}.mp4", 20, ("server_error",), is_transient=True),
    "a byte a second": Kind("/fault/drip/{n}.mp4", 12, ("timeout",), is_transient=True),
    "a host that refuses all": Kind(
        "/fault/forbidden/{n}.mp4", 20, ("blocked", "host_unavailable"), is_transient=True, host=REFUSING
    ),
    "a dead host": Kind("/{n}.mp4", 20, ("dns", "host_unavailable"), host=DEAD),
}


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    kind: str


def addresses(port: int, count: int, kinds: Sequence[str] = tuple(KINDS), seed: int = 1) -> list[Address]:
    """``count`` addresses of the kinds by their shares, each kind at least once, in an order of the seed's."""
    total, made = sum(KINDS[kind].count for kind in kinds), []
    for kind in kinds:
        for n in range(max(1, round(KINDS[kind].count * count / total))):
            host = KINDS[kind].host or HOSTS[len(made) % len(HOSTS)]
            made.append(Address(f"http://{host}:{port}{KINDS[kind].path.format(n=n)}", kind))
    random.Random(seed).shuffle(made)
    return made


class SiteProcess:
    """`tests.site` as a process of its own, and its log."""

    def __init__(self, folder: Path, hosts: Sequence[str] = (*HOSTS, REFUSING), *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / f"hits-{hosts[0]}.log"
        self._log.touch()
        command = [sys.executable, "-m", "tests.site", "--faults", "0", "--count", "0", "--log", str(self._log)]
        self._process = subprocess.Popen(
            [*command, "--hosts", *hosts, *options], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(json.loads(self._process.stdout.readline())["port"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def heal(self) -> None:
        """From now on faults that can go away have gone."""
        assert self._process.stdin is not None
        self._process.stdin.write("heal\n")
        self._process.stdin.flush()

    def hits(self, after: int = 0) -> list[Hit]:
        """Every request but the first ``after``, in order of time."""
        lines = self._log.read_text().splitlines()[after:]
        return sorted((float(at), host, path) for at, host, path in (line.split(" ", 2) for line in lines))


def most_in_a_second(hits: Sequence[Hit]) -> int:
    """The most requests to one host in any second."""
    most = 0
    for host in {host for _, host, _ in hits}:
        times, first = [at for at, each, _ in hits if each == host], 0
        for last, at in enumerate(times):
            while at - times[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
    return most


def allowed_s(hits: Sequence[Hit], per_s: float) -> float:
    """How long the requests of the busiest host take at its rate, with the pauses of a second that it asks for."""
    requests = Counter(host for _, host, _ in hits)
    busy = {(host, path) for _, host, path in hits if path.startswith("/once/rate_limited/")}
    pauses = Counter(host for host, _ in busy)
    return max(requests[host] / per_s + pauses[host] for host in requests)


@dataclass(frozen=True, slots=True)
class Crawl:
    """A recipe and its dataset, run by the command, with budgets in a cache of its own."""

    folder: Path
    workers: int

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write(self, urls: Sequence[str], fetch: Mapping[str, Any], shard_size: int = 500) -> None:
        self.folder.mkdir()
        with (self.folder / "urls.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["url"], *([url] for url in urls)])
        recipe = {
            "source": {"list": "urls.csv"}, "shards": {"size": shard_size}, "engine": {"window": shard_size},
            "stages": [{"fetch": fetch}, "keep_source"],
        }  # fmt: skip
        (self.folder / "crawl.yaml").write_text(yaml.safe_dump(recipe))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """``vidal crawl``, or the command of ``words`` on its dataset, in a process group of its own."""
        given = list(words) or ["crawl", "crawl.yaml", "--out"]
        how = ["--engine", "local", "--workers", str(self.workers)]
        return subprocess.Popen(
            [sys.executable, "-m", "vidal", *given, str(self.out), *how], cwd=self.folder, stdout=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "VIDAL_CACHE": str(self.folder.parent / "cache")},
        )  # fmt: skip

    def run(self, *words: str) -> float:
        """The seconds that the command took."""
        started = time.perf_counter()
        process = self.start(*words)
        try:
            if process.wait() != 0:
                raise SystemExit(f"vidal ended with {process.returncode}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return time.perf_counter() - started

    def rows(self) -> dict[str, str]:
        """By address: ``kept``, or the reason."""
        table = pq.read_table(self.out / "manifest", columns=["url", "status", "reason"])
        return {row["url"]: row["reason"] or row["status"] for row in table.to_pylist()}


def kill_after(site: SiteProcess, crawl: Crawl, requests: int) -> None:
    """Start a crawl, and kill it when the site has got so many requests of it."""
    seen, process = len(site.hits()), crawl.start()
    deadline = time.monotonic() + _START_S
    while len(site.hits()) < seen + requests and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
