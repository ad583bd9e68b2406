"""The fetching child against hostile addresses: a honey server on every address of this machine is never hit."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.site import Honey, Site
from tests.site.pages import HOSTILE_TITLES
from tests.unit.crawl.test_address_rules import NOT_PUBLIC
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.child import FetchChild
from vidal.crawl.settings import WebSettings

BROWSER = {"impersonate": "chrome"}
"""With it libcurl opens the connections, where no audit hook of Python's is called."""
OPEN = {"allow_addresses": ("127.0.0.1",), "socket_timeout_s": 2.0}

HOSTILE_HOSTS = [
    "127.0.0.9", "127.8.9.10", "127.255.255.254", "0.0.0.0", "0", "127.1", "127.9", "127.0.9", "0177.0.0.9", "0x7f.0.0.9", "0x7f000009",
    "2130706441", "017700000011", "127.0.0.9.", "127.000.000.009", "0x7f.9", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.9]",
    "[::ffff:7f00:9]", "[::ffff:127.0.0.1]", "[::127.0.0.9]", "[64:ff9b::7f00:9]", "[64:ff9b:1::7f00:9]", "[2002:7f00:9::1]",
    "[2001:0:7f00:9::1]", "[::ffff:0:127.0.0.9]", "[fe80::1%25lo]", "[::1%25lo]", "user@127.0.0.9", "user:pass@127.0.0.9",
    "127.0.0.1@127.0.0.9", "１２７.0.0.9", "127。0。0。9", "①②⑦.0.0.9", "%31%32%37.0.0.9", "127.0.0.9%2f", "127.0.0.9%00.example.com",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[fc00::1]", "224.0.0.1",
    "255.255.255.255", "168.63.129.16", "[ff02::1]", "192.0.0.192", "198.18.0.1", "240.0.0.1",
]  # fmt: skip

DENIED_ADDRESSES = [address for address in NOT_PUBLIC if address != "127.0.0.1" and "%" not in address]


@pytest.fixture(scope="module")
def honey() -> Iterator[Honey]:
    with Honey() as honey:
        yield honey


@pytest.fixture(scope="module")
def site(honey: Honey) -> Iterator[Site]:
    with Site(embedded=honey.url("127.0.0.9", "/")) as site:
        yield site


@pytest.fixture(scope="module")
def child() -> Iterator[FetchChild]:
    with FetchChild() as child:
        yield child


def ask(child: FetchChild, folder: Path, url: str, op: str = "direct", **settings: object) -> Answer:
    told = WebSettings(**{**OPEN, **settings})  # type: ignore[arg-type]
    return child.ask(Ask(op=op, url=url, folder=str(folder), wall_s=10, max_bytes=50_000_000, settings=told))  # type: ignore[arg-type]


def test_the_honey_server_can_be_hit(honey: Honey, child: FetchChild, tmp_path: Path) -> None:
    """So that no hits mean something."""
    assert ask(child, tmp_path, honey.url("127.0.0.9"), allow_addresses=("127.0.0.9",)).ok
    assert any(hit.path == "/secret.mp4" for hit in honey.hits)
    honey.hits.clear()


@pytest.mark.parametrize(("op", "how"), [("direct", {}), ("metadata", {}), ("metadata", BROWSER)])
def test_hostile_addresses_are_refused_and_hit_nothing(
    honey: Honey, child: FetchChild, tmp_path: Path, op: str, how: dict[str, object]
) -> None:
    for host in HOSTILE_HOSTS:
        answer = ask(child, tmp_path, honey.url(host), op, generic=True, **how)
        assert (answer.ok, answer.reason, answer.transient) == (False, "ssrf", False), host
    assert honey.hits == []


@pytest.mark.parametrize(
    ("op", "hops", "how"),
    [("direct", 1, {}), ("direct", 4, {}), ("media", 1, {}), ("media", 4, {}), ("media", 4, BROWSER)],
)
def test_redirects_to_hostile_addresses_are_refused(
    honey: Honey, site: Site, child: FetchChild, tmp_path: Path, op: str, hops: int, how: dict[str, object]
) -> None:
    plain = [host for host in HOSTILE_HOSTS if host.isascii() and "%" not in host]
    for host in plain:
        url = site.url(f"/to?hops={hops}&url={quote(honey.url(host), safe='')}")
        answer = ask(child, tmp_path, url, op, generic=True, **how)
        assert answer.reason == "ssrf", (host, answer)
    for target in ("file:///etc/passwd", "ftp://127.0.0.9/x", "gopher://127.0.0.9/", "//127.0.0.9/"):
        answer = ask(child, tmp_path, site.url(f"/to?url={quote(target, safe='')}"), op, generic=True, **how)
        assert answer.reason == "ssrf", target
    assert honey.hits == []


