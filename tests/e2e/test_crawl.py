"""`vidal crawl` in a process of its own against the local site: what each source finds, and what became of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.runs import vidal
from tests.site import Site
from tests.site.freesound import TOKEN

FETCH = {
    "allow_addresses": ["127.0.0.0/29"], "generic": True, "tries": 2, "wall_s": 20, "socket_timeout_s": 2,
    "any_host": {"per_s": 50, "concurrent": 4, "pause_s": 0.2},
}  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def write_recipe(folder: Path, source: dict[str, Any], **fetch: Any) -> Path:
    path = folder / "crawl.yaml"
    recipe = {"source": source, "shards": {"size": 16}, "stages": [{"fetch": {**FETCH, **fetch}}, "keep_source"]}
    path.write_text(yaml.safe_dump(recipe))
    return path


def crawl(
    folder: Path, recipe: Path, *more: str, engine: str = "local", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    how = ["--engine", engine, "--workers", "1"]
    return vidal("crawl", recipe, "--out", folder / "crawl", *how, *more, env=env)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "crawl" / "manifest").to_pylist()


def by_path(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and reason by the address without its host."""
    return {row["url"].split("/", 3)[-1]: (row["status"], row["reason"]) for row in rows(folder)}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ADDRESSES = {
    "clip/bunny-wake.mp4": ("kept", None),
    "hls/bunny-wake.mp4/index.m3u8": ("kept", None),
    "fault/gone/a.mp4": ("failed", "gone"),
    "fault/html/a.mp4": ("failed", "not_media"),
    "fault/truncated/a.mp4": ("failed", "truncated"),
    "fault/to_metadata/a.mp4": ("failed", "ssrf"),
    "disallowed/a.mp4": ("failed", "robots"),
}


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_list_of_addresses_becomes_rows_with_their_reasons_and_a_build_starts_from_them(
    site: Site, tmp_path: Path, engine: str
) -> None:
    urls = [site.url(f"/{path}") for path in ADDRESSES]
    recipe, started = write_recipe(tmp_path, {"urls": urls}), now()
    done = crawl(tmp_path, recipe, engine=engine)
    assert done.returncode == 0, done.stderr
    assert by_path(tmp_path) == ADDRESSES
    assert all(started <= row["crawled_at"] <= now() for row in rows(tmp_path))
    build = tmp_path / "build.yaml"
    stages = ["fetch", "probe", {"media": {"frames": 2}}]
    build.write_text(yaml.safe_dump({"source": {"dataset": str(tmp_path / "crawl")}, "stages": stages}))
    done = vidal("build", build, "--out", tmp_path / "built", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    built = pq.read_table(tmp_path / "built" / "manifest").to_pylist()
    assert [row["status"] for row in built] == ["kept", "kept"]
    assert all(round(row["duration_s"]) == 10 for row in built)


@pytest.mark.parametrize("kind", ["playlist", "search"])
def test_a_page_of_players_is_expanded_into_its_clips(site: Site, tmp_path: Path, kind: str) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("bunny\n")
    source = {
        "playlist": {"playlist": [site.url("/page/playlist")], "per_channel": 3},
        "search": {"search": str(terms), "address": site.url("/page/playlist?q={term}"), "per_term": 3},
    }[kind]
    done = crawl(tmp_path, write_recipe(tmp_path, source))
    assert done.returncode == 0, done.stderr
    kept = ("kept", None)
    assert by_path(tmp_path) == {f"clip/bunny-{name}.mp4": kept for name in ("apple", "butterfly", "flower")}
    term = "bunny" if kind == "search" else site.url("/page/playlist")
    assert {row["search_term"] for row in rows(tmp_path)} == {term}


def test_sounds_of_freesound_are_found_ranked_and_kept(site: Site, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("rain\nthunder\nnothing like it\n")
    source = {
        "freesound": str(terms), "address": site.url("/apiv2"), "per_term": 2, "licences": ["publicdomain", "by/"],
    }  # fmt: skip
    recipe = write_recipe(tmp_path, source, via="direct")
    done = crawl(tmp_path, recipe, env={"FREESOUND_API_KEY": TOKEN})
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert [row["status"] for row in found] == ["kept"] * 4
    assert {row["search_term"] for row in found} == {"rain", "thunder"}
    for row in found:
        assert row["platform"] == "Freesound" and row["search_term"] in row["title"]
        assert "publicdomain" in row["licence"] or "by/" in row["licence"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "crawl").rglob("*") if path.is_file())
    assert TOKEN.encode() not in written


def test_a_list_that_cannot_be_had_for_now_is_asked_for_again_at_the_next_run_and_the_others_are_not(
    tmp_path: Path,
) -> None:
    with Site() as site:
        lists = [site.url("/page/playlist"), site.url("/fault/unavailable/late.mp4"), site.url("/fault/gone/x")]
        recipe = write_recipe(tmp_path, {"playlist": lists, "per_channel": 2})
        for _ in range(2):
            done = crawl(tmp_path, recipe)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
            assert "playlist: 1 question(s) have no answer for now" in done.stderr and lists[1] in done.stderr
        assert not (tmp_path / "crawl" / "plan.parquet").exists()
        done = crawl(tmp_path, recipe, "--set", "source.skip_failed=true")
        assert done.returncode == 0, done.stderr
        assert set(by_path(tmp_path)) == {"clip/bunny-apple.mp4", "clip/bunny-butterfly.mp4"}
        shutil.move(tmp_path / "crawl" / "discovered", tmp_path / "discovered")
        shutil.rmtree(tmp_path / "crawl")
        (tmp_path / "crawl").mkdir()
        shutil.move(tmp_path / "discovered", tmp_path / "crawl" / "discovered")
        site.heal()
        done = crawl(tmp_path, recipe)
        assert done.returncode == 0, done.stderr
        assert by_path(tmp_path)["fault/unavailable/late.mp4"] == ("kept", None)
        assert [hit.path for hit in site.hits].count("/page/playlist") == 1
        assert [hit.path for hit in site.hits].count("/fault/gone/x") == 1
