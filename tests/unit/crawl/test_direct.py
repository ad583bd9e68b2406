"""Direct downloads from the local site: every fault by its true name, every byte counted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.site import Plan, Site
from tests.site.admitted import Admitted
from tests.site.faults import FAULTS
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.child import FetchChild
from vidal.crawl.opt_out import check_directives, check_headers, check_page
from vidal.crawl.reasons import FetchError
from vidal.crawl.response import retry_after_s
from vidal.crawl.settings import WebSettings

MAX_BYTES = 20_000_000
SECRET_COOKIE = "s3cr3t-cookie-value"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(Plan(count=60)) as site:
        yield site


@pytest.fixture(scope="module")
def child() -> Iterator[FetchChild]:
    with FetchChild() as child:
        yield child


def ask(
    child: FetchChild, folder: Path, url: str, *, wall_s: float = 10.0, sha256: str = "", admission: Any = None,
    **settings: object,
) -> Answer:  # fmt: skip
    told = WebSettings(**{"allow_addresses": ("127.0.0.0/29",), "socket_timeout_s": 1.0, **settings})  # type: ignore[arg-type]
    return child.ask(
        Ask(
            op="direct",
            url=url,
            folder=str(folder),
            wall_s=wall_s,
            max_bytes=MAX_BYTES,
            expected_sha256=sha256,
            settings=told,
        ),
        admission,
    )


@pytest.mark.parametrize("route", ["clip", "chunked", "without-length", "gzip", "deflate", "cookie", "hops/5"])
def test_a_file_comes_whole_however_it_is_sent(
    site: Site, child: FetchChild, samples: Path, tmp_path: Path, route: str
) -> None:
    data = (samples / "bunny-wake.mp4").read_bytes()
    answer = ask(child, tmp_path, site.url(f"/{route}/bunny-wake.mp4"))
    assert (answer.ok, answer.file, answer.bytes) == (True, "source", len(data))
    assert answer.sha256 == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "source").read_bytes() == data
    assert answer.metadata["kind"] == "mp4"
    assert answer.metadata["length_unknown"] is (route == "without-length")
    assert answer.metadata["redirects"] == {"hops/5": 5, "cookie": 2}.get(route, 0)


def test_what_http_said_is_kept(site: Site, child: FetchChild, tmp_path: Path) -> None:
    said = ask(child, tmp_path, site.url("/clip/bunny-wake.mp4")).metadata
    assert said["http_content_type"] == "video/mp4"
    assert said["http_etag"] and said["http_last_modified"] == "Sat, 31 Jan 2026 12:00:00 GMT"


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_called_by_its_name_and_in_time(site: Site, child: FetchChild, tmp_path: Path, name: str) -> None:
    url = site.url(f"/fault/{name}/bunny-wake.mp4")
    started = time.monotonic()
    answer = ask(child, tmp_path, url, wall_s=2.0)
    assert answer.reason == site.truth(url) == FAULTS[name].reason
    assert answer.transient is FAULTS[name].heals
    assert time.monotonic() - started < 6
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= MAX_BYTES
    # The one connection that a child keeps must not be spoilt by what came before.
    assert ask(child, tmp_path, site.url("/clip/bunny-unlucky-bird.mp4")).ok


def test_a_request_to_come_later_is_passed_on(site: Site, child: FetchChild, tmp_path: Path) -> None:
    assert ask(child, tmp_path, site.url("/fault/rate_limited/x")).retry_after_s == 1.0
    wait_s = ask(child, tmp_path, site.url("/fault/rate_limited_date/x")).retry_after_s
    assert wait_s is not None and 0 <= wait_s <= 2


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("120", 120.0), (" 0 ", 0.0), ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0), ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0), ("", None),
        ("soon", None), ("-5", None), ("1e9", None), ("99999999999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str, wait_s: float | None) -> None:
    assert retry_after_s(header, now=1769860800.0) == wait_s


@pytest.mark.parametrize(
    ("header", "is_rejected"),
    [
        ("", False), ("noindex", False), ("noai", True), ("noindex, NoImageAI", True), ("googlebot: noai", False),
        ("googlebot: noai, vidal: noai", True), ("vidal: noindex, noai", True), ("*: noai", True), ("max-snippet: 5, noai", True),
    ],
)  # fmt: skip
def test_directives_against_such_use_are_heeded(header: str, is_rejected: bool) -> None:
    if is_rejected:
        with pytest.raises(FetchError, match="noai"):
            check_directives(header, WebSettings())
    else:
        check_directives(header, WebSettings())
    check_directives(header, WebSettings(noai=()))


@pytest.mark.parametrize(
    ("page", "is_refused"),
    [
        ("", False), ("<p>noai</p>", False), ('<meta name="description" content="noai">', False),
        ('<meta name="robots" content="noindex, noai">', True), ("<META content='NoImageAI' name=Robots>", True),
        ('<meta name="vidal" content="noai">', True), ('<meta name="googlebot" content="noai">', False),
        ('<meta name="tdm-reservation" content="1">', True), ('<meta name="tdm-reservation" content="0">', False),
        ('<meta name="rob&#111;ts" content=noai />', True), ("<meta " * 20_000 + "name=robots", False),
    ],
)  # fmt: skip
def test_a_page_may_opt_out(page: str, is_refused: bool) -> None:
    started = time.perf_counter()
    if is_refused:
        with pytest.raises(FetchError) as raised:
            check_page(page, WebSettings())
        assert raised.value.reason == "noai"
    check_page("" if is_refused else page, WebSettings())
    check_page(page, WebSettings(noai=()))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False), ({"tdm-reservation": "1"}, True), ({"tdm-reservation": "0"}, False), ({"Content-Usage": "train-ai=n"}, True),
        ({"Content-Usage": "bots=y,train-ai=n;x=1"}, True), ({"Content-Usage": "train-ai=y, search=n"}, False),
        ({"Content-Signal": "search=yes,ai-train=no"}, True), ({"Content-Signal": "ai-train=yes, ai-input=no"}, False),
        ({"Content-Usage": "no-train-ai=n"}, False), ({"X-Robots-Tag": "noai"}, True),
        ({"tdm-reservation": "1, 1"}, True), ({"tdm-reservation": "0,1"}, True), ({"tdm-reservation": "2"}, False),
        ({"tdm-reservation": "0", "tdm-policy": "https://example.com/policy"}, False),
        ({"tdm-policy": "https://example.com/1"}, False),
    ],
)  # fmt: skip
def test_headers_may_opt_out(headers: dict[str, str], is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(FetchError) as raised:
            check_headers(headers, WebSettings())
        assert raised.value.reason == "noai"
    check_headers({} if is_refused else headers, WebSettings())
    check_headers(headers, WebSettings(noai=()))


def test_what_a_host_says_holds_on_every_hop(site: Site, child: FetchChild, tmp_path: Path) -> None:
    """Of the next host, too; a reservation may have exceptions, and be overruled by the settings."""
    there = site.url("/disallowed/bunny-wake.mp4", 1)
    assert ask(child, tmp_path, site.url(f"/to?url={there}")).reason == "robots"
    assert ask(child, tmp_path, site.url(f"/to?url={site.url('/reserved/bunny-wake.mp4', 2)}")).reason == "noai"
    assert ask(child, tmp_path, site.url("/reserved/bunny-unlucky-bird.mp4")).ok
    assert ask(child, tmp_path, site.url("/reserved/bunny-wake.mp4"), noai=()).ok
    assert ask(child, tmp_path, site.url(f"/to?url={there}"), robots=False).ok


def test_a_mark_before_robots_txt_hides_nothing(tmp_path: Path) -> None:
    with Site(robots="\ufeffUser-agent: *\nDisallow: /clip/\n") as site, FetchChild() as child:
        assert ask(child, tmp_path, site.url("/clip/bunny-wake.mp4")).reason == "robots"
        assert ask(child, tmp_path, site.url("/chunked/bunny-wake.mp4")).ok


def test_a_line_of_robots_txt_forbids_training(tmp_path: Path) -> None:
    with Site(robots="User-agent: *\nContent-Usage: /clip/ train-ai=n\n") as site, FetchChild() as child:
        assert ask(child, tmp_path, site.url("/clip/bunny-wake.mp4")).reason == "noai"
        assert ask(child, tmp_path, site.url("/chunked/bunny-wake.mp4")).ok
        assert ask(child, tmp_path, site.url("/clip/bunny-wake.mp4"), noai=()).ok


def test_a_redirect_in_raw_utf8_is_followed(site: Site, child: FetchChild, tmp_path: Path) -> None:
    answer = ask(child, tmp_path, site.url(f"/to?url={quote('/named/ролик один.mp4')}"))
    assert answer.ok and answer.final_url == site.url(f"/named/{quote('ролик один.mp4')}")


def test_a_crawl_delay_is_known_once_robots_txt_has_been_read(tmp_path: Path) -> None:
    with Site(robots="User-agent: vidal\nCrawl-delay: 2\n") as site, FetchChild() as child:
        admitted = Admitted()
        for _ in range(2):
            assert ask(child, tmp_path, site.url("/to?url=/clip/bunny-wake.mp4"), admission=admitted).ok
        assert admitted.delays == [(site.url("/").rstrip("/"), 2.0)]
        answer = child.ask(Ask(op="robots", url=site.url("/a"), settings=WebSettings(allow_addresses=["127.0.0.1"])))
        assert answer.ok and answer.metadata["crawl_delay_s"] == 2.0


def test_robots_txt_is_read_once_and_shared(site: Site, tmp_path: Path) -> None:
    shared = tmp_path / "robots"
    shared.mkdir()
    site.hits.clear()
    for _ in range(2):
        with FetchChild(robots_folder=shared) as child:
            assert ask(child, tmp_path, site.url("/disallowed/bunny-wake.mp4", 1)).reason == "robots"
            assert ask(child, tmp_path, site.url("/clip/bunny-unlucky-bird.mp4", 1)).ok
            assert ask(child, tmp_path, site.url("/disallowed/bunny-wake.mp4", 1), robots=False).ok
    paths = [hit.path for hit in site.hits]
    assert paths.count("/robots.txt") == 1 and paths.count("/disallowed/bunny-wake.mp4") == 2


def test_every_request_of_a_visit_is_admitted(site: Site, tmp_path: Path) -> None:
    with FetchChild() as child:
        url, admitted = site.url("/hops/5/bunny-wake.mp4", 2), Admitted()
        site.hits.clear()
        ask(child, tmp_path, url, admission=admitted)
        assert len(admitted.asked) == len(site.hits) == 8, "robots.txt, tdmrep.json, five redirects, the file"
        ask(child, tmp_path, url, admission=admitted)
        assert len(admitted.asked) == len(site.hits) == 14, "what the host says of all its files is known by now"
        assert set(admitted.asked) == {("127.0.0.3", "page")}
        assert admitted.statuses == [200, 200, *[302] * 5, 200, *[302] * 5, 200]


def test_other_bytes_than_recorded_are_told(site: Site, child: FetchChild, tmp_path: Path) -> None:
    first = ask(child, tmp_path, site.url("/changing/x.mp4"))
    assert first.ok
    assert ask(child, tmp_path, site.url("/changing/x.mp4"), sha256=first.sha256 or "").reason == "changed_content"
    same = ask(child, tmp_path, site.url("/clip/bunny-wake.mp4"))
    assert ask(child, tmp_path, site.url("/clip/bunny-wake.mp4"), sha256=same.sha256 or "").ok


def test_who_we_are_is_said_and_cookies_go_only_where_they_belong(
    site: Site, child: FetchChild, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{SECRET_COOKIE}\n")
    before = cookies.read_bytes()
    told = WebSettings(
        allow_addresses=("127.0.0.0/29",),
        contact="crawl@example.com",
        cookies=str(cookies),
    )

    def seen(path: str, host: int) -> dict[str, str]:
        token = {"Authorization": "Token t0ken"}
        answer = child.ask(Ask(op="get_json", url=site.url(path, host), headers=token, settings=told))
        assert answer.ok, answer
        headers: dict[str, str] = answer.metadata["json"]["headers"]
        return headers

    at_home = seen("/echo", 0)
    assert at_home["user-agent"].startswith("vidal/") and "crawl@example.com" in at_home["user-agent"]
    assert (at_home["cookie"], at_home["authorization"]) == (f"session={SECRET_COOKIE}", "Token t0ken")
    away = seen(f"/to?url={site.url('/echo', 1)}", 0)
    assert "cookie" not in away and "authorization" not in away
    assert cookies.read_bytes() == before


def test_no_secret_gets_into_an_answer(site: Site, child: FetchChild, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{SECRET_COOKIE}\n")
    proxy = "http://name:p4ssw0rd@127.0.0.1:9"
    for op in ("direct", "metadata", "get_json"):
        for url in (
            f"http://{SECRET_COOKIE}.example.com/",
            "http://example.com/p4ssw0rd",
            site.url(f"/no/{SECRET_COOKIE}"),
        ):
            told = WebSettings(
                allow_addresses=("127.0.0.1",),
                cookies=str(cookies),
                proxy=proxy,
                generic=True,
                robots=False,
            )
            one = Ask(op=op, url=url, folder=str(tmp_path), headers={"X": "t0ken"}, settings=told)  # type: ignore[arg-type]
            assert not any(secret in repr(told) for secret in ("p4ssw0rd", "t0ken"))
            answer = child.ask(one)
            assert not answer.ok and not any(
                secret in repr(answer) for secret in (SECRET_COOKIE, "p4ssw0rd", "t0ken")
            ), answer


def test_the_plan_is_told_truthfully(site: Site, child: FetchChild, tmp_path: Path) -> None:
    urls = site.urls()
    truth = [site.truth(url) for url in urls]
    told = [ask(child, tmp_path, url).reason or "ok" for url in urls]
    assert told == truth
    assert 3 < sum(reason != "ok" for reason in truth) < 25
    site.heal()
    assert {site.truth(url) for url, reason in zip(urls, truth, strict=True) if reason in ("blocked", "truncated")} <= {
        "ok"
    }
    site.is_healed = False


def test_an_api_is_paged_through_as_documented(site: Site, child: FetchChild) -> None:
    url: str | None = site.url("/apiv2/search/text/?query=rain&page_size=4&fields=id,previews")
    told = WebSettings(allow_addresses=["127.0.0.1"])
    token = {"Authorization": "Token test-token-7d1f"}
    ids = []
    while url:
        page = child.ask(Ask(op="get_json", url=url, headers=token, settings=told)).metadata["json"]
        ids += [result["id"] for result in page["results"]]
        url = page["next"]
    assert ids == [10, 20, 30, 40, 50, 60]
    assert child.ask(Ask(op="get_json", url=site.url("/apiv2/search/text/?query=rain"), settings=told)).reason == "login_required"  # fmt: skip
