"""`Site`: which path gives what."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.site import freesound, media, pages
from tests.site.faults import FAULTS, bomb, reset
from tests.site.plan import Plan
from tests.site.server import Exchange, Hit, Server

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
ROBOTS = "User-agent: *\nDisallow: /disallowed/\nDisallow: /*?secret=\nAllow: /disallowed/but-this\n"
RESERVATIONS = [
    {"location": "/reserved/bunny-unlucky*.mp4$", "tdm-reservation": 0},
    {"location": "/reserved/", "tdm-reservation": 1, "tdm-policy": "https://example.com/policy"},
]
"""Its tdmrep.json."""


class Site:
    """See the package's text. ``embedded`` is where pages that mean harm have their players' sources.

    Each host is down for ``down_s`` seconds from the first request to it.
    """

    def __init__(
        self, plan: Plan | None = None, *, hosts: tuple[str, ...] = HOSTS, port: int = 0, log: Path | None = None,
        embedded: str = "http://127.0.0.1:9/", robots: str = ROBOTS, down_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.plan = plan or Plan()
        self.hosts = hosts
        self.is_healed = False
        self._embedded = embedded
        self._robots = robots
        self._visits: Counter[str] = Counter()
        self._down_s = down_s
        self._first_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._cache = Path(tempfile.mkdtemp(prefix="site-"))
        self._routes: dict[str, Callable[[Exchange, str], None]] = {
            "clip": self._clip, "fault": self._fault, "v": self._numbered, "page": self._page, "hls": self._hls,
            "changing": self._changing, "hops": self._hops, "disallowed": self._clip, "named": self._named,
            "to": self._to, "chunked": self._chunked, "without-length": self._without_length, "echo": self._echo,
            "gzip": self._gzip, "members": self._members, "half-of": self._half_of,
            "dash": self._dash, "reserved": self._clip, "cookie": self._cookie, "deflate": self._deflate,
            "packed": self._packed, "half-packed": self._packed, "text": self._text, "image": self._image, "once": self._once,
        }  # fmt: skip
        self._server = Server(hosts, self._answer, port, log)
        self.port = self._server.port

    @property
    def hits(self) -> list[Hit]:
        return self._server.hits

    def url(self, path: str, host: int = 0) -> str:
        return f"http://{self.hosts[host]}:{self.port}{path}"

    def urls(self) -> list[str]:
        """Every address of the plan."""
        return [self.url(self.plan.path(n), n % len(self.hosts)) for n in range(self.plan.count)]

    def truth(self, url: str) -> str:
        """What a truthful crawler reports of an address as things stand: ``ok`` or a reason."""
        parts = [unquote(part) for part in urlsplit(url).path.split("/")[1:]]
        name = parts[1] if parts[0] == "fault" else self._planned(parts) if parts[0] == "v" else None
        if parts[0] in ("disallowed", "reserved"):
            return "robots" if parts[0] == "disallowed" else "noai"
        if name is None or (FAULTS[name].heals and self._has_healed(urlsplit(url).path)):
            return "ok"
        return FAULTS[name].reason

    def heal(self) -> None:
        """From now on faults that can go away have gone."""
        self.is_healed = True

    def close(self) -> None:
        self._server.close()
        shutil.rmtree(self._cache, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _answer(self, exchange: Exchange) -> None:
        first, _, rest = exchange.path.removeprefix("/").partition("/")
        now = time.monotonic()
        if now - self._first_at.setdefault(exchange.host, now) < self._down_s:
            reset(exchange, bytes)
        if exchange.path == "/robots.txt":
            exchange.send(200, self._robots, "text/plain")
        elif exchange.path == "/.well-known/tdmrep.json":
            exchange.send(200, json.dumps(RESERVATIONS), "application/json")
        elif first in ("apiv2", "data"):
            freesound.answer(exchange, self._cache)
        elif first in self._routes:
            self._routes[first](exchange, rest)
        else:
            exchange.send(404, "<html><p>404</p></html>")

    def _clip(self, exchange: Exchange, rest: str) -> None:
        path = media.clip(rest)
        if path is None:
            exchange.send(404, "<html><p>404</p></html>")
        else:
            exchange.send_file(path, ETag=f'"{path.stat().st_size:x}"', Last_Modified="Sat, 31 Jan 2026 12:00:00 GMT")

    def _fault(self, exchange: Exchange, rest: str) -> None:
        name, _, clip = rest.partition("/")
        path = media.clip(clip) or media.CLIPS / "bunny-wake.mp4"
        self._do(exchange, name, path.read_bytes)

    def _once(self, exchange: Exchange, rest: str) -> None:
        """``/once/FAULT/…``: the fault at the first visit, then a clip."""
        with self._lock:
            self._visits[exchange.path] += 1
            is_first = self._visits[exchange.path] == 1
        if is_first:
            self._fault(exchange, rest)
        else:
            self._clip(exchange, "bunny-wake.mp4")

    def _numbered(self, exchange: Exchange, rest: str) -> None:
        number = int(rest.partition(".")[0])
        name = self.plan.fault(number)
        if name is None:
            exchange.send(200, media.numbered(number), "video/mp4")
        else:
            self._do(exchange, name, lambda: media.numbered(number))

    def _do(self, exchange: Exchange, name: str, body: Callable[[], bytes]) -> None:
        fault = FAULTS[name]
        if fault.heals and self._has_healed(exchange.path):
            exchange.send(200, body(), "video/mp4")
            return
        with self._lock:
            self._visits[exchange.path] += 1
        fault.do(exchange, body)

    def _has_healed(self, path: str) -> bool:
        return self.is_healed or 0 < self.plan.heal_after <= self._visits[path]

    def _planned(self, parts: list[str]) -> str | None:
        return self.plan.fault(int(parts[1].partition(".")[0]))

    def _page(self, exchange: Exchange, rest: str) -> None:
        kind, _, name = rest.partition("/")
        title, source = f"A film called {name} #film #тест", f"{exchange.base}/clip/{name}"
        if kind == "playlist":
            clips = sorted(path.name for path in media.CLIPS.glob("bunny-*.mp4"))
            exchange.send(200, pages.with_playlist("Several", [f"{exchange.base}/clip/{clip}" for clip in clips]))
        elif kind == "harm":
            exchange.send(200, pages.with_video("Harmless", f"{self._embedded}{name}"))
        elif kind == "title":
            title = pages.HOSTILE_TITLES[int(name)]
            exchange.send(200, pages.with_video(title, f"{exchange.base}/clip/bunny-unlucky-bird.mp4"))
        elif kind in ("huge", "endless", "packed"):
            self._huge_page(exchange, kind)
        elif kind == "meta-noai":
            exchange.send(200, pages.with_meta(title, source, "robots", "noindex, noai"))
        elif kind == "meta-reserved":
            exchange.send(200, pages.with_meta(title, source, "tdm-reservation", "1"))
        elif kind == "tracks":
            tracks = {language: url for language, url in exchange.query.items() if language != "image"}
            exchange.send(200, pages.with_tracks(title, source, tracks, exchange.query.get("image", "")))
        elif kind == "noai":
            exchange.send(200, pages.with_video(title, source), X_Robots_Tag="noai")
        else:
            make = {"video": pages.with_video, "og": pages.with_open_graph, "json-ld": pages.with_json_ld}[kind]
            exchange.send(200, make(title, source))

    def _huge_page(self, exchange: Exchange, kind: str) -> None:
        """A page of 300 MB, with its length or without, or a gigabyte packed into little."""
        start = pages.with_video("Huge", "/clip/bunny-wake.mp4").encode()
        block = b"<p>nothing more</p>\n" * 52_429
        if kind == "packed":
            exchange.send(200, bomb(start), Content_Encoding="gzip")
            return
        length = {"Content_Length": str(len(start) + 300 * len(block))} if kind == "huge" else {"Connection": "close"}
        exchange.head(200, "text/html", **length)
        exchange.connection.sendall(start)
        for _ in range(300):
            exchange.connection.sendall(block)
        exchange.close()

    def _hls(self, exchange: Exchange, rest: str) -> None:
        """``/hls/NAME.mp4/FILE``; ``/hls/apart/NAME.mp4/FILE`` has video and audio in streams of their own.

        ``/hls/minutes/NAME.mp4/index.m3u8`` is a long one.
        """
        if rest.startswith("minutes/"):
            name, _, _ = rest.removeprefix("minutes/").partition("/")
            playlist = media.minutes_of_hls(self._cache, name) / "index.m3u8"
            exchange.send(200, playlist.read_text().replace("../", "/hls/"), "application/vnd.apple.mpegurl")
            return
        is_apart = rest.startswith("apart/")
        name, _, file = rest.removeprefix("apart/").partition("/")
        path = media.hls(self._cache, name, is_apart=is_apart) / Path(file).name
        kind = "application/vnd.apple.mpegurl" if path.suffix == ".m3u8" else "video/mp2t"
        exchange.send_file(path, kind) if path.is_file() else exchange.send(404)

    def _changing(self, exchange: Exchange, rest: str) -> None:
        """Other bytes at each visit."""
        with self._lock:
            self._visits[exchange.path] += 1
        exchange.send(200, media.numbered(self._visits[exchange.path]), "video/mp4")

    def _hops(self, exchange: Exchange, rest: str) -> None:
        """``/hops/N/…``: N redirects, then a clip."""
        count, _, name = rest.partition("/")
        if int(count) == 0:
            self._clip(exchange, name)
        else:
            exchange.send(302, "", Location=f"/hops/{int(count) - 1}/{name}")

    def _to(self, exchange: Exchange, rest: str) -> None:
        """``/to?url=…&hops=N``: through N addresses of ours to wherever the query says."""
        hops = int(exchange.query.get("hops", "1"))
        here = exchange.target.replace(f"hops={hops}", f"hops={hops - 1}")
        exchange.send(302, "", Location=exchange.query["url"] if hops <= 1 else here)

    def _named(self, exchange: Exchange, rest: str) -> None:
        """A clip with a file name that the server would like it to have."""
        name = exchange.query.get("name", "x").replace("\r", "").replace("\n", "").replace("\0", "")
        path = media.CLIPS / "bunny-unlucky-bird.mp4"
        exchange.send_file(path, Content_Disposition=f'attachment; filename="{name}"')

    def _chunked(self, exchange: Exchange, rest: str) -> None:
        path = media.clip(rest)
        assert path is not None
        exchange.head(200, Transfer_Encoding="chunked")
        with path.open("rb") as file:
            while data := file.read(50_000):
                exchange.connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        exchange.connection.sendall(b"0\r\n\r\n")

    def _without_length(self, exchange: Exchange, rest: str) -> None:
        path = media.clip(rest)
        assert path is not None
        exchange.head(200, Connection="close")
        exchange.connection.sendall(path.read_bytes())
        exchange.close()

    def _dash(self, exchange: Exchange, rest: str) -> None:
        """``/dash/NAME.mp4/FILE``: image and audio in sets of their own, as platforms have them."""
        name, _, file = rest.partition("/")
        path = media.dash(self._cache, name) / Path(file).name
        kind = "application/dash+xml" if path.suffix == ".mpd" else "video/mp4"
        exchange.send_file(path, kind) if path.is_file() else exchange.send(404)

    def _members(self, exchange: Exchange, rest: str) -> None:
        """A clip for those who bring a cookie; ``/members/busy/…`` is busy until the site is healed."""
        if rest.startswith("busy/") and not self.is_healed:
            exchange.send(503, "<p>busy</p>")
        elif "session=" in exchange.headers.get("cookie", ""):
            self._clip(exchange, rest.removeprefix("busy/"))
        else:
            exchange.send(401, "<p>Please log in</p>")

    def _half_of(self, exchange: Exchange, rest: str) -> None:
        """``/half-of/NAME.ENDING``: half a file of that format, as if that were all of it."""
        data = media.sound(self._cache, 1, rest.rpartition(".")[2]).read_bytes()
        exchange.send(200, data[: len(data) // 2], "video/webm")

    def _gzip(self, exchange: Exchange, rest: str) -> None:
        """Compressed, as several members and with zeros behind."""
        path = media.clip(rest)
        assert path is not None
        data = path.read_bytes()
        members = [gzip.compress(data[n : n + 50_000], 1) for n in range(0, len(data), 50_000)]
        exchange.send(200, b"".join(members) + bytes(100), "video/mp4", Content_Encoding="gzip")

    def _deflate(self, exchange: Exchange, rest: str) -> None:
        """Compressed without zlib's own header, as many servers have it."""
        path = media.clip(rest)
        assert path is not None
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = packer.compress(path.read_bytes()) + packer.flush()
        exchange.send(200, data, "video/mp4", Content_Encoding="deflate")

    def _packed(self, exchange: Exchange, rest: str) -> None:
        """``/packed/ENCODINGS/NAME``: a clip, compressed as browsers alone ask for; or the first half of that."""
        # Of the extra `impersonate`, which nobody else's tests need.
        import brotli
        from backports import zstd

        pack: dict[str, Callable[[bytes], bytes]] = {
            "br": partial(brotli.compress, quality=1), "zstd": zstd.compress, "gzip": gzip.compress,
            "deflate": zlib.compress,
        }  # fmt: skip
        encodings, _, name = rest.partition("/")
        path = media.clip(name)
        assert path is not None
        data = path.read_bytes()
        for encoding in encodings.split(", "):
            data = pack[encoding](data)
        if exchange.path.startswith("/half-packed/"):
            data = data[: len(data) // 2]
        exchange.send(200, data, "video/mp4", Content_Encoding=encodings)

    def _cookie(self, exchange: Exchange, rest: str) -> None:
        """A clip for those who take a cookie, and are sent here again with a second value of it."""
        count = exchange.headers.get("cookie", "").count("seen=") + exchange.headers.get("cookie", "").count("seen=2")
        if count == 2:
            self._clip(exchange, rest)
        else:
            exchange.send(302, "", Location=exchange.target, Set_Cookie=f"seen={count + 1}; Path=/")

    def _text(self, exchange: Exchange, rest: str) -> None:
        exchange.send(200, f"WEBVTT\n\n00:00.000 --> 00:02.000\n{rest}\n", "text/vtt")

    def _image(self, exchange: Exchange, rest: str) -> None:
        exchange.send(200, media.IMAGE, "image/jpeg")

    def _echo(self, exchange: Exchange, rest: str) -> None:
        exchange.send(200, json.dumps({"target": exchange.target, "headers": exchange.headers}), "application/json")
