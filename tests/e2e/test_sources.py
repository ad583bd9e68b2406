"""Every crawl recipe that ships, against the local site on both engines: what its source finds, and that it is kept."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.processes import command, vidal
from tests.site import Site
from tests.site.freesound import TOKEN
from vidal.crawl.platform import matching_extractor
from vidal.licences import licence_name
from vidal.sources.search import SearchSource

PIPELINES = ROOT / "pipelines"
HERE = ["fetch.allow_addresses=[127.0.0.0/29]", "fetch.generic=true", "fetch.any_host={per_s: 50, concurrent: 4, pause_s: 0.1, patience_s: 2}",
        "fetch.tries=2", "fetch.back_off_s=0.1", "fetch.outage_s=0"]  # fmt: skip
"""What a recipe needs on the local site, and what keeps it short."""
ENGINES = ["local", pytest.param("ray", marks=pytest.mark.slow)]
# Without a local worker, whose start takes longer than the crawl; what fetches is a process anyway.
HOW = {"local": ["--engine", "local", "--workers", "0"],
       "ray": ["--engine", "ray", "--workers", "1", "--set", "engine.object_store_bytes=104857600"]}  # fmt: skip
FIRST = ["bunny-apple.mp4", "bunny-butterfly.mp4", "bunny-flower.mp4"]
"""Of the players on the site's page."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def crawl(name: str, folder: Path, settings: list[str], engine: str = "local") -> subprocess.CompletedProcess[str]:
    sets = [word for setting in settings for word in ("--set", setting)]
    recipe = PIPELINES / f"{name}.yaml"
    run = vidal if engine == "ray" else command
    return run("crawl", recipe, "--out", folder / "crawl", *HOW[engine], *sets, env={"FREESOUND_API_KEY": TOKEN})


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "crawl" / "manifest").to_pylist()


def urls(site: Site, folder: Path) -> list[str]:
    (folder / "my.txt").write_text("".join(site.url(f"/clip/{name}\n") for name in FIRST))
    return [f"source.urls={folder / 'my.txt'}"]


def listed(site: Site, folder: Path) -> list[str]:
    lines = [f"{number:03d},{site.url(f'/clip/{name}')},mine\n" for number, name in enumerate(FIRST, 7)]
    (folder / "my.csv").write_text("".join(["clip_id,url,note\n", *lines]))
    return [f"source.list={folder / 'my.csv'}"]


def channel(site: Site, folder: Path) -> list[str]:
    return [f"source.channel=[{site.url('/page/playlist')}]", "source.per_channel=3"]


def playlist(site: Site, folder: Path) -> list[str]:
    # The site's pages state no licence, and the recipe wants one.
    return [f"source.playlist=[{site.url('/page/playlist')}]", "source.per_channel=3", "wrong_licence.unknown=true"]


