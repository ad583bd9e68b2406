"""`vidal crawl` against the local site: what each source finds, and what became of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.crawls import by_path, crawl, crawl_report, rows, write_recipe, written
from tests.processes import command, vidal
from tests.site import Site
from tests.site.freesound import TOKEN
from tests.site.media import IMAGE


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


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


BUSY = "fault/unavailable/a.mp4"
"""On a host of its own, and well when it is asked again later."""


@pytest.fixture(scope="module", params=["local", "ray"])
def crawled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Site]]:
    """The folder of a crawl of all addresses, which tests only read, and the site that saw nothing else."""
    folder = tmp_path_factory.mktemp("crawled")
    with Site() as site:
        urls = [site.url(f"/{path}") for path in ADDRESSES] + [site.url(f"/{BUSY}", 2)]
        started = now()
        recipe = write_recipe(folder, {"urls": urls})
        if request.param == "local":
            done = crawl(folder, recipe, workers=1)
        else:
            done = vidal("crawl", recipe, "--out", folder / "crawl", "--engine", "ray", "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert all(started <= row["crawled_at"] <= now() for row in rows(folder))
        yield folder, site


def test_a_list_of_addresses_becomes_rows_with_their_reasons_and_a_build_starts_from_them(
    crawled: tuple[Path, Site], tmp_path: Path
) -> None:
    folder, _ = crawled
    assert by_path(folder) == {**ADDRESSES, BUSY: ("failed", "server_error")}
    build = tmp_path / "build.yaml"
    stages = ["fetch", "probe", {"media": {"frames": 2}}]
    build.write_text(yaml.safe_dump({"source": {"dataset": str(folder / "crawl")}, "stages": stages}))
    done = command("build", build, "--out", tmp_path / "built", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    built = pq.read_table(tmp_path / "built" / "manifest").to_pylist()
    assert [row["status"] for row in built] == ["kept", "kept"]
    assert all(round(row["duration_s"]) == 10 for row in built)


def test_subtitles_and_the_thumbnail_are_kept_beside_the_source_and_a_missing_one_is_a_line_of_the_row(
    site: Site, tmp_path: Path
) -> None:
    url = site.url("/page/tracks/bunny-wake.mp4?en=/text/hello.vtt&de=/fault/gone/x&image=/image/x")
    beside = {"via": "platform", "subtitles": ["en", "de"], "thumbnail": True}
    recipe = write_recipe(tmp_path, {"urls": [url]}, **beside)
    done = crawl(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path)
    assert row["fetch_notes"] == ["subtitles de: gone: HTTP Error 404: Not Found"]
    names = {member["name"].partition(".")[2] for member in row["members"]}
    assert names == {"mp4", "subtitle.en.vtt", "thumbnail.jpeg", "json"}
    assert b"WEBVTT" in written(tmp_path) and IMAGE in written(tmp_path)
    build = tmp_path / "build.yaml"
    build.write_text(
        yaml.safe_dump(
            {"source": {"dataset": str(tmp_path / "crawl")}, "stages": ["fetch", "probe", {"media": {"frames": 2}}]}
        )
    )
    done = command("build", build, "--out", tmp_path / "built", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    (built,) = pq.read_table(tmp_path / "built" / "manifest").to_pylist()
    assert (built["status"], round(built["duration_s"])) == ("kept", 10), built["detail"]


def test_subtitles_that_no_stage_would_store_are_a_usage_error(site: Site, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-wake.mp4")]}, thumbnail=True)
    recipe.write_text(recipe.read_text().replace("- keep_source\n", "- probe\n"))
    done = crawl(tmp_path, recipe)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "stages[0].fetch.thumbnail" in done.stderr and "put `keep_source` behind it" in done.stderr


def test_the_report_of_a_crawl_has_its_hosts_and_every_request_that_the_server_saw(
    crawled: tuple[Path, Site], tmp_path: Path
) -> None:
    folder, site = crawled
    shutil.copytree(folder / "crawl", tmp_path / "crawl")
    site.heal()
    done = command("retry", tmp_path / "crawl", "--engine", "local", "--workers", "0", "--reason", "server_error")
    assert done.returncode == 0, done.stderr
    requests = Counter(hit.host for hit in site.hits)
    report = crawl_report(tmp_path, "--by", "host")
    hosts = {group["name"]: group for group in report["groups"]}
    counts = ("candidates", "asked", "found", "fetched", "kept", "failed", "transient")
    assert {name: tuple(group[count] for count in counts) for name, group in hosts.items()} == {
        "127.0.0.1": (7, 7, 2, 2, 2, 5, 1),
        "127.0.0.3": (1, 1, 1, 1, 1, 0, 0),
    }
    failures = {(failure["reason"], failure["is_transient"]) for failure in hosts["127.0.0.1"]["failures"]}
    assert failures == {(r, r == "truncated") for r in ("gone", "not_media", "truncated", "ssrf", "robots")}
    budgets = {budget["name"]: budget for budget in report["budgets"]}
    assert {name: budget["requests"] for name, budget in budgets.items()} == requests
    assert (budgets["127.0.0.1"]["runs"], budgets["127.0.0.3"]["runs"]) == (1, 2)
    assert all(0 < budget["used_per_s"] <= budget["allowed_per_s"] == 50 for budget in budgets.values())


def test_the_report_of_a_search_has_its_terms_and_the_requests_of_the_search(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("bunny\n<b>butter</b>\n")
    with Site() as site:
        source = {"search": str(terms), "address": site.url("/page/playlist?q={term}"), "per_term": 3}
        done = crawl(tmp_path, write_recipe(tmp_path, source))
        assert done.returncode == 0, done.stderr
        requests = Counter(hit.host for hit in site.hits)
    report = crawl_report(tmp_path, "--by", "term")
    # The second term finds the same three, which are not asked for again.
    found = {group["name"]: (group["candidates"], group["asked"], group["kept"]) for group in report["groups"]}
    assert found in ({"bunny": (3, 3, 3), "<b>butter</b>": (3, 0, 0)}, {"bunny": (3, 0, 0), "<b>butter</b>": (3, 3, 3)})
    assert {budget["name"]: budget["requests"] for budget in report["budgets"]} == requests
    assert "bunny" in command("status", tmp_path / "crawl", "--by", "term").stdout
    done = command("report", tmp_path / "crawl", "--out", tmp_path / "report.html")
    assert done.returncode == 0 and "<h2>Crawl</h2>" in (tmp_path / "report.html").read_text()


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
        "freesound": str(terms), "address": site.url("/apiv2"), "per_term": 2, "licences": ["cc0", "cc-by"],
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
    assert TOKEN.encode() not in written(tmp_path)


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


def test_a_row_says_how_a_platform_was_asked_and_names_no_secret(site: Site, tmp_path: Path) -> None:
    token = "web.gvs+S3cr3t-token-of-mine"
    recipe = write_recipe(
        tmp_path,
        {"urls": [site.url("/page/video/bunny-wake.mp4"), site.url("/page/video/none"), site.url("/clip/bunny-wake.mp4")]},
        extractor_args={"generic": {"fragment_query": ["a=1"]}},
        impersonate="safari-18.4:macos",
    )  # fmt: skip
    done = crawl(tmp_path, recipe, "--set", f"fetch.po_token={token}", "--set", "fetch.via=platform")
    assert done.returncode == 0, done.stderr
    found = {row["url"].split("/", 3)[-1]: row for row in rows(tmp_path)}
    browser = f"impersonate safari-18.4:macos-15, curl-cffi {version('curl-cffi')}"
    yt_dlp = [f"yt-dlp {version('yt-dlp')}", "javascript off"]
    asked = [*yt_dlp, browser, "extractor_args generic:fragment_query=a=1", "po_token"]
    assert found["page/video/bunny-wake.mp4"]["fetched_with"] == [*asked, "format_id 0"]
    assert found["page/video/none"]["status"] == "failed" and found["page/video/none"]["fetched_with"] == asked
    assert b"S3cr3t-token" not in written(tmp_path) and "S3cr3t-token" not in done.stdout + done.stderr
    done = command("doctor", recipe)
    assert f"fetch platforms: {'; '.join(asked[:-1])}" in done.stdout
