"""A worker whose last clips wait for their host makes its next shards meanwhile; Ctrl-C ends both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from tests.conftest import ROOT
from tests.processes import descendants, still_alive
from tests.site import Plan, Site


def test_the_next_shards_are_made_while_a_host_is_paused(tmp_path: Path) -> None:
    with Site(Plan(share=0)) as site:
        urls = [site.url(f"/v/{n}.mp4") for n in range(11)] + [site.url("/fault/leave_alone/busy.mp4", 1)]
        rules = {"per_s": 50, "concurrent": 4, "jitter": 0, "patience_s": 100_000}
        fetch = {"allow_addresses": ["127.0.0.0/29"], "via": "direct", "any_host": rules}
        recipe = {"source": {"urls": urls}, "shards": {"size": 3}, "stages": [{"fetch": fetch}, "keep_source"]}
        (tmp_path / "crawl.yaml").write_text(yaml.safe_dump(recipe))

        def start(cache: str) -> subprocess.Popen[bytes]:
            how = ["--engine", "local", "--workers", "1"]
            return subprocess.Popen(
                [sys.executable, "-m", "vidal", "crawl", tmp_path / "crawl.yaml", "--out", tmp_path / "out", *how],
                cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "VIDAL_CACHE": str(tmp_path / cache)},
                start_new_session=True,
            )  # fmt: skip

        def wait_for_good(run: subprocess.Popen[bytes]) -> None:
            deadline = time.monotonic() + 60
            while len(list((tmp_path / "out").glob("manifest/*.parquet"))) < 3 and time.monotonic() < deadline:
                assert run.poll() is None
                time.sleep(0.05)

        run = start("cache")
        try:
            wait_for_good(run)
            assert len(list((tmp_path / "out").glob("manifest/*.parquet"))) == 3, "all but that of the busy host"
            children = descendants(run.pid)
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(60) == 130 and still_alive(children) == []
        finally:
            run.kill()
            run.wait()
        site.heal()
        assert start("another").wait(60) == 0
    rows = pq.read_table(tmp_path / "out" / "manifest").to_pylist()
    assert [row["status"] for row in rows] == ["kept"] * 12
