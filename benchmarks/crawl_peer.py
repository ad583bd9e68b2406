"""A race of `vidal crawl` with video2dataset: files a second, and how many faults each reports truthfully.

The peer is asked through the Python of an environment of its own, and writes tars as `vidal crawl` does. Its import
alone takes seconds, so files are counted by the site's log, from the first request of a run to the last, and once more
with the start. In a mix with good files a row of a faulty address is true if the film is there where it can be had, and
otherwise failed with a message that says what is wrong.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from crawl_site import HOSTS, KINDS, Crawl, SiteProcess, addresses
from figures import spread

_PEER = Path(__file__).parent / "peers" / "video2dataset_run.py"
_WORDS = {
    "gone": "404|gone|not found", "private": "403|private|forbidden", "not_media": "html|no(t a)? (video|media)",
    "truncated": "truncat|incomplete|broken", "server_error": "503|server error|unavailable", "timeout": "time",
    "blocked": "403|forbidden|blocked", "dns": "resolve|name or service",
}  # fmt: skip
"""What a message has to contain to say what is wrong, by the reason."""
_LIMIT_S = 600.0
_PAGE_BYTES = 10_000
"""The site's pages are smaller, and its films larger."""


class _Peer:
    """Runs of video2dataset in the environment of a Python."""

    def __init__(self, python: str) -> None:
        self._python = python

    def run(self, folder: Path, urls: Path, shard_size: int) -> dict[str, str | None]:
        """By address None for a film in a tar, else the message; what has no row is missing."""
        folder.mkdir()
        rows: dict[str, str | None] = {}
        with (folder / "peer.log").open("w") as log:
            subprocess.run(
                [self._python, _PEER, urls, folder / "out", str(shard_size)], check=True, cwd=folder, stdout=log,
                stderr=log, timeout=_LIMIT_S,
            )  # fmt: skip
        for path in (folder / "out").glob("*.parquet"):
            with tarfile.open(path.with_suffix(".tar")) as tar:
                films = {member.name for member in tar if member.name.endswith(".mp4") and member.size > _PAGE_BYTES}
            for row in pq.read_table(path, columns=["key", "url", "status", "error_message"]).to_pylist():
                is_film = row["status"] == "success" and f"{row['key']}.mp4" in films
                rows[row["url"]] = None if is_film else row["error_message"] or "no message"
        return rows


def race(
    python: str, folder: Path, fetch: dict[str, Any], slow_fetch: dict[str, Any], *, count: int, turns: int
) -> dict[str, Any]:
    """Both in turns on ``count`` good files, then both on as many with faults, ours with ``slow_fetch``."""
    peer, rates = _Peer(python), defaultdict[str, list[float]](list)
    with SiteProcess(folder) as site:
        for turn in range(turns):
            urls = [f"http://{HOSTS[n % 3]}:{site.port}/v/{turn * count + n}.mp4" for n in range(count)]
            crawl = Crawl(folder / f"race{turn}", 2)
            crawl.write(urls, fetch, count // 4)
            for name in ("vidal", "video2dataset") if turn % 2 == 0 else ("video2dataset", "vidal"):
                before, started = len(site.hits()), time.perf_counter()
                if name == "vidal":
                    crawl.run()
                    kept = sum(outcome == "kept" for outcome in crawl.rows().values())
                else:
                    rows = peer.run(folder / f"peer{turn}", crawl.folder / "urls.csv", count // 4)
                    kept = sum(message is None for message in rows.values())
                hits = site.hits(before)
                if kept != count:
                    raise SystemExit(f"{name} got {kept} of {count} good files")
                rates[name].append(kept / (hits[-1][0] - hits[0][0]))
                rates[f"{name}, its start included"].append(kept / (time.perf_counter() - started))
        true = _true_rows(peer, site, folder, slow_fetch, count)
    ratio = [a / b for a, b in zip(rates["vidal"], rates["video2dataset"], strict=True)]
    return {
        **{f"files/s: {name}": spread(of) for name, of in rates.items()},
        "files/s over video2dataset's": spread(ratio), "true rows of faulty addresses": true,
    }  # fmt: skip


def _true_rows(peer: _Peer, site: SiteProcess, folder: Path, fetch: dict[str, Any], count: int) -> dict[str, str]:
    """By kind of fault: how many rows of ``vidal`` and of the peer are true, of how many."""
    asked = addresses(site.port, count)
    crawl = Crawl(folder / "faults", 2)
    crawl.write([address.url for address in asked], fetch, len(asked) // 2)
    crawl.run()
    ours = crawl.rows()
    # Another site, as some faults are there once.
    with SiteProcess(folder / "again") as again:
        moved = {address.url: address.url.replace(f":{site.port}/", f":{again.port}/") for address in asked}
        (folder / "moved.csv").write_text("\n".join(["url", *moved.values()]) + "\n")
        messages = peer.run(folder / "peer-faults", folder / "moved.csv", len(asked) // 2)
    of, true = Counter(address.kind for address in asked), defaultdict[str, list[int]](lambda: [0, 0])
    faulty = [address for address in asked if address.kind != "good"]
    for address in faulty:
        reasons = KINDS[address.kind].reasons
        true[address.kind][0] += ours[address.url] in (reasons or ("kept",))
        true[address.kind][1] += _is_true(messages.get(moved[address.url], "no row"), reasons)
    total = [sum(pair[side] for pair in true.values()) for side in range(2)]
    return {
        kind: f"vidal {pair[0]}, video2dataset {pair[1]} of {of[kind]}" for kind, pair in true.items()
    } | {"all": f"vidal {total[0]}, video2dataset {total[1]} of {len(faulty)}"}  # fmt: skip


def _is_true(message: str | None, reasons: tuple[str, ...]) -> bool:
    if message is None or not reasons:
        return message is None and not reasons
    words = "|".join(_WORDS[reason] for reason in reasons if reason in _WORDS)
    return re.search(words, message, re.IGNORECASE) is not None