@pytest.mark.parametrize("how", [{}, BROWSER])
def test_a_players_source_inside_is_refused(
    honey: Honey, site: Site, child: FetchChild, tmp_path: Path, how: dict[str, object]
) -> None:
    answer = ask(child, tmp_path, site.url("/page/harm/x.mp4"), "media", generic=True, **how)
    assert (answer.reason, honey.hits) == ("ssrf", [])


def test_only_what_the_settings_open_is_open(site: Site, child: FetchChild, tmp_path: Path) -> None:
    path = "/clip/bunny-unlucky-bird.mp4"
    opened = [
        (("127.0.0.1",), [True, False, False]),
        (("127.0.0.2", "127.0.0.3"), [False, True, True]),
        (("127.0.0.0/30",), [True, True, True]),
        ((), [False, False, False]),
    ]
    for addresses, expected in opened:
        answers = [ask(child, tmp_path, site.url(path, host), allow_addresses=addresses) for host in range(3)]
        assert [answer.ok for answer in answers] == expected
        assert {answer.reason for answer in answers if not answer.ok} <= {"ssrf"}


def test_local_names_go_where_the_settings_say_or_nowhere(site: Site, child: FetchChild, tmp_path: Path) -> None:
    url = f"http://localhost:{site.port}/clip/bunny-unlucky-bird.mp4"
    assert ask(child, tmp_path, url).ok
    assert ask(child, tmp_path, url, allow_addresses=("127.0.0.2",)).reason == "ssrf"
    assert ask(child, tmp_path, url, allow_addresses=()).reason == "ssrf"


@pytest.mark.parametrize("op", ["direct", "metadata"])
def test_a_name_that_resolves_otherwise_when_it_matters_is_refused(
    honey: Honey, site: Site, tmp_path: Path, op: str
) -> None:
    with FetchChild(module="tests.site.strange_child", function="rebinding") as child:
        good = f"http://good.example:{site.port}/clip/bunny-wake.mp4"
        assert ask(child, tmp_path, good, op, generic=True).ok
        for host in ("private.example", "public-then-private.example", "public-then-private.example"):
            answer = ask(child, tmp_path, honey.url(host), op, generic=True)
            assert not answer.ok and answer.reason in ("ssrf", "network", "timeout"), answer
        assert answer.reason == "ssrf"
        back = site.url(f"/to?url={quote(honey.url('private.example'), safe='')}")
        assert ask(child, tmp_path, back, op, generic=True).reason == "ssrf"
    assert honey.hits == []


def test_an_imitated_browser_goes_to_no_hostile_address_that_a_name_resolves_to(
    honey: Honey, site: Site, tmp_path: Path
) -> None:
    """Whatever libcurl is told of a name: it is stopped where it would connect."""

    def told(address: str) -> str:
        return f"a{ipaddress.ip_address(address).packed.hex()}.example"

    how = {**BROWSER, "generic": True, "robots": False}
    with FetchChild(module="tests.site.strange_child", function="resolving") as child:
        assert ask(child, tmp_path, f"http://{told('127.0.0.1')}:{site.port}/clip/bunny-wake.mp4", "media", **how).ok
        for address in (*DENIED_ADDRESSES, "127.0.0.9"):
            answer = ask(child, tmp_path, honey.url(told(address)), "metadata", allow_addresses=("127.0.0.1",), **how)
            assert (answer.reason, answer.transient) == ("ssrf", False), (address, answer)
            assert "is not a public address" in answer.detail
        back = site.url(f"/to?url={quote(honey.url(told('::ffff:127.0.0.9')), safe='')}")
        assert ask(child, tmp_path, back, "media", **how).reason == "ssrf"
    assert honey.hits == []


@pytest.fixture(scope="module")
def strange() -> Iterator[FetchChild]:
    with FetchChild(module="tests.site.strange_child", function="misbehaving") as child:
        yield child


