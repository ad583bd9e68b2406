"""Fetching children that are not as they should be: started in place of the real one by the tests."""

from __future__ import annotations

import ipaddress
import os
import resource
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from vidal.crawl import child_main, http, javascript
from vidal.crawl.ask import Answer, Ask


def rebinding() -> None:
    """Its resolver gives a public address to whoever checks, and 127.0.0.9 to whoever connects; hosts by fiat."""
    asked: dict[str, int] = {}

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        asked[name] = asked.get(name, 0) + 1
        address = {"public-then-private.example": "8.8.8.8" if asked[name] == 1 else "127.0.0.9"}.get(name, "127.0.0.9")
        if name == "good.example" or name == "127.0.0.1":
            address = "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]

    socket.getaddrinfo = resolve  # type: ignore[assignment]
    child_main.main()


def resolving() -> None:
    """Its libcurl takes a name such as ``a7f000009.example`` for the address that it spells, as a hostile DNS could."""
    from curl_cffi import Curl, CurlOpt

    set_option = Curl.setopt

    def with_answer(curl: Curl, option: CurlOpt, value: Any) -> int:
        if option == CurlOpt.URL and (parts := urlsplit(value.decode())).hostname.endswith(".example"):
            address = ipaddress.ip_address(bytes.fromhex(parts.hostname[1:].partition(".")[0]))
            answer = f"[{address}]" if address.version == 6 else str(address)
            set_option(curl, CurlOpt.RESOLVE, [f"{parts.hostname}:{parts.port}:{answer}"])
        return set_option(curl, option, value)

    Curl.setopt = with_answer  # type: ignore[method-assign]
    child_main.main()


def misbehaving() -> None:
    """Does what the address's path names, instead of a download."""
    direct = http.Client.direct

    def act(client: http.Client, ask: Ask) -> Answer:
        what, _, given = ask.url.rpartition("example.com/")[2].partition("?")
        if what not in _ACTS:
            return direct(client, ask)
        said = _ACTS[what](ask, given)
        return Answer(ok=True, metadata={"said": str(said)})

    http.Client.direct = act  # type: ignore[method-assign]
    child_main.main()


def _fill(ask: Ask, given: str) -> None:
    """Many files, each below the limit."""
    for n in range(1000):
        (Path(ask.folder) / f"part{n}").write_bytes(bytes(4 << 20))
        time.sleep(0.01)


def _one_file(ask: Ask, given: str) -> None:
    with (Path(ask.folder) / "source").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))


def _spin(ask: Ask, given: str) -> None:
    while True:
        pass


def _hold_interpreter(ask: Ask, given: str) -> None:
    """A regular expression that holds the interpreter's lock for longer than anyone waits."""
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")


def _print(ask: Ask, given: str) -> str:
    print('{"ok": true, "file": "/etc/passwd"}', flush=True)
    os.write(1, b'{"ok": true}\n')
    os.write(2, b"x" * 100_000)
    return "printed"


def _tell_environment(ask: Ask, given: str) -> str:
    return str(dict(os.environ))


def _start_program(ask: Ask, given: str) -> str:
    import subprocess

    return str(subprocess.run(["/bin/sh", "-c", f"echo hit > {given}"], check=True))


def _javascript(ask: Ask, given: str) -> str:
    javascript._LIMITS[resource.RLIMIT_CPU] = (3, 3)
    return javascript.run(unquote(given), Path(os.environ["HOME"]))


def _challenge(ask: Ask, given: str) -> str:
    """What yt-dlp's own solver makes of a challenge, with the address as the player's code."""
    from vidal.crawl.downloader import Downloader, Log
    from vidal.crawl.http import Client

    downloader = Downloader(ask, Client(), Log())
    extractor = downloader.get_info_extractor("Youtube")
    extractor.initialize()
    solver = next(p for p in extractor._jsc_director.providers.values() if p.is_available())
    request = SimpleNamespace(type=SimpleNamespace(value="n"), input=SimpleNamespace(challenges=["abc"]))
    return str(solver._run_js_runtime(solver._construct_stdin(unquote(given), False, [request])))


def _clients(ask: Ask, given: str) -> str:
    """The clients that yt-dlp would be to YouTube."""
    from vidal.crawl.downloader import Downloader, Log
    from vidal.crawl.http import Client

    extractor = Downloader(ask, Client(), Log()).get_info_extractor("Youtube")
    extractor.initialize()
    return " ".join(extractor._get_requested_clients("https://www.youtube.com/watch?v=x", {}, False))


def _fork(ask: Ask, given: str) -> int:
    return os.fork()


def _unix(ask: Ask, given: str) -> None:
    socket.socket(socket.AF_UNIX).connect(given)


def _datagram(ask: Ask, given: str) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.9", int(given)))


def _by_name(ask: Ask, given: str) -> None:
    socket.socket().connect(("localhost", int(given)))


def _listen(ask: Ask, given: str) -> None:
    socket.socket().bind(("127.0.0.1", int(given)))


def _netlink(ask: Ask, given: str) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


def _write(ask: Ask, given: str) -> int:
    return Path(given).write_text("hit")


def _move(ask: Ask, given: str) -> None:
    inside = Path(ask.folder) / "inside"
    inside.write_text("hit")
    inside.rename(given)


def _link(ask: Ask, given: str) -> None:
    (Path(ask.folder) / "out").symlink_to(Path(given).parent)
    (Path(ask.folder) / "out" / Path(given).name).write_text("hit")


def _catch(ask: Ask, given: str) -> str:
    """A library that takes any exception for bad luck and continues."""
    try:
        socket.create_connection(("127.0.0.9", int(given)), timeout=2)
    except BaseException as error:
        raise ValueError("something else went wrong") from error
    return "connected"


_ACTS: dict[str, Any] = {
    "die": lambda ask, given: os._exit(3), "kill": lambda ask, given: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda ask, given: os.abort(), "sleep": lambda ask, given: time.sleep(600), "spin": _spin,
    "hold": _hold_interpreter, "memory": lambda ask, given: len(bytes(8 << 30)), "raise": lambda ask, given: 1 / 0,
    "exit": lambda ask, given: exit(4), "fill": _fill, "one_file": _one_file, "print": _print,
    "environment": _tell_environment, "program": _start_program, "javascript": _javascript,
    "challenge": _challenge, "clients": _clients, "fork": _fork, "unix": _unix, "datagram": _datagram,
    "by_name": _by_name, "listen": _listen, "netlink": _netlink, "write": _write, "move": _move, "link": _link, "catch": _catch,
}  # fmt: skip


def with_search() -> None:
    """The real child, with one more extractor: ``sitesearchN:PORT WORDS``, a search as platforms have it."""
    from yt_dlp.extractor.common import SearchInfoExtractor

    from vidal.crawl import platform

    class SiteSearchIE(SearchInfoExtractor):  # type: ignore[misc]
        _SEARCH_KEY = "sitesearch"
        _MAX_RESULTS = 50

        def _search_results(self, query: str) -> Any:
            port, words = query.split(" ", 1)
            for number in range(50):
                page = f"http://127.0.0.1:{port}/page/video/bunny-wake.mp4?n={number}"
                yield self.url_result(page, video_id=str(number), video_title=f"{words} {number}")

    class SiteSearchDateIE(SiteSearchIE):
        _SEARCH_KEY = "sitesearchdate"

    platform.OWN_EXTRACTORS += [SiteSearchIE, SiteSearchDateIE]
    child_main.main()
