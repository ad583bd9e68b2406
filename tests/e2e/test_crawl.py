"""`vidal crawl` against the local site: what each source finds, and what became of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.runs import command, vidal
from tests.site import Site
from tests.site.freesound import TOKEN
from tests.site.media import IMAGE
from vidal.dataset.dataset import Dataset

FETCH = {
    "allow_addresses": ["127.0.0.0/29"], "generic": True, "tries": 2, "back_off_s": 0.1, "outage_s": 0, "wall_s": 20,
    "socket_timeout_s": 2,
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


def crawl_report(folder: Path, *more: str) -> dict[str, Any]:
    done = command("status", folder / "crawl", "--json", *more)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)["crawl"]
    return report


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


@pytest.mark.parametrize("source", ["urls", "list"])
def test_a_crawls_list_names_no_file_of_this_machine_unless_the_recipe_says_so(
    site: Site, samples: Path, tmp_path: Path, source: str
) -> None:
    (tmp_path / "here.mp4").write_bytes((samples / "bunny-apple.mp4").read_bytes())
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    named = ["/etc/passwd", str(secret), f"file://{secret}", "here.mp4", "s3://bucket/a.mp4", "ftp://127.0.0.1/a.mp4"]
    web = site.url("/clip/bunny-wake.mp4")
    listed = tmp_path / "urls.csv"
    listed.write_text("\n".join(["url", *named, web, ""]))
    given = {"urls": {"urls": [*named, web]}, "list": {"list": str(listed)}}[source]
    recipe = write_recipe(tmp_path, given)
    done = crawl(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    found = {row["url"]: (row["status"], row["reason"], row["is_transient"]) for row in rows(tmp_path)}
    assert found == {**dict.fromkeys(named, ("failed", "scheme_not_allowed", False)), web: ("kept", None, None)}
    assert b"root:x:0:0" not in written(tmp_path)
    other = crawl(tmp_path, recipe, "--set", "fetch.schemes=[file,http]")
    assert other.returncode == 2 and "schemes" in other.stderr, "another recipe than the folder's"
    if source == "list":
        shutil.rmtree(tmp_path / "crawl")
        done = crawl(tmp_path, recipe, "--set", "fetch.schemes=[file,http]")
        assert done.returncode == 0, done.stderr
        assert {row["url"] for row in rows(tmp_path) if row["status"] == "kept"} >= {"here.mp4", web}


def test_what_a_crawl_began_with_is_asked_for_again_and_stands_in_no_file(tmp_path: Path) -> None:
    cookies, value = tmp_path / "cookies.txt", "s3cr3t-cookie-value"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{value}\n")
    given = ["--set", f"fetch.cookies={cookies}"]
    with Site() as site:
        recipe = write_recipe(tmp_path, {"urls": [site.url(f"/members/{p}bunny-wake.mp4") for p in ("", "busy/")]})
        done = crawl(tmp_path, recipe, *given)
        assert done.returncode == 0, done.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None), ("failed", "server_error")}
        assert json.loads((tmp_path / "crawl" / "dataset.json").read_text())["secrets"] == ["fetch.cookies"]
        site.heal()
        retry = ["retry", tmp_path / "crawl", "--engine", "local", "--workers", "0"]
        rejected = command(*retry)
        assert (rejected.returncode, rejected.stderr.count("\n")) == (2, 1)
        assert "was started with fetch.cookies" in rejected.stderr and "--set fetch.cookies=…" in rejected.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None), ("failed", "server_error")}, "nothing was touched"
        done = command(*retry, *given)
        assert done.returncode == 0, done.stderr
        assert set(by_path(tmp_path).values()) == {("kept", None)}
        (tmp_path / "crawl" / "manifest" / "000000.parquet").unlink()
        rejected = crawl(tmp_path, recipe)
        assert rejected.returncode == 2 and "was started with fetch.cookies" in rejected.stderr
        done = crawl(tmp_path, recipe, *given)
        assert done.returncode == 0, done.stderr
    for secret in (value, str(cookies)):
        assert secret.encode() not in written(tmp_path)


def remove_from(folder: Path, **named: str) -> None:
    with (folder / "removals.jsonl").open("a") as file:
        file.write(json.dumps(named) + "\n")


@pytest.mark.parametrize("act", ["crawl", "resume", "retry", "grow"])
def test_nobody_is_asked_for_a_clip_on_the_list_of_removals(act: str, tmp_path: Path) -> None:
    with Site() as site:
        busy, page = site.url("/fault/unavailable/late.mp4"), site.url("/page/json-ld/bunny-wake.mp4")
        urls = [site.url("/clip/bunny-apple.mp4"), busy] if act != "grow" else [site.url("/clip/bunny-apple.mp4")]
        recipe = write_recipe(tmp_path, {"urls": urls})
        recipe.write_text(recipe.read_text().replace("size: 16", "size: 1") + "removals: removals.jsonl\n")
        remove_from(tmp_path, uploader="nobody")
        if act != "crawl":
            assert crawl(tmp_path, recipe).returncode == 0
        if act == "resume":
            shard = next(row["shard"] for row in rows(tmp_path) if row["url"] == busy)
            (tmp_path / "crawl" / "manifest" / f"{shard:06d}.parquet").unlink()
        remove_from(tmp_path, url=busy)
        before = len(site.hits)
        how = ["--engine", "local", "--workers", "0"]
        if act == "retry":
            done = command("retry", tmp_path / "crawl", *how)
        elif act == "grow":
            (tmp_path / "more.csv").write_text(f"url\n{busy}\n{page}\n")
            done = command("grow", tmp_path / "crawl", "--source", f"list={tmp_path / 'more.csv'}", *how)
        else:
            done = crawl(tmp_path, recipe)
        # The page, all that the crawl grows by, is no media.
        assert done.returncode == (1 if act == "grow" else 0), done.stderr
        asked = [hit.path for hit in site.hits[before:]]
        assert "/fault/unavailable/late.mp4" not in asked
        found = list(Dataset.open(str(tmp_path / "crawl")).rows())
        removed = [row for row in found if row["reason"] == "removed"]
        assert [(row["status"], row["stage"], row["url"], row["crawled_at"]) for row in removed] == [
            ("rejected", "plan", "", None)
        ]
    assert sum(budget["requests"] for budget in crawl_report(tmp_path)["budgets"]) == len(site.hits)


def test_a_clip_whose_uploader_the_page_names_is_not_downloaded_where_they_are_on_the_list(tmp_path: Path) -> None:
    with Site() as site:
        pages = [site.url(f"/page/{kind}/bunny-{name}.mp4") for kind, name in (("json-ld", "wake"), ("og", "apple"))]
        recipe = write_recipe(tmp_path, {"urls": pages}, via="platform")
        recipe.write_text(recipe.read_text() + "removals: removals.jsonl\n")
        remove_from(tmp_path, uploader="A. Uthor")
        done = crawl(tmp_path, recipe)
        assert done.returncode == 0, done.stderr
        asked = Counter(hit.path for hit in site.hits)
        # yt-dlp looks at the head of a page's file for its metadata; the file itself is a second request.
        assert (asked["/page/json-ld/bunny-wake.mp4"], asked["/clip/bunny-wake.mp4"]) == (1, 1)
        assert "/clip/bunny-apple.mp4" in asked
        removed = next(row for row in rows(tmp_path) if row["reason"] == "removed")
        assert (removed["stage"], removed["url"], removed["title"], removed["uploader"]) == ("fetch", "", None, None)
        assert b"A. Uthor" not in written(tmp_path)


def test_a_proxys_password_is_in_no_row_file_or_message(site: Site, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-wake.mp4")]})
    said = []
    for proxy in (
        "http://name:p4ssw0rd@127.0.0.1:9",
        "socks5://name:p4ssw0rd@127.0.0.1:9",
        "[p4ssw0rd",
        "{p4ssw0rd: 1}",
    ):
        # In a process of its own, as the words of its children are looked at, too.
        done = crawl(tmp_path, recipe, "--set", f"fetch.proxy={proxy}", workers=1, run=vidal)
        said.append((done.returncode, done.stdout + done.stderr))
    assert [code for code, _ in said] == [1, 2, 2, 2]
    assert not any("p4ssw0rd" in text for _, text in said)
    assert by_path(tmp_path) == {"clip/bunny-wake.mp4": ("failed", "network")}
    assert b"p4ssw0rd" not in written(tmp_path)


def test_cookies_that_cannot_be_read_are_a_usage_error(site: Site, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-wake.mp4")]})
    done = crawl(tmp_path, recipe, "--set", f"fetch.cookies={tmp_path}/none.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "fetch.cookies" in done.stderr


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


def test_a_list_with_a_platform_whose_terms_nobody_accepted_is_refused_before_any_request(tmp_path: Path) -> None:
    with Site() as site:
        urls = [site.url("/clip/bunny-wake.mp4"), "https://youtu.be/aBcDeFgHiJ1"]
        done = crawl(tmp_path, write_recipe(tmp_path, {"urls": urls}))
        assert (done.returncode, done.stderr.count("\n"), len(site.hits)) == (2, 1, 0), done.stderr
    assert "youtu.be: the terms of youtube" in done.stderr and "https://www.youtube.com/t/terms" in done.stderr


def everything_in(folder: Path) -> bytes:
    """Every byte of every file, tables decoded as well as packed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    tables = (str(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet")
    return b"".join([*(path.read_bytes() for path in files), *tables])


def test_the_address_of_a_removed_clip_is_in_no_file_of_the_crawl_and_does_not_come_back(tmp_path: Path) -> None:
    out, terms, gone = tmp_path / "crawl", tmp_path / "terms.txt", b"bunny-apple"
    terms.write_text("bunny\nbutter\n")
    with Site() as site:
        source = {"search": str(terms), "address": site.url("/page/playlist?q={term}"), "per_term": 3}
        assert crawl(tmp_path, write_recipe(tmp_path, source)).returncode == 0
        row = next(row for row in rows(tmp_path) if "apple" in row["url"])
        assert everything_in(out / "discovered").count(gone) == 2 and gone in everything_in(out / "manifest")
        (tmp_path / "ids.txt").write_text(row["clip_id"])
        assert command("remove", out, "--ids", tmp_path / "ids.txt").returncode == 0
        assert gone not in everything_in(out) and b"bunny-flower" in everything_in(out / "discovered")
        # Another term finds the same three, of which the removed one is not even stored.
        terms.write_text("honey\n")
        done = command("grow", out, "--source", f"search={terms}", "--engine", "local", "--workers", "0")
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    assert b"honey" in everything_in(out / "revisions" / "1" / "grown" / "discovered")
    assert gone not in everything_in(out)


def test_a_host_that_only_removed_clips_have_is_in_no_file_and_the_crawl_can_be_run_again(tmp_path: Path) -> None:
    out = tmp_path / "crawl"
    with Site() as site:
        urls = [
            site.url("/clip/bunny-apple.mp4", 1),
            site.url("/clip/bunny-apple.mp4", 1),
            site.url("/fault/gone/x", 2),
        ]
        recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-flower.mp4"), *urls]})
        assert crawl(tmp_path, recipe).returncode == 0
        assert b"127.0.0.2" in everything_in(out / "usage") and b"bunny-apple" in (out / "dataset.json").read_bytes()
        (tmp_path / "urls.txt").write_text(f"{urls[0]}\n")
        assert command("remove", out, "--ids", tmp_path / "urls.txt").returncode == 0
        left = everything_in(out)
        assert b"127.0.0.2" not in left and b"bunny-apple" not in left and left.count(b"127.0.0.3") > 1
        assert b"127.0.0.1" in everything_in(out / "usage") and b"127.0.0.3" in everything_in(out / "usage")
        assert "nothing to do" in crawl(tmp_path, recipe).stdout
        retried = command("retry", out, "--reason", "gone", "--engine", "local", "--workers", "0")
        assert retried.returncode == 0, retried.stderr