@pytest.mark.parametrize("act", ["datagram", "by_name", "catch"])
def test_no_way_of_connecting_gets_by(honey: Honey, strange: FetchChild, tmp_path: Path, act: str) -> None:
    answer = ask(strange, tmp_path, f"http://example.com/{act}?{honey.port}")
    assert (answer.ok, answer.reason, honey.hits) == (False, "ssrf", [])


def test_sockets_of_this_machine_are_out_of_reach(strange: FetchChild, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as taken:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(0.1)
        assert ask(strange, tmp_path, f"http://example.com/unix?{tmp_path / 's'}").reason == "ssrf"
        with pytest.raises(TimeoutError):
            listener.accept()
        assert ask(strange, tmp_path, f"http://example.com/listen?{taken.getsockname()[1] + 1}").reason == "ssrf"
    assert ask(strange, tmp_path, "http://example.com/netlink").reason == "ssrf"


@pytest.mark.parametrize("act", ["write", "move", "link", "program"])
def test_nothing_is_written_or_started_outside_the_clips_folder(strange: FetchChild, tmp_path: Path, act: str) -> None:
    folder, outside = tmp_path / "clip", tmp_path / "outside"
    folder.mkdir()
    assert not ask(strange, folder, f"http://example.com/{act}?{outside}").ok
    assert not outside.exists()


def test_no_process_comes_of_a_fork(strange: FetchChild, tmp_path: Path) -> None:
    assert not ask(strange, tmp_path, "http://example.com/fork").ok


def test_no_name_or_title_leads_out_of_the_folder(site: Site, child: FetchChild, tmp_path: Path) -> None:
    assert len(HOSTILE_TITLES) >= 40
    folder = tmp_path / "shard" / "clip"
    folder.mkdir(parents=True)
    for number, name in enumerate(HOSTILE_TITLES):
        assert ask(child, folder, site.url(f"/named/x.mp4?name={quote(name)}")).ok
        if number % 4 == 0:
            answer = ask(child, folder, site.url(f"/page/title/{number}"), "metadata", generic=True)
            assert answer.ok and "\0" not in (answer.metadata["title"] or "")
            assert ask(child, folder, site.url(f"/page/title/{number}"), "media", generic=True).ok
        assert {path.name for path in folder.iterdir()} <= {"source", "info.json"}
        assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder] == []
        for path in folder.iterdir():
            path.unlink()


def test_an_explicit_proxy_is_the_one_thing_spoken_to(
    honey: Honey, site: Site, child: FetchChild, tmp_path: Path
) -> None:
    """The honey server plays the proxy: it is asked for the whole address, and the site is not."""
    before = len(site.hits)
    for op, how in (("direct", {}), ("metadata", {}), ("metadata", BROWSER)):
        ask(
            child,
            tmp_path,
            "http://example.com/a.mp4",
            op,
            generic=True,
            robots=False,
            proxy=honey.url("127.0.0.9", ""),
            **how,
        )
    asked = [hit.path for hit in honey.hits]
    honey.hits.clear()
    assert set(asked) == {"http://example.com/a.mp4"} and len(site.hits) == before
    through = ask(child, tmp_path, "http://10.0.0.1/a.mp4", proxy=honey.url("127.0.0.9", ""))
    assert (through.reason, honey.hits) == ("ssrf", [])


def test_a_proxy_is_asked_for_a_tunnel_to_a_name_it_resolves(honey: Honey, child: FetchChild, tmp_path: Path) -> None:
    """The honey server opens none, so that TLS gets nowhere; nothing else is spoken to."""
    proxy = honey.url("127.0.0.9", "").replace("//", "//name:p4ss@")
    answer = ask(child, tmp_path, "https://no-such-host.example.com/a.mp4", robots=False, proxy=proxy)
    asked = [hit.path for hit in honey.hits]
    honey.hits.clear()
    assert (answer.ok, answer.reason in ("timeout", "network")) == (False, True)
    assert asked == ["no-such-host.example.com:443"]


def test_proxies_of_the_environment_are_ignored(
    honey: Honey, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, honey.url("127.0.0.9", ""))
    with FetchChild() as child:
        for op, how in (("direct", {}), ("metadata", {}), ("metadata", BROWSER)):
            assert ask(child, tmp_path, site.url("/clip/bunny-wake.mp4"), op, generic=True, **how).ok
    assert honey.hits == []
