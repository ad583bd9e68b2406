"""Direct downloads, in the child: one connection per host, every hop judged, every byte counted.

The server chooses nothing here: not the file's name, not how many hops, how long or how much.
"""

from __future__ import annotations

import hashlib
import http.client
import http.cookiejar
import json
import os
import re
import ssl
import time
import urllib.request
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from vidal.crawl import media_kind
from vidal.crawl import robots as robots_txt
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.guard import Rules, check_url
from vidal.crawl.reasons import FetchError, chain, from_error, from_status
from vidal.crawl.settings import WebSettings

FILE = "source"
_CHUNK_BYTES = 256 * 1024
_WORDS_BYTES = 16 * 1024
_JSON_BYTES = 16 * 1024 * 1024
_ROBOTS_KEPT_S = 3600.0
_CONNECTIONS_KEPT = 16
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5


@dataclass(slots=True)
class Page:
    """The answer to one request whose body is still to be read, and how we came to it."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    url: str
    hops: int = 0

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        return ", ".join(self.response.headers.get_all(name, []))

    def drop(self) -> None:
        """Leave the body unread; the connection goes with it."""
        self.response.close()
        self.connection.close()


@dataclass(slots=True)
class Client:
    """Connections that live as long as the child, and what hosts have said in their robots.txt."""

    connections: dict[tuple[str, str, int], http.client.HTTPConnection] = field(default_factory=dict)
    robots: dict[str, tuple[float, robots_txt.Robots]] = field(default_factory=dict)
    robots_folder: Path | None = None
    """Where the children of one worker share what they read, so that each host is asked once."""
    requests: Counter[str] = field(default_factory=Counter)
    """By host, for one ask."""
    opened: tuple[Rules, str] = (Rules(), "")
    """The rules and the proxy under which the connections were made: they are worth nothing under others."""

    def direct(self, ask: Ask) -> Answer:
        """Bring the file at an address into the folder as ``source``."""
        with Visit(self, ask) as visit:
            if ask.settings.robots:
                self.check_robots(visit, ask.url)
            page = visit.follow(ask.url, {"Accept": "*/*"})
            check_directives(page.header("X-Robots-Tag"), ask.settings)
            return visit.save(page)

    def get_json(self, ask: Ask) -> Answer:
        """An API's answer, under ``json`` of the metadata."""
        with Visit(self, ask) as visit:
            page = visit.follow(ask.url, {"Accept": "application/json", **ask.headers})
            body = b"".join(visit.body(page, min(ask.max_bytes, _JSON_BYTES)))
        try:
            value = json.loads(body)
        except ValueError:
            raise FetchError("server_error", "the answer is not JSON", status=page.status) from None
        return Answer(ok=True, metadata={"json": value}, final_url=page.url, http_status=page.status, bytes=len(body))

    def ask_robots(self, ask: Ask) -> Answer:
        with Visit(self, ask) as visit:
            rules = self.check_robots(visit, ask.url)
        return Answer(ok=True, metadata={"crawl_delay_s": rules.crawl_delay_s})

    def check_robots(self, visit: Visit, url: str) -> robots_txt.Robots:
        """Raise ``robots`` if the host asks not to fetch the address."""
        parts = check_url(url, visit.rules)
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        known = self.robots.get(origin) or self._shared_robots(origin)
        if known is None or known[0] < time.time() - _ROBOTS_KEPT_S:
            known = (time.time(), visit.read_robots(origin))
            self._share_robots(origin, known)
        self.robots[origin] = known
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not known[1].allows(target):
            raise FetchError("robots", f"robots.txt of {parts.netloc} disallows the address")
        return known[1]

    def _robots_file(self, origin: str) -> Path | None:
        name = hashlib.sha256(origin.encode()).hexdigest()[:32]
        return self.robots_folder / name if self.robots_folder else None

    def _shared_robots(self, origin: str) -> tuple[float, robots_txt.Robots] | None:
        path = self._robots_file(origin)
        if path is None or not path.is_file():
            return None
        read_at, rules, delay_s = json.loads(path.read_text())
        return read_at, robots_txt.Robots([(allow, pattern) for allow, pattern in rules], delay_s)

    def _share_robots(self, origin: str, known: tuple[float, robots_txt.Robots]) -> None:
        if (path := self._robots_file(origin)) is not None:
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps([known[0], known[1].rules, known[1].crawl_delay_s]))
            temporary.replace(path)

    def connection(self, parts: SplitResult, timeout_s: float, rules: Rules, proxy: str) -> http.client.HTTPConnection:
        """The one connection to a host, made when first used."""
        if (rules, proxy) != self.opened:
            self.close()
            self.opened = (rules, proxy)
        key = (parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        connection = self.connections.pop(key, None) or _connect(key, proxy)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        while len(self.connections) >= _CONNECTIONS_KEPT:
            self.connections.pop(next(iter(self.connections))).close()
        self.connections[key] = connection
        return connection

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()


def _connect(key: tuple[str, str, int], proxy: str) -> http.client.HTTPConnection:
    scheme, host, port = key
    there = urlsplit(proxy)
    to = (there.hostname or "", there.port or 80) if proxy else (host, port)
    if scheme == "http":
        return http.client.HTTPConnection(*to)
    connection = http.client.HTTPSConnection(*to, context=_tls())
    if proxy:
        connection.set_tunnel(host, port, headers=_proxy_headers(proxy))
    return connection


def _proxy_headers(proxy: str) -> dict[str, str]:
    there = urlsplit(proxy)
    if not there.username:
        return {}
    pair = f"{unquote(there.username)}:{unquote(there.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


_contexts: list[ssl.SSLContext] = []


def _tls() -> ssl.SSLContext:
    if not _contexts:
        import certifi

        _contexts.append(ssl.create_default_context(cafile=certifi.where()))
    return _contexts[0]


@dataclass(slots=True)
class Visit:
    """One ask under way: its deadline, its rules and its cookies."""

    client: Client
    ask: Ask
    rules: Rules = field(init=False)
    deadline: float = field(init=False)
    jar: http.cookiejar.CookieJar | None = field(init=False)
    page: Page | None = None
    """The last one, whose connection can be used again only once its body has been read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.page is not None and not self.page.response.isclosed():
            self.page.drop()

    def __post_init__(self) -> None:
        self.rules = self.ask.settings.rules()
        self.deadline = time.monotonic() + self.ask.wall_s
        self.jar = read_cookies(self.ask.settings.cookies)

    def left_s(self) -> float:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")
        return left_s

    def follow(self, url: str, headers: dict[str, str]) -> Page:
        """The page at the end of the redirects; any but a good one raises what its status stands for."""
        seen = set()
        for hop in range(_MAX_REDIRECTS + 1):
            if url in seen:
                raise FetchError("redirect_loop", f"back at the same address after {hop} redirects")
            seen.add(url)
            page = self.get(url, headers)
            page.hops = hop
            target = page.response.headers.get("Location")
            if page.status not in _REDIRECTS or not target:
                self._raise_for_status(page)
                return page
            self._finish(page)
            # Servers send what browsers accept: raw spaces and letters are escaped, nothing else is mended.
            url = urljoin(url, quote(_decoded(target), safe="/:?#[]@!$&'()*+,;=%~-._")).partition("#")[0]
            if urlsplit(url).netloc != urlsplit(page.url).netloc:
                headers = {name: value for name, value in headers.items() if name == "Accept"}
        raise FetchError("redirect_loop", f"more than {_MAX_REDIRECTS} redirects")

    def get(self, url: str, headers: dict[str, str]) -> Page:
        """One request, without following; once more if a connection that was kept has gone stale."""
        parts = check_url(url, self.rules)
        settings = self.ask.settings
        timeout_s = min(settings.socket_timeout_s, self.left_s())
        connection = self.client.connection(parts, timeout_s, self.rules, settings.proxy)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{_query(parts.query)}" if parts.query else "")
        if settings.proxy and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            headers = headers | _proxy_headers(settings.proxy)
        headers = {"User-Agent": settings.agent(), "Accept-Encoding": "identity", **headers, **self._cookie(url)}
        headers["Host"] = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
        self.client.requests[(parts.hostname or "").lower()] += 1
        try:
            response = self._request(connection, target, headers)
        except BaseException:
            connection.close()
            raise
        self.page = Page(response, connection, url)
        return self.page

    @staticmethod
    def _request(
        connection: http.client.HTTPConnection, target: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        is_kept = connection.sock is not None
        try:
            return _request(connection, target, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            if not is_kept:
                raise
        connection.close()
        return _request(connection, target, headers)

    def _cookie(self, url: str) -> dict[str, str]:
        if self.jar is None:
            return {}
        request = urllib.request.Request(url)
        self.jar.add_cookie_header(request)
        value = request.get_header("Cookie")
        return {"Cookie": value} if value else {}

    def _raise_for_status(self, page: Page) -> None:
        if page.status in (200, 203):
            return
        wait_s = retry_after_s(page.header("Retry-After"))
        if page.status == 206:
            page.drop()
            raise FetchError("truncated", "a part was sent though the whole was asked for", status=206)
        words = "" if page.status < 400 else self._words(page)
        page.drop()
        if 200 <= page.status < 300:
            raise FetchError("not_media", f"HTTP {page.status}", status=page.status)
        reason = from_status(page.status, words)
        raise FetchError(reason, f"HTTP {page.status}", status=page.status, retry_after_s=wait_s)

    def _words(self, page: Page) -> str:
        """What an error page says, without its tags."""
        try:
            page.connection.sock.settimeout(min(2.0, self.left_s()))
            text = page.response.read1(_WORDS_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException, AttributeError):
            return ""
        return re.sub(r"<[^<>]{0,2000}>|\s+", " ", text)

    def _finish(self, page: Page) -> None:
        """Read the few bytes of a redirect's page, so that the connection can be used again."""
        length = page.header("Content-Length")
        if length.isdigit() and int(length) <= _WORDS_BYTES:
            page.response.read(int(length))
            page.response.close()
        else:
            page.drop()

    def read_robots(self, origin: str) -> robots_txt.Robots:
        """A host without robots.txt allows all; one that cannot say so now is not visited now."""
        try:
            page = self.follow(f"{origin}/robots.txt", {"Accept": "text/plain"})
            text = b"".join(self.body(page, robots_txt.MAX_BYTES, is_cut=True)).decode("utf-8", "replace")
        except FetchError as error:
            if error.reason == "redirect_loop" or (error.status is not None and 400 <= error.status < 500):
                if error.reason == "rate_limited":
                    raise
                return robots_txt.Robots()
            raise
        if media_kind.kind_of(text[: media_kind.HEAD_BYTES].encode()) == "html":
            return robots_txt.Robots()
        return robots_txt.parse(text, self.ask.settings.agent().partition("/")[0])

    def body(self, page: Page, max_bytes: int, *, is_cut: bool = False) -> Iterator[bytes]:
        """The body's chunks, decoded; never more than ``max_bytes`` on the wire or after it."""
        expected = _length(page)
        if expected is not None and expected > max_bytes and not is_cut:
            page.drop()
            said = f"{expected} bytes are announced, {max_bytes} are allowed"
            raise FetchError("too_large", said, status=page.status)
        decoder, total = _Decoder(page.header("Content-Encoding"), max_bytes), 0
        try:
            for chunk in self._wire(page, expected):
                total += len(chunk)
                if total > max_bytes:
                    if is_cut:
                        break
                    raise FetchError("too_large", f"more than {max_bytes} bytes", status=page.status)
                yield from decoder.feed(chunk)
            else:
                decoder.finish()
                page.response.close()
                return
            page.drop()
        except BaseException:
            page.drop()
            raise

    def _wire(self, page: Page, expected: int | None) -> Iterator[bytes]:
        response, received = page.response, 0
        while expected is None or received < expected:
            left_s = self.left_s()
            if page.connection.sock is not None:
                page.connection.sock.settimeout(min(self.ask.settings.socket_timeout_s, left_s))
            wanted = _CHUNK_BYTES if expected is None else min(_CHUNK_BYTES, expected - received)
            try:
                chunk = response.read1(wanted)
            except http.client.IncompleteRead:
                raise FetchError(
                    "truncated", f"{received} bytes came, more were announced", status=page.status
                ) from None
            if not chunk:
                break
            received += len(chunk)
            yield chunk
        if expected is not None and received < expected:
            raise FetchError("truncated", f"{received} of {expected} bytes came", status=page.status)

    def save(self, page: Page, name: str = FILE) -> Answer:
        """Write the body to the folder, looking at its first bytes before the rest is let in."""
        path, sha256, total, head = Path(self.ask.folder) / name, hashlib.sha256(), 0, b""
        has_length = _length(page) is not None or page.response.chunked
        with path.open("wb", buffering=0) as file:
            for chunk in self.body(page, self.ask.max_bytes):
                if len(head) < media_kind.HEAD_BYTES:
                    head += chunk[: media_kind.HEAD_BYTES - len(head)]
                    if len(head) >= media_kind.HEAD_BYTES:
                        self._check_kind(page, head)
                sha256.update(chunk)
                _write(file.fileno(), chunk)
                total += len(chunk)
        kind = self._check_kind(page, head)
        if not has_length and media_kind.is_cut_off(path):
            raise FetchError("truncated", f"the container goes on after {total} bytes", status=page.status)
        digest = sha256.hexdigest()
        if self.ask.expected_sha256 and digest != self.ask.expected_sha256:
            raise FetchError("changed_content", f"sha256 {digest}, {total} bytes", status=page.status)
        return Answer(
            ok=True, file=name, bytes=total, sha256=digest, final_url=page.url, http_status=page.status,
            metadata=_what_http_said(page) | {"kind": kind, "length_unknown": not has_length},
        )  # fmt: skip

    def _check_kind(self, page: Page, head: bytes) -> str:
        kind = media_kind.kind_of(head)
        if kind in media_kind.MEDIA:
            return kind
        page.drop()
        stated = page.response.headers.get_content_type()
        raise FetchError("not_media", f"{kind} (stated as {stated})", status=page.status)


def _request(connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def _query(query: str) -> str:
    return quote(query, safe="/?%:@!$&'()*+,;=~[]|")


def _decoded(header: str) -> str:
    """A header's bytes as UTF-8, which is what servers mean, where they are that."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _length(page: Page) -> int | None:
    """The length that was announced; of several that differ none can be believed."""
    stated = {part.strip() for part in page.header("Content-Length").split(",")}
    if page.response.chunked or stated == {""}:
        return None
    length = stated.pop()
    if stated or not re.fullmatch(r"\d{1,18}", length):
        text = page.header("Content-Length")[:100]
        page.drop()
        raise FetchError("server_error", f"no length can be {text!r}", status=page.status)
    return int(length)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _what_http_said(page: Page) -> dict[str, Any]:
    said = {
        "http_content_type": page.header("Content-Type"),
        "http_etag": page.header("ETag"),
        "http_last_modified": page.header("Last-Modified"),
        "http_robots_tag": page.header("X-Robots-Tag"),
    }
    return {name: value[:500] or None for name, value in said.items()} | {"redirects": page.hops}


def retry_after_s(header: str, now: float | None = None) -> float | None:
    """Seconds that a Retry-After asks for, given as seconds or as a date; None where it gives neither."""
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return max(0.0, at.timestamp() - (time.time() if now is None else now))


def check_directives(header: str, settings: WebSettings) -> None:
    """Raise ``noai`` for a directive that the settings heed, be it for all or for our name."""
    agent, name = settings.agent().partition("/")[0].lower(), ""
    for part in header.lower().split(","):
        head, colon, rest = part.partition(":")
        if colon and re.fullmatch(r"\s*[\w.*-]+\s*", head) and head.strip() not in ("unavailable_after", "max-snippet"):
            name, part = head.strip(), rest
        if part.strip() in settings.noai and name in ("", "*", agent):
            raise FetchError("noai", f"X-Robots-Tag: {part.strip()}")


@dataclass(frozen=True, slots=True)
class _Cookies:
    jar: http.cookiejar.MozillaCookieJar
    values: tuple[str, ...]


_known_cookies: dict[tuple[str, int], _Cookies] = {}


def _cookies(path: str) -> _Cookies:
    """The cookies of a file, read again when it has changed."""
    key = (path, os.stat(path).st_mtime_ns)
    if key not in _known_cookies:
        jar = http.cookiejar.MozillaCookieJar(path)
        jar.load(ignore_discard=True, ignore_expires=True)
        for cookie in jar:
            # Browsers write 0 for a cookie of the session.
            cookie.expires, cookie.discard = cookie.expires or None, not cookie.expires
        _known_cookies.clear()
        _known_cookies[key] = _Cookies(jar, tuple(cookie.value for cookie in jar if cookie.value))
    return _known_cookies[key]


def read_cookies(path: str) -> http.cookiejar.MozillaCookieJar | None:
    """The cookies of a file; they are never written back."""
    return _cookies(path).jar if path else None


def cookie_values(path: str) -> tuple[str, ...]:
    """What of a cookies file no answer may hold."""
    return _cookies(path).values if path else ()


class _Decoder:
    """Identity was asked for; a server that compresses all the same is followed up to the limit."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._left = max_bytes
        self._inflate = None
        encoding = encoding.strip().lower()
        self._window_bits = zlib.MAX_WBITS | (16 if "gzip" in encoding else 0)
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(self._window_bits)
        elif encoding not in ("", "identity"):
            raise FetchError("not_media", f"sent as {encoding[:40]!r}, which was not asked for")

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            yield data
            return
        while data:
            if self._inflate.eof:
                # A gzip body may be several members one after the other, and zeros behind the last.
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._inflate = zlib.decompressobj(self._window_bits)
            try:
                plain = self._inflate.decompress(data, _CHUNK_BYTES)
            except zlib.error:
                raise FetchError("truncated", "the compressed body is damaged") from None
            self._left -= len(plain)
            if self._left < 0:
                raise FetchError("too_large", "more bytes than allowed once unpacked")
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if plain:
                yield plain
            elif not data:
                return

    def finish(self) -> None:
        """The body has ended; raises where what was compressed goes on."""
        if self._inflate is not None and not self._inflate.eof:
            raise FetchError("truncated", "the compressed body ends early")


def reason_of(error: BaseException) -> FetchError:
    """What an error of this module's doing stands for."""
    for one in chain(error):
        if isinstance(one, FetchError):
            return one
        if (reason := from_error(one)) is not None:
            return FetchError(reason, _plain(one))
    return FetchError("fetcher_died", f"{type(error).__name__}: {error}")


def _plain(error: BaseException) -> str:
    """The same words in every run: without addresses of memory and numbers of sockets."""
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]+', '…', str(error))}"[:300]
