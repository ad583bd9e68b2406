"""`fetch.impersonate`: what a server sees of an imitated browser, and what comes of its answers.

That libcurl goes to no address that the guard refuses is in tests/fault/test_fetch_guard.py.
"""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from tests.site import Site
from tests.site.admitted import Admitted
from tests.site.server import Exchange, Server
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.child import FetchChild
from vidal.crawl.settings import WebSettings


@pytest.fixture(scope="module")
def child() -> Iterator[FetchChild]:
    with FetchChild() as child:
        yield child


def ask(
    child: FetchChild, url: str, folder: Path, wall_s: float = 10, admission: Any = None, **given: object
) -> Answer:
    told = {"impersonate": "chrome", "allow_addresses": ["127.0.0.1"], "generic": True, "socket_timeout_s": 1.0}
    settings = WebSettings(**(told | given))  # type: ignore[arg-type]
    asked = Ask(op="media", url=url, folder=str(folder), wall_s=wall_s, max_bytes=20_000_000, settings=settings)
    return child.ask(asked, admission)


class Recording:
    """A server that keeps the headers of each request, sets a cookie, and redirects ``/to`` to the file."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._server = Server(("127.0.0.1",), self._answer)
        self.port = self._server.port

    def _answer(self, exchange: Exchange) -> None:
        self.asked.append((exchange.target, exchange.headers))
        if exchange.path == "/to":
            exchange.send(302, Location="/file.mp4", Set_Cookie="been=here; Path=/")
        elif exchange.path == "/file.mp4":
            exchange.send_file(ROOT / "samples" / "clips" / "bunny-wake.mp4")
        else:
            exchange.send(404)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


def test_the_server_sees_the_browser_but_for_robots_txt(child: FetchChild, tmp_path: Path) -> None:
    with Recording() as server:
        assert ask(child, f"http://127.0.0.1:{server.port}/to", tmp_path).ok
    agents = {target: headers["user-agent"] for target, headers in server.asked}
    assert agents["/robots.txt"].startswith("vidal/")
    assert "Chrome/" in agents["/to"] == agents["/file.mp4"]
    last = server.asked[-1][1]
    assert '"Google Chrome"' in last["sec-ch-ua"] and "been=here" in last["cookie"]


def test_the_handshake_is_the_browsers(child: FetchChild, tmp_path: Path) -> None:
    hellos: dict[str, bytes] = {}
    for browser in ("", "chrome"):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def listen(listener: socket.socket = listener, browser: str = browser) -> None:
                connection, _ = listener.accept()
                hellos[browser] = connection.recv(4096)
                connection.close()

            thread = threading.Thread(target=listen)
            thread.start()
            url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
            assert ask(child, url, tmp_path, robots=False, impersonate=browser).reason == "network"
            thread.join()
    # Chrome compresses certificates with Brotli (extension 27), and speaks HTTP/2.
    assert [b"\x00\x1b\x00\x03\x02\x00\x02" in hello for hello in hellos.values()] == [False, True]
    assert [b"\x02h2" in hello for hello in hellos.values()] == [False, True]


def test_a_proxy_is_asked_on_every_hop(child: FetchChild, tmp_path: Path) -> None:
    with Recording() as server:
        proxy = f"http://name:p4ss@127.0.0.1:{server.port}"
        admitted = Admitted()
        given = {"allow_addresses": [], "proxy": proxy, "robots": False}
        assert ask(child, "http://example.com/to", tmp_path, admission=admitted, **given).ok
    assert {target for target, _ in server.asked} == {"http://example.com/to", "http://example.com/file.mp4"}
    assert {headers["proxy-authorization"] for _, headers in server.asked} == {"Basic bmFtZTpwNHNz"}
    assert len(admitted.asked) == len(server.asked)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/fault/forbidden/x", "blocked"),
        ("/fault/rate_limited/x", "rate_limited"),
        ("/fault/loop/x", "redirect_loop"),
        ("/fault/reset/x", "network"),
        ("/fault/truncated/x.mp4", "truncated"),
        ("/fault/gzip_cut/x.mp4", "truncated"),
        ("/fault/gzip_cut_audio/x.mp3", "truncated"),
        ("/fault/gzip_damaged/x.mp4", "truncated"),
        ("/fault/two_lengths/x.mp4", "server_error"),
        ("/fault/gzip_bomb/x.mp4", "too_large"),
        ("/half-packed/br/bunny-wake.mp4", "truncated"),
        ("/half-packed/zstd/bunny-wake.mp4", "truncated"),
        ("/half-packed/deflate/bunny-wake.mp4", "truncated"),
        ("/fault/stall/x.mp4", "timeout"),
        ("/fault/drip/x.mp4", "timeout"),
        ("/fault/endless/x.mp4", "too_large"),
        ("/fault/noai_on_the_way/x", "noai"),
        ("/disallowed/bunny-wake.mp4", "robots"),
        ("/page/meta-noai/bunny-wake.mp4", "noai"),
        ("/page/packed/bunny-wake.mp4", "too_large"),
    ],
)
def test_faults_are_called_by_the_names_that_they_have_without_it(
    site: Site, child: FetchChild, tmp_path: Path, path: str, reason: str
) -> None:
    answer = ask(child, site.url(path), tmp_path, wall_s=3 if reason == "timeout" else 10)
    assert answer.reason == reason, answer
    assert child.starts == 1, "the child keeps the deadline itself"


@pytest.mark.parametrize("route", ["clip", "chunked", "gzip", "deflate", "packed/br", "packed/zstd", "packed/gzip, br"])
def test_a_file_comes_whole_however_it_is_packed(
    site: Site, child: FetchChild, samples: Path, tmp_path: Path, route: str
) -> None:
    answer = ask(child, site.url(f"/{quote(route)}/bunny-wake.mp4"), tmp_path)
    assert (answer.reason, answer.file) == (None, "source"), answer
    assert (tmp_path / "source").read_bytes() == (samples / "bunny-wake.mp4").read_bytes()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def test_without_its_package_or_with_no_such_browser_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"'netscape' is no browser of curl-cffi's; choose from .*chrome"):
        WebSettings(impersonate="netscape")
    found = importlib.util.find_spec
    monkeypatch.setattr("vidal.crawl.settings.find_spec", lambda name: None if name == "curl_cffi" else found(name))
    assert WebSettings().impersonate == ""
    with pytest.raises(ValidationError, match=r"needs curl-cffi, which is not installed: pip install 'vidal\[imp"):
        WebSettings(impersonate="chrome")