def terms(folder: Path, *captions: str) -> Path:
    """Terms that `vidal terms` selects from captions."""
    (folder / "captions.txt").write_text("".join(f"{caption}\n" for caption in captions))
    out = folder / "terms.parquet"
    settings = ["--number", str(len(captions)), "--set", "min_count=1", "--set", "max_share=1",
                "--set", "clips_per_term=3"]  # fmt: skip
    done = command("terms", folder / "captions.txt", "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    return out


def search(site: Site, folder: Path) -> list[str]:
    # The address takes the place of the platform's search, which is on no local site.
    chosen = terms(folder, "a rabbit eats an apple")
    return [f"source.search={chosen}", f"source.address={site.url('/page/playlist?q={term}')}", "fetch.hosts={}"]


def freesound(site: Site, folder: Path) -> list[str]:
    (folder / "terms.txt").write_text("rain\n")
    thresholds = ["source.min_rating=1", "source.min_ratings=1", "source.min_downloads=1"]
    return [f"source.freesound={folder / 'terms.txt'}", f"source.address={site.url('/apiv2')}", *thresholds]


SOURCES: dict[str, Callable[[Site, Path], list[str]]] = {
    "crawl-urls": urls, "crawl-list": listed, "crawl-channel": channel, "crawl-playlist": playlist,
    "crawl-youtube-shorts": search, "crawl-freesound": freesound,
}  # fmt: skip
ELSEWHERE = {"crawl-vidal"}
"""What visits YouTube alone, which is on no local site."""


def test_every_crawl_recipe_that_ships_is_run_by_a_test() -> None:
    assert {path.stem for path in PIPELINES.glob("crawl-*.yaml")} == {*SOURCES, *ELSEWHERE}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_that_ships_keeps_what_its_source_finds_measured_and_with_the_time(
    name: str, engine: str, site: Site, tmp_path: Path
) -> None:
    settings, started = SOURCES[name](site, tmp_path), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    first = len(site.hits)
    done = crawl(name, tmp_path, [*HERE, *settings], engine)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    kept = [row for row in found if row["status"] == "kept"]
    assert len(kept) == len(found) > 0, [(row["url"], row["reason"], row["detail"]) for row in found]
    for row in kept:
        assert row["crawled_at"] >= started and row["source_sha256"] and row["duration_s"] > 1 and row["container"]
        assert row["layers"] == ["source"]
    if name == "crawl-freesound":
        assert {row["search_term"] for row in kept} == {"rain"} and all("rain" in row["tags"] for row in kept)
        assert all(row["rating"] >= 1 and row["term_similarity"] > 0 for row in kept)
        assert {licence_name(row["licence"]) for row in kept} <= {"cc0", "cc-by"}
    else:
        assert sorted(row["url"].rpartition("/")[2] for row in kept) == FIRST
    if name == "crawl-list":
        assert sorted((row["clip_id"], row["note"]) for row in kept) == [(f"00{n}", "mine") for n in (7, 8, 9)]
    if name == "crawl-youtube-shorts":
        (term,) = {row["search_term"] for row in kept}
        assert pq.read_table(tmp_path / "terms.parquet").to_pylist()[0]["term"] == term
    # A run of what is complete asks nobody.
    asked = len(site.hits)
    assert asked > first
    if engine == "local":
        assert crawl(name, tmp_path, [*HERE, *settings]).returncode == 0
        assert len(site.hits) == asked


@pytest.mark.parametrize("engine", ENGINES)
def test_vidals_annotations_are_built_from_files_and_each_id_is_a_text(
    engine: str, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "media" / "0001"
    folder.mkdir(parents=True)
    for clip_id, name in (("007", "bunny-wake"), ("7", "bunny-apple")):
        (folder / f"{clip_id}.mp4").write_bytes((samples / f"{name}.mp4").read_bytes())
    told = {clip_id: {"folder": "0001", "raw": "A rabbit #cute"} for clip_id in ("007", "7")}
    (tmp_path / "vidal.json").write_text(json.dumps(told))
    (tmp_path / "recipe.yaml").write_text(
        "source: {vidal_json: vidal.json, media: media}\nstages: [fetch, probe, keep_source]\n"
    )
    run = vidal if engine == "ray" else command
    done = run("build", tmp_path / "recipe.yaml", "--out", tmp_path / "crawl", *HOW[engine])
    assert done.returncode == 0, done.stderr
    found = {row["clip_id"]: (row["status"], row["title"], row["hashtags"]) for row in rows(tmp_path)}
    assert found == dict.fromkeys(["007", "7"], ("kept", "A rabbit", ["cute"]))


def on_platform(name: str, folder: Path) -> list[str]:
    if name == "crawl-vidal":
        (folder / "vidal.json").write_text(json.dumps({"aBcDeFgHiJ1": {"folder": "0001", "raw": "A rabbit"}}))
        return [f"source.vidal_json={folder / 'vidal.json'}"]
    (folder / "terms.txt").write_text("rabbit\n")
    return [f"source.search={folder / 'terms.txt'}", f"source.platform={name}"]


@pytest.mark.parametrize(("name", "recipe", "platform", "domain"), [
    ("crawl-vidal", "crawl-vidal", "youtube", "youtube.com"),
    ("ytsearch", "crawl-youtube-shorts", "youtube", "youtube.com"),
    ("nicosearchdate", "crawl-youtube-shorts", "niconico", "nicovideo.jp"),
])  # fmt: skip
def test_a_platform_is_asked_once_its_terms_are_accepted_and_a_failed_search_again_at_the_next_start(
    name: str, recipe: str, platform: str, domain: str, site: Site, tmp_path: Path
) -> None:
    # The site is the proxy, the only host that is connected to, and gives no way to anywhere.
    settings = [*HERE, *on_platform(name, tmp_path), f"fetch.proxy=http://127.0.0.1:{site.port}", "fetch.hosts={}"]
    before = len(site.hits)
    refused = crawl(recipe, tmp_path, settings)
    assert (refused.returncode, f"the terms of {platform} restrict automated access" in refused.stderr) == (2, True)
    assert len(site.hits) == before
    for _ in range(1 if name == "crawl-vidal" else 2):
        before = len(site.hits)
        done = crawl(recipe, tmp_path, [*settings, f"fetch.accept_terms=[{platform}]"])
        assert done.returncode == 1, done.stderr
        asked = {hit.path for hit in site.hits[before:]}
        assert asked and all(host.endswith(f"{domain}:443") for host in asked), (asked, done.stderr)
        said = "every candidate failed" if name == "crawl-vidal" else "no answer for now"
        assert said in done.stderr and "ssrf" not in done.stderr


def test_a_search_that_yt_dlp_does_not_have_names_those_that_it_has(site: Site, tmp_path: Path) -> None:
    settings = [*HERE, *on_platform("bilisearchdate", tmp_path), "fetch.accept_terms=[bilibili]"]
    before = len(site.hits)
    done = crawl("crawl-youtube-shorts", tmp_path, settings)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no search bilisearchdate" in done.stderr and "nicosearchdate" in done.stderr
    assert len(site.hits) == before


def test_youtubes_search_by_date_is_refused_with_the_address_that_takes_its_place(site: Site, tmp_path: Path) -> None:
    done = crawl("crawl-youtube-shorts", tmp_path, [*HERE, *on_platform("ytsearchdate", tmp_path)])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "YouTube no longer sorts by date" in done.stderr
    (address,) = re.findall(r"https://www\.youtube\.com/\S+", done.stderr)
    (tmp_path / "terms.txt").write_text("wild rabbit\n")
    (question,) = SearchSource(search=str(tmp_path / "terms.txt"), address=address).questions()
    assert question.ask.url == "https://www.youtube.com/results?search_query=wild+rabbit&sp=EgQIBBAB"
    assert matching_extractor(question.ask.url) == "YoutubeSearchURL"
