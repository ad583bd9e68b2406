"""A crawl whose host is down leaves open just what it cannot fetch, and run again it is as if that had never been."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.processes import command, vidal
from tests.site import Plan, Site
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify

DOWN = "127.0.0.2"
OPEN = "fetch.when_unavailable=open"
FETCH = {
    "allow_addresses": ["127.0.0.0/29"], "via": "direct", "tries": 9, "back_off_s": 0.1, "socket_timeout_s": 5,
    "any_host": {"per_s": 50, "concurrent": 4, "failures_to_pause": 1, "pause_s": 900, "jitter": 0, "patience_s": 30},
}  # fmt: skip
TIME = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def port() -> int:
    """Of the host that is down, on which nothing listens but what a test starts there."""
    with Site(hosts=(DOWN,)) as site:
        return site.port


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(Plan(share=0)) as site:
        yield site


def back(port: int) -> Site:
    return Site(Plan(share=0), hosts=(DOWN,), port=port)


def write_recipe(folder: Path, site: Site, port: int, **keys: Any) -> Path:
    """Two clips in ten are of the host that is down, in shards of two."""
    urls = [f"http://{DOWN}:{port}/v/{n}.mp4" if n in (3, 6) else site.url(f"/v/{n}.mp4") for n in range(10)]
    recipe = {"source": {"urls": urls}, "shards": {"size": 2}, "stages": [{"fetch": FETCH}, "keep_source"], **keys}
    path = folder / "crawl.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    """Without the times of the visits, and the hashes of the members that state them."""
    rows = pq.read_table(out / "manifest").drop_columns(["crawled_at"]).to_pylist()
    for member in (member for row in rows for member in row["members"] or () if member["name"].endswith(".json")):
        del member["sha256"]
    return rows


def members(out: Path) -> dict[str, dict[str, bytes]]:
    """The bytes of every member by tar, without the times of the visits."""
    tars = {}
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            tars[path.name] = {m.name: TIME.sub(b"", tar.extractfile(m).read()) for m in tar}  # type: ignore[union-attr]
    return tars


@pytest.mark.parametrize(
    ("engine", "after"),
    [("local", "local"), ("ray", "local"), pytest.param("ray", "ray", marks=pytest.mark.slow)],
)
def test_a_crawl_run_again_when_the_host_is_up_has_the_bytes_of_one_in_which_it_was_never_down(
    engine: str, after: str, site: Site, port: int, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, site, port)

    def crawl(name: str, cache: str, engine: str = engine) -> tuple[int, str]:
        how = ["--engine", engine, "--workers", "2", "--set", OPEN]
        run = vidal if engine == "ray" else command
        done = run("crawl", recipe, "--out", tmp_path / name, *how, env={"VIDAL_CACHE": str(tmp_path / cache)})
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]

    code, line = crawl("out", "cache")
    committed = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("manifest/*")}
    assert code == 1 and 3 <= len(committed) <= 4, line
    counts = f"{5 - len(committed)} of 5 shards stay open, {len(committed)} are committed"
    assert line.startswith(f"vidal: {tmp_path}/out: {counts}; held up by {DOWN} (host_unavailable) until 20"), line
    assert all(row["status"] == "kept" and row["attempts"] == 1 for row in rows(tmp_path / "out"))

    hits = len(site.hits)
    with back(port) as up:
        # The budgets file knows of the pause, whichever engine has written it, and the host is not asked.
        again, same_line = crawl("out", "cache", "local")
        assert (again, same_line.split(" until ")[0]) == (1, line.split(" until ")[0])
        assert up.hits == []
        assert crawl("out", "another", after)[0] == 0
        assert len({hit.path for hit in up.hits if hit.path.startswith("/v/")}) == 2
        # Of the shards that were committed nothing was asked again.
        asked = {hit.path for hit in site.hits[hits:] if hit.path.startswith("/v/")}
        assert len(asked) <= len(committed) and len(asked) == 2 * (5 - len(committed)) - 2
        assert crawl("reference", "a third", "local")[0] == 0
    assert {name: (tmp_path / "out/manifest" / name).read_bytes() for name in committed} == committed
    assert rows(tmp_path / "out") == rows(tmp_path / "reference")
    assert members(tmp_path / "out") == members(tmp_path / "reference")
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


def test_a_retry_leaves_what_it_cannot_fetch_as_it_was_and_grow_goes_on_where_it_ended(
    site: Site, port: int, tmp_path: Path
) -> None:
    recipe, out = write_recipe(tmp_path, site, port), tmp_path / "out"

    def run(*words: str | Path, cache: str = "cache") -> tuple[int, str]:
        done = command(*words, "--engine", "local", "--workers", "0", env={"VIDAL_CACHE": str(tmp_path / cache)})
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]

    assert run("crawl", recipe, "--out", out)[0] == 0
    before = rows(out)
    assert sum(row["status"] == "failed" and row["is_transient"] for row in before) == 2
    code, line = run("retry", out, "--set", OPEN)
    assert code == 1 and "of 5 shards stay as they were; held up by" in line
    assert rows(out) == before
    more = tmp_path / "more.csv"
    more.write_text(f"url\nhttp://{DOWN}:{port}/v/11.mp4\n{site.url('/v/12.mp4')}\n")
    grow = ["grow", out, "--source", f"list={more}", "--set", OPEN]
    code, line = run(*grow)
    assert code == 1 and "1 of 1 shards stay open, 0 are committed" in line and rows(out) == before
    with back(port):
        assert run(*grow, cache="another")[0] == 0
    assert Dataset.open(str(out)).info.candidates == 12
