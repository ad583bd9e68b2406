"""yt-dlp itself, un-mocked, in the fetching child against the local site."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site
from tests.site.admitted import Admitted
from tests.site.media import IMAGE
from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.child import FetchChild
from vidal.crawl.merge import merge
from vidal.crawl.platform import matching_extractor
from vidal.crawl.settings import WebSettings
from vidal.media.limits import Limits
from vidal.media.probe import probe


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def child() -> Iterator[FetchChild]:
    with FetchChild() as child:
        yield child


def ask(
    child: FetchChild,
    op: str,
    url: str,
    folder: Path,
    *,
    sha256: str = "",
    wall_s: float = 10.0,
    entries: int = 50,
    admission: Any = None,
    **settings: object,
) -> Answer:
    told = WebSettings(**{"allow_addresses": ("127.0.0.1",), "generic": True, "socket_timeout_s": 1.0, **settings})  # type: ignore[arg-type]
    return child.ask(
        Ask(
            op=op,
            url=url,
            folder=str(folder),
            wall_s=wall_s,
            max_bytes=20_000_000,
            expected_sha256=sha256,
            entries=entries,
            settings=told,
        ),  # type: ignore[arg-type]
        admission,
    )


@pytest.mark.parametrize(
    ("url", "is_generic", "via", "extractor"),
    [
        ("https://www.youtube.com/shorts/aBcDeFgHiJ1", False, "yt_dlp", "Youtube"),
        ("https://youtu.be/aBcDeFgHiJ1", False, "yt_dlp", "Youtube"),
        ("https://vimeo.com/123456", False, "yt_dlp", "Vimeo"),
        ("https://www.tiktok.com/@a/video/6748451240264420610", False, "yt_dlp", "TikTok"),
        ("https://example.com/a/page", False, "direct", None),
        ("https://example.com/a/page", True, "yt_dlp", "generic"),
        ("https://example.com/a/film.MP4?x=1", True, "direct", None),
    ],
)
def test_who_fetches_is_told_without_a_network(
    child: FetchChild, tmp_path: Path, url: str, is_generic: bool, via: str, extractor: str | None
) -> None:
    answer = ask(child, "which", url, tmp_path, generic=is_generic)
    assert answer.metadata == {"via": via, "extractor": extractor}


@pytest.mark.parametrize("kind", ["video", "og", "json-ld"])
def test_a_player_in_a_page_is_found_and_its_media_kept(
    site: Site, child: FetchChild, samples: Path, tmp_path: Path, kind: str
) -> None:
    url = site.url(f"/page/{kind}/bunny-unlucky-bird.mp4")
    said = ask(child, "metadata", url, tmp_path).metadata
    assert said["title"].startswith("A film called bunny-unlucky-bird.mp4") and said["hashtags"][:2] == ["film", "тест"]
    if kind == "json-ld":
        assert (said["duration_s"], said["view_count"], said["upload_date"]) == (9.0, 41, "2026-01-31")
    answer = ask(child, "media", url, tmp_path)
    data = (samples / "bunny-unlucky-bird.mp4").read_bytes()
    assert (answer.file, answer.sha256) == ("source", hashlib.sha256(data).hexdigest())
    assert (tmp_path / "source").read_bytes() == data


def test_the_page_is_asked_for_once(site: Site, child: FetchChild, tmp_path: Path) -> None:
    url = site.url("/page/video/bunny-unlucky-bird.mp4")
    site.hits.clear()
    ask(child, "metadata", url, tmp_path)
    admitted = Admitted()
    ask(child, "media", url, tmp_path, admission=admitted)
    assert admitted.asked == [("127.0.0.1", "media")], "page and robots.txt were read for the metadata"
    assert [hit.path for hit in site.hits].count("/page/video/bunny-unlucky-bird.mp4") == 1


def test_the_generic_extractor_is_off_unless_asked_for(site: Site, child: FetchChild, tmp_path: Path) -> None:
    site.hits.clear()
    answer = ask(child, "metadata", site.url("/page/video/bunny-wake.mp4"), tmp_path, generic=False)
    assert (answer.reason, site.hits) == ("unsupported_address", [])


def test_a_stream_of_segments_is_put_together(site: Site, child: FetchChild, tmp_path: Path) -> None:
    answer = ask(child, "media", site.url("/hls/bunny-wake.mp4/index.m3u8"), tmp_path)
    assert answer.ok
    found = probe(tmp_path / "source", tmp_path, Limits())
    assert abs(found.duration_s - 10) < 0.3 and found.audio_duration_s


@pytest.mark.parametrize("path", ["/hls/apart/bunny-wake.mp4/index.m3u8", "/dash/bunny-wake.mp4/index.mpd"])
@pytest.mark.parametrize("is_known", [False, True])
def test_video_and_audio_that_come_apart_are_merged_without_coding(
    site: Site, child: FetchChild, tmp_path: Path, path: str, is_known: bool
) -> None:
    sums = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        if is_known:
            assert ask(child, "metadata", site.url(path), folder).ok
        answer = ask(child, "media", site.url(path), folder)
        assert (answer.file, answer.audio_file) == ("source.video", "source.audio")
        merged = merge(folder, answer.file or "", answer.audio_file or "")
        assert merged == folder / "source" and not (folder / "source.video").exists()
        sums.append(hashlib.sha256(merged.read_bytes()).hexdigest())
    found = probe(merged, tmp_path, Limits())
    assert (found.video_codec, found.audio_codec) == ("h264", "aac") and abs(found.duration_s - 10) < 0.3
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing", "gone"),
        ("/fault/private/x", "private"),
        ("/fault/login/x", "login_required"),
        ("/fault/geo/x", "geo"),
        ("/fault/forbidden/x", "blocked"),
        ("/fault/rate_limited/x", "rate_limited"),
        ("/fault/unavailable/x", "server_error"),
        ("/fault/loop/x", "redirect_loop"),
        ("/fault/to_metadata/x", "ssrf"),
        ("/fault/reset/x", "network"),
        ("/fault/html/x.mp4", "not_media"),
        ("/fault/truncated/x.mp4", "truncated"),
        ("/fault/truncated_without_length/x.mp4", "truncated"),
        ("/fault/truncated_chunked/x.mp4", "truncated"),
        ("/fault/half/x.mp4", "truncated"),
        ("/half-of/film.mkv", "truncated"),
        ("/half-of/film.webm", "truncated"),
        ("/fault/junk/x.mp4", "truncated"),
        ("/fault/gzip_cut/x.mp4", "truncated"),
        ("/fault/gzip_cut_audio/x.mp3", "truncated"),
        ("/fault/gzip_damaged/x.mp4", "truncated"),
        ("/fault/two_lengths/x.mp4", "server_error"),
        ("/members/bunny-wake.mp4", "login_required"),
        ("/fault/stall/x.mp4", "timeout"),
        ("/fault/drip/x.mp4", "timeout"),
        ("/fault/endless/x.mp4", "too_large"),
        ("/fault/huge/x.mp4", "too_large"),
        ("/page/noai/bunny-wake.mp4", "noai"),
        ("/disallowed/bunny-wake.mp4", "robots"),
        ("/page/playlist", "unsupported_address"),
        ("/fault/noai_on_the_way/x", "noai"),
        ("/fault/to_disallowed/x", "robots"),
        ("/fault/reserved_elsewhere/x", "noai"),
        ("/fault/content_usage/x.mp4", "noai"),
        ("/page/meta-noai/bunny-wake.mp4", "noai"),
        ("/page/meta-reserved/bunny-wake.mp4", "noai"),
        ("/page/huge/bunny-wake.mp4", "too_large"),
        ("/page/endless/bunny-wake.mp4", "too_large"),
        ("/page/packed/bunny-wake.mp4", "too_large"),
    ],
)
def test_faults_are_called_by_their_names(
    site: Site, child: FetchChild, tmp_path: Path, path: str, reason: str
) -> None:
    answer = ask(child, "media", site.url(path), tmp_path, wall_s=3 if "drip" in path else 10)
    assert answer.reason == reason, answer
    assert answer.retry_after_s == (1.0 if reason == "rate_limited" else None)


@pytest.mark.parametrize("route", ["clip", "chunked", "without-length", "gzip", "deflate", "members"])
def test_a_file_comes_whole_however_it_is_sent(
    site: Site, child: FetchChild, samples: Path, tmp_path: Path, route: str
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tany\n")
    answer = ask(child, "media", site.url(f"/{route}/bunny-wake.mp4"), tmp_path, cookies=str(cookies))
    assert (answer.reason, answer.file) == (None, "source"), answer
    assert (tmp_path / "source").read_bytes() == (samples / "bunny-wake.mp4").read_bytes()


@pytest.mark.parametrize("robots", [True, False])
@pytest.mark.parametrize("browser", ["", "chrome"])
def test_a_refused_connection_is_told_as_one(tmp_path: Path, robots: bool, browser: str) -> None:
    with FetchChild() as child:
        answer = ask(child, "media", "http://127.0.0.1:9/page", tmp_path, robots=robots, impersonate=browser)
    assert answer.reason == "network" and "unexpected error" not in answer.detail
    assert re.search("Connection refused|Could not connect", answer.detail), answer.detail


def test_a_page_and_a_file_behind_a_cookie_are_found(site: Site, child: FetchChild, tmp_path: Path) -> None:
    assert ask(child, "media", site.url("/cookie/bunny-wake.mp4"), tmp_path).ok


@pytest.mark.parametrize("path", ["/hops/3/bunny-unlucky-bird.mp4", "/hls/bunny-wake.mp4/index.m3u8"])
@pytest.mark.parametrize("browser", ["", "chrome"])
def test_every_request_of_a_visit_is_admitted(site: Site, tmp_path: Path, path: str, browser: str) -> None:
    site.hits.clear()
    admitted = Admitted()
    with FetchChild() as child:
        assert ask(child, "media", site.url(path), tmp_path, admission=admitted, impersonate=browser).ok
    assert len(admitted.asked) == len(admitted.statuses) == len(site.hits) > 5
    kinds = [kind for _, kind in admitted.asked]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"page", "media"}


def test_a_list_gives_its_entries_up_to_a_number(site: Site, child: FetchChild, tmp_path: Path) -> None:
    entries = ask(child, "search", site.url("/page/playlist"), tmp_path, entries=3).metadata["entries"]
    assert [entry["url"] for entry in entries] == [
        site.url(f"/clip/bunny-{name}") for name in ("apple.mp4", "butterfly.mp4", "flower.mp4")
    ]


def test_other_bytes_than_recorded_are_told(site: Site, child: FetchChild, tmp_path: Path) -> None:
    url = site.url("/page/video/bunny-unlucky-bird.mp4")
    assert ask(child, "media", url, tmp_path, sha256="0" * 64).reason == "changed_content"


def test_no_cookie_is_left_in_the_folder(site: Site, child: FetchChild, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\ts3cr3t-cookie\n")
    folder = tmp_path / "clip"
    folder.mkdir()
    site.hits.clear()
    assert ask(child, "metadata", site.url("/page/video/bunny-wake.mp4"), folder, cookies=str(cookies)).ok
    assert "s3cr3t-cookie" not in (folder / "info.json").read_text()
    assert json.loads((folder / "info.json").read_text())["info"]["extractor"]


ALL_BESIDE = {"subtitles": ["en", "de.*"], "thumbnail": True}


def test_requested_subtitles_and_the_thumbnail_come_with_the_media(
    site: Site, child: FetchChild, tmp_path: Path
) -> None:
    url = site.url(
        "/page/tracks/bunny-wake.mp4?en=/text/hello&de-AT=/text/servus&fr=/text/salut&12=/text/n&image=/image/x"
    )
    answer = ask(child, "media", url, tmp_path, subtitles=["en", "de.*", "12"], thumbnail=True)
    assert (answer.reason, answer.notes) == (None, ())
    texts = {language: (tmp_path / name).read_text() for language, name in answer.subtitle_files.items()}
    assert {language: text.splitlines()[-1] for language, text in texts.items()} == {
        "en": "hello", "de-AT": "servus", "x-12": "n",
    }  # fmt: skip
    assert (tmp_path / str(answer.thumbnail_file)).read_bytes() == IMAGE


def test_what_is_not_requested_is_not_asked_for(site: Site, child: FetchChild, tmp_path: Path) -> None:
    site.hits.clear()
    answer = ask(child, "media", site.url("/page/tracks/bunny-wake.mp4?en=/text/hello&image=/image/x"), tmp_path)
    assert (answer.ok, answer.subtitle_files, answer.thumbnail_file, answer.notes) == (True, {}, None, ())
    assert not [hit.path for hit in site.hits if hit.path.startswith(("/text", "/image"))]


@pytest.mark.parametrize(
    ("query", "notes"),
    [
        ("en=/fault/forbidden/x&de=/text/a&image=/image/x", ["subtitles en: blocked"]),
        ("en=/fault/reset/x&de=/text/a&image=/image/x", ["subtitles en: network"]),
        ("en=/fault/endless/x&de=/text/a&image=/image/x", ["subtitles en: too_large"]),
        ("en=/text/a&image=/image/x", ["subtitles de.*: the platform has none"]),
        ("en=/text/a&de=/text/a", ["thumbnail: gone: the platform has none"]),
        ("en=/text/a&de=/text/a&image=/text/x", ["thumbnail: not_media: text is no image"]),
        ("en=/text/a&de=/text/a&image=/nothing", ["thumbnail: gone"]),
        ("en=/text/a&de=/text/a&image=/fault/to_metadata/x", ["thumbnail: ssrf"]),
        ("fr=/text/a", ["subtitles en: the platform has none", "subtitles de.*: the platform has none", "thumbnail: gone"]),
    ],
)  # fmt: skip
def test_what_is_requested_and_not_had_is_a_note_and_not_a_failure(
    site: Site, child: FetchChild, tmp_path: Path, query: str, notes: list[str]
) -> None:
    answer = ask(child, "media", site.url(f"/page/tracks/bunny-wake.mp4?{query}"), tmp_path, **ALL_BESIDE)
    assert answer.ok and answer.file == "source"
    assert len(answer.notes) == len(notes), answer.notes
    for note, start in zip(answer.notes, notes, strict=True):
        assert note.startswith(start)


class TestSearch:
    """A search by words, through an extractor that stands where a platform's would."""

    @pytest.mark.parametrize(
        ("key", "host", "extractor"),
        [
            ("ytsearch20", "youtube.com", "YoutubeSearch"),
            ("nicosearchdate20", "nicovideo.jp", "NicovideoSearchDate"),
            ("scsearch", "soundcloud.com", "SoundcloudSearch"),
        ],
    )
    def test_a_search_is_one_of_yt_dlps_on_the_budget_of_its_platform(
        self, key: str, host: str, extractor: str
    ) -> None:
        assert (host_of(f"{key}:rain"), matching_extractor(f"{key}:rain")) == (host, extractor)

    def test_a_search_that_yt_dlp_has_not_is_answered_with_those_that_it_has(
        self, child: FetchChild, tmp_path: Path
    ) -> None:
        answer = ask(child, "search", "ytsearchdate5:rain", tmp_path)
        assert (answer.reason, answer.transient) == ("unsupported_address", False)
        assert "no search ytsearchdate5: it has bilisearch, " in answer.detail and " ytsearch," in answer.detail

    @pytest.mark.parametrize("key", ["sitesearch", "sitesearchdate"])
    def test_words_become_entries(self, site: Site, tmp_path: Path, key: str) -> None:
        with FetchChild(module="tests.site.strange_child", function="with_search") as child:
            answer = ask(child, "search", f"{key}4:{site.port} rain", tmp_path, entries=4)
            assert [entry["title"] for entry in answer.metadata["entries"]] == [f"rain {n}" for n in range(4)]
            assert all(entry["url"].startswith(site.url("/page/")) for entry in answer.metadata["entries"])
