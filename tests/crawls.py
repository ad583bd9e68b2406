"""A crawl of the local site through the public door, and what is in its dataset."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.processes import command

FETCH = {
    "allow_addresses": ["127.0.0.0/29"], "generic": True, "tries": 2, "back_off_s": 0.1, "outage_s": 0, "wall_s": 20,
    "socket_timeout_s": 2,
    "any_host": {"per_s": 50, "concurrent": 4, "pause_s": 0.2},
}  # fmt: skip


def write_recipe(folder: Path, source: dict[str, Any], **fetch: Any) -> Path:
    path = folder / "crawl.yaml"
    recipe = {"source": source, "shards": {"size": 16}, "stages": [{"fetch": {**FETCH, **fetch}}, "keep_source"]}
    path.write_text(yaml.safe_dump(recipe))
    return path


def crawl(
    folder: Path, recipe: Path, *more: str, workers: int = 0, env: dict[str, str] | None = None, run: Any = command
) -> subprocess.CompletedProcess[str]:
    """By default in this process, as a worker's start takes longer than the crawl; what fetches is a process anyway."""
    how = ["--engine", "local", "--workers", str(workers)]
    return run("crawl", recipe, "--out", folder / "crawl", *how, *more, env=env)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "crawl" / "manifest").to_pylist()


def written(folder: Path) -> bytes:
    """Every byte of the crawl's files."""
    return b"".join(path.read_bytes() for path in (folder / "crawl").rglob("*") if path.is_file())


def by_path(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and reason by the address without its host."""
    return {row["url"].split("/", 3)[-1]: (row["status"], row["reason"]) for row in rows(folder)}


def crawl_report(folder: Path, *more: str) -> dict[str, Any]:
    done = command("status", folder / "crawl", "--json", *more)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)["crawl"]
    return report
