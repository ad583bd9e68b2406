"""Direct downloads, in the fetching child, through urllib3: every hop is checked by the rules, every byte is counted.

The server decides neither the name of the file nor the number of redirects, the time or the size. urllib3 keeps the
connections, tunnels through a proxy and decodes; where it connects to, the guard sees.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.cookiejar
import json
import os
import re
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urljoin, urlsplit

import certifi
import urllib3
from urllib3.exceptions import HTTPError

from vidal.crawl import media_kind, opt_out
from vidal.crawl import robots as robots_txt
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.cookies import read_cookies
from vidal.crawl.guard import Rules, check_url
from vidal.crawl.reasons import FetchError, from_status
from vidal.crawl.response import ENCODINGS, Page, is_cut, retry_after_s
from vidal.crawl.settings import WebSettings

FILE = "source"
_CHUNK_BYTES = 256 * 1024
_TEXT_BYTES = 16 * 1024
_JSON_BYTES = 16 * 1024 * 1024
_ROBOTS_KEPT_S = 3600.0
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_HOSTS = 16


@dataclass(slots=True)
class Client:
    """What lives as long as the child: its connections, and the robots.txt of the hosts that it has asked."""

    robots: dict[str, tuple[float, robots_txt.Robots]] = field(default_factory=dict)
    """By origin: the time of reading (`time.time`) and the rules."""
    robots_folder: Path | None = None
    """Where the children of one worker share what they read, so that each host is asked once."""
    admit: Callable[[str, str], float] = lambda host, kind: 0.0
    """Given a host and ``page`` or ``media``, waits until a request may be sent; returns the seconds waited."""
    answered: Callable[[int], None] = lambda status: None
    """Given the status of each response."""
    delay: Callable[[str, float], None] = lambda origin, delay_s: None
    """Given an origin and the Crawl-delay of its robots.txt, 0 for none, whenever that has been read."""
    waited_s: float = 0.0
    """For admission, in all."""
    _pool: urllib3.PoolManager | None = field(default=None, init=False)
    _pool_of: tuple[Rules, str] | None = field(default=None, init=False)
    """The rules and the proxy under which the connections of the pool were made."""

    def clock(self) -> float:
        """`time.monotonic`, which stands still while a request waits for its admission."""
        return time.monotonic() - self.waited_s

    def before_request(self, host: str, kind: str = "page") -> None:
        """Wait until a request may be sent, which has to be called before each."""
        self.waited_s += self.admit(host.lower(), kind)

    def pool(self, settings: WebSettings, rules: Rules) -> urllib3.PoolManager:
        """The kept connections; those made under other rules are closed."""
        if self._pool is None or self._pool_of != (rules, settings.proxy):
            if self._pool is not None:
                self._pool.clear()
            self._pool, self._pool_of = _new_pool(settings.proxy), (rules, settings.proxy)
        return self._pool

    def direct(self, ask: Ask) -> Answer:
        """Download the file at an address into the folder, as ``source``."""
        with Visit(self, ask) as visit:
            return visit.save(visit.follow(ask.url, {"Accept": "*/*"}, is_clip=True))

    def get_json(self, ask: Ask) -> Answer:
        """The answer of an API, as ``json`` of the metadata; raises `FetchError` for one that is not JSON."""
        with Visit(self, ask) as visit:
            page = visit.follow(ask.url, {"Accept": "application/json", **ask.headers})
            body = b"".join(visit.body(page, min(ask.max_bytes, _JSON_BYTES)))
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise FetchError("server_error", "the answer is not JSON", status=page.status) from None
        return Answer(ok=True, metadata={"json": value}, final_url=page.url, http_status=page.status, bytes=len(body))

    def ask_robots(self, ask: Ask) -> Answer:
        """Whether robots.txt allows the address; raises `FetchError` ``robots`` where it does not."""
        with Visit(self, ask) as visit:
            rules = self.check_robots(visit, ask.url)
        return Answer(ok=True, metadata={"crawl_delay_s": rules.crawl_delay_s})

    def check_robots(self, visit: Visit, url: str) -> robots_txt.Robots:
        """What the owner of the address's host says; raises `FetchError` ``robots`` or ``noai`` where that is no.

        It is kept for an hour, in memory and in ``robots_folder``.
        """
        parts = check_url(url, visit.rules)
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        known = self.robots.get(origin)
        if known is None or known[0] < time.time() - _ROBOTS_KEPT_S:
            known = self.robots[origin] = self._shared_robots(visit, origin)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not known[1].allows(target):
            raise FetchError("robots", f"robots.txt of {parts.netloc} disallows the address")
        if visit.ask.settings.noai and known[1].reserves(target):
            raise FetchError("noai", f"tdmrep.json of {parts.netloc} reserves the address")
        if visit.ask.settings.noai and known[1].forbids_training(target):
            raise FetchError("noai", f"robots.txt of {parts.netloc} forbids training on the address")
        return known[1]

    def _shared_robots(self, visit: Visit, origin: str) -> tuple[float, robots_txt.Robots]:
        """What another child has read within the hour, or else what the host says now, for the others, too."""
        file = None
        if self.robots_folder:
            file = self.robots_folder / hashlib.sha256(origin.encode()).hexdigest()[:32]
            if file.is_file():
                read_at, *texts = json.loads(file.read_text())
                if read_at >= time.time() - _ROBOTS_KEPT_S:
                    return read_at, robots_txt.Robots(*texts)
        known = time.time(), visit.read_robots(origin)
        if file is not None:
            # Of this process's own name, and renamed: the other children see the earlier file or the whole of this one.
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps([known[0], *known[1].texts]))
            temporary.replace(file)
        return known


def _new_pool(proxy: str) -> urllib3.PoolManager:
    if not proxy:
        # One connection a host, as a child fetches one thing at a time.
        return urllib3.PoolManager(_MAX_HOSTS, maxsize=1, ca_certs=certifi.where())
    parts, headers = urlsplit(proxy), {}
    if parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    address = f"http://{parts.netloc.rpartition('@')[2]}"
    return urllib3.ProxyManager(address, _MAX_HOSTS, maxsize=1, ca_certs=certifi.where(), proxy_headers=headers)


@dataclass(slots=True)
class Visit:
    """One ask in progress: its deadline, its rules and its cookies, those of the file and those that hosts set."""

    client: Client
    ask: Ask
    rules: Rules = field(init=False)
    deadline: float = field(init=False)
    jar: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)
    page: Page | None = None
    """The latest one, whose connection can be used again only once its body has been read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.page is not None:
            self.page.response.close()

    def __post_init__(self) -> None:
        self.rules = self.ask.settings.rules()
        self.deadline = self.client.clock() + self.ask.wall_s
        for cookie in read_cookies(self.ask.settings.cookies) or ():
            self.jar.set_cookie(cookie)

    def timeout_s(self) -> float:
        """The timeout of the next socket operation in seconds; raises `FetchError` ``timeout`` after the deadline."""
        left_s = self.deadline - self.client.clock()
        if left_s <= 0:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")
        return min(self.ask.settings.socket_timeout_s, left_s)

    def follow(self, url: str, headers: dict[str, str], *, is_clip: bool = False) -> Page:
        """The page at the end of the redirects; raises the `FetchError` that its status stands for unless it is 200.

        Of a clip, the owner of every host and file on the way is asked.
        """
        seen = set()
        for hop in range(_MAX_REDIRECTS + 1):
            # A host may set a cookie and redirect to the same address.
            state = (url, *(f"{cookie.name}={cookie.value}" for cookie in self.jar))
            if state in seen:
                raise FetchError("redirect_loop", f"back at the same address after {hop} redirects")
            seen.add(state)
            if is_clip and self.ask.settings.robots:
                self.client.check_robots(self, url)
            page = self.get(url, headers)
            page.hops = hop
            if is_clip:
                opt_out.check_headers(page.response.headers, self.ask.settings)
            target = page.header("Location")
            if page.status not in _REDIRECTS or not target:
                self._raise_for_status(page)
                return page
            length = page.response.length_remaining
            if length is not None and length <= _TEXT_BYTES:
                # Reading these few bytes lets the connection be used again.
                page.response.drain_conn()
            page.response.close()
            with contextlib.suppress(UnicodeError):
                # Servers mean UTF-8 where the header's bytes are that.
                target = target.encode("latin-1").decode("utf-8")
            # As in browsers, raw spaces and letters are escaped; nothing else is corrected.
            url = urljoin(url, quote(target, safe="/:?#[]@!$&'()*+,;=%~-._")).partition("#")[0]
            if urlsplit(url).netloc != urlsplit(page.url).netloc:
                # A key is for the host that it was given for, and a redirect must not carry it to another.
                headers = {name: value for name, value in headers.items() if name == "Accept"}
        raise FetchError("redirect_loop", f"more than {_MAX_REDIRECTS} redirects")

    def get(self, url: str, headers: dict[str, str]) -> Page:
        """Send one request, without following redirects, after checking the address against the rules."""
        parts, settings = check_url(url, self.rules), self.ask.settings
        headers = {"User-Agent": settings.agent(), "Accept-Encoding": "identity", **headers}
        if any(True for _ in self.jar):
            request = urllib.request.Request(url)
            self.jar.add_cookie_header(request)
            headers |= request.unredirected_hdrs
        self.client.before_request(parts.hostname or "")
        timeout_s = self.timeout_s()
        response = self.client.pool(settings, self.rules).urlopen(
            "GET", parts._replace(netloc=parts.netloc.encode("idna").decode()).geturl(), headers=headers,
            redirect=False, retries=False, preload_content=False, timeout=urllib3.Timeout(timeout_s, timeout_s),
        )  # fmt: skip
        self.client.answered(response.status)
        self.page = Page(response, url)
        if "Set-Cookie" in response.headers:
            # It has `info`, which is all that counts.
            self.jar.extract_cookies(response, urllib.request.Request(url))  # type: ignore[arg-type]
        return self.page

    def _raise_for_status(self, page: Page) -> None:
        if page.status in (200, 203):
            return
        wait_s, text = retry_after_s(page.header("Retry-After")), ""
        if page.status >= 400:
            # The text only makes the reason more precise: what does not come within two seconds is done without.
            page.limit_s(min(2.0, self.timeout_s()))
            with contextlib.suppress(OSError, HTTPError):
                text = page.response.read1(_TEXT_BYTES).decode("utf-8", "replace")
        page.response.close()
        if page.status == 206:
            raise FetchError("truncated", "a part was sent though the whole was asked for", status=206)
        if 200 <= page.status < 300:
            raise FetchError("not_media", f"HTTP {page.status}", status=page.status)
        reason = from_status(page.status, re.sub(r"<[^<>]{0,2000}>|\s+", " ", text))
        raise FetchError(reason, f"HTTP {page.status}", status=page.status, retry_after_s=wait_s)

    def read_robots(self, origin: str) -> robots_txt.Robots:
        """What a host says of all its files; without that, everything is allowed. Raises where the host cannot say."""
        # RFC 9309: where there is no file (4xx) everything is allowed, and where the server fails (5xx) nothing is.
        text = self._read_text(f"{origin}/robots.txt", "text/plain", range(400, 500))
        agent = self.ask.settings.agent().partition("/")[0]
        # Known before the next request, which already keeps it.
        self.client.delay(origin, robots_txt.Robots(text, agent=agent).crawl_delay_s or 0.0)
        reservations = self._read_text(f"{origin}/.well-known/tdmrep.json", "application/json", range(400, 600))
        return robots_txt.Robots(text, reservations, agent)

    def _read_text(self, url: str, media_type: str, absent: range) -> str:
        """The text of a file that a host may have; empty for the statuses ``absent``, or for a page in its place."""
        try:
            page = self.follow(url, {"Accept": media_type})
            data = b"".join(self.body(page, robots_txt.MAX_BYTES, may_cut=True))
        except FetchError as error:
            if error.reason == "redirect_loop" or (error.status in absent and error.reason != "rate_limited"):
                return ""
            raise
        is_page = media_kind.kind_of(data[: media_kind.HEAD_BYTES]) == "html"
        return "" if is_page else data.decode("utf-8", "replace")

    def body(self, page: Page, max_bytes: int, *, may_cut: bool = False) -> Iterator[bytes]:
        """The decoded chunks of a body, within the deadline, never more than ``max_bytes`` before or after decoding.

        A longer body raises `FetchError` ``too_large``, or ends early where it ``may_cut``; one that is shorter than
        announced raises urllib3's error, compressed data that ends early ``truncated``.
        """
        response, total = page.response, 0
        encoding, announced = page.header("Content-Encoding").strip().lower(), response.length_remaining
        if encoding not in ENCODINGS:
            raise FetchError("not_media", f"sent as {encoding[:40]!r}, which was not asked for", status=page.status)
        if announced is not None and announced > max_bytes and not may_cut:
            detail = f"{announced} bytes are announced, {max_bytes} are allowed"
            raise FetchError("too_large", detail, status=page.status)
        while True:
            page.limit_s(self.timeout_s())
            chunk = response.read1(_CHUNK_BYTES)
            if not chunk:
                break
            total += len(chunk)
            if max(total, response.tell()) > max_bytes:
                if not may_cut:
                    raise FetchError("too_large", f"more than {max_bytes} bytes", status=page.status)
                response.close()
                yield chunk[: max_bytes - total]
                return
            yield chunk
        if is_cut(getattr(response, "_decoder", None)):
            raise FetchError("truncated", "the compressed body ends early", status=page.status)

    def save(self, page: Page, name: str = FILE) -> Answer:
        """Write the body to the folder; raises `FetchError` for another kind of file, a cut one, and another hash."""
        path, sha256, total, head, kind = Path(self.ask.folder, name), hashlib.sha256(), 0, b"", ""
        has_length = page.response.length_remaining is not None or page.response.chunked
        with open(path, "wb", buffering=0) as file:
            for chunk in self.body(page, self.ask.max_bytes):
                if not kind:
                    head += chunk[: media_kind.HEAD_BYTES - len(head)]
                    if len(head) >= media_kind.HEAD_BYTES:
                        kind = self._check_kind(page, head)
                sha256.update(chunk)
                view = memoryview(chunk)
                # The file is unbuffered, and such a write may take a part.
                while view:
                    view = view[file.write(view) :]
                total += len(chunk)
        kind = kind or self._check_kind(page, head)
        # Even where all announced bytes came: the server's own copy may be half a file.
        if media_kind.is_cut_off(path):
            raise FetchError("truncated", f"the container goes on after {total} bytes", status=page.status)
        digest = sha256.hexdigest()
        if self.ask.expected_sha256 and digest != self.ask.expected_sha256:
            raise FetchError("changed_content", f"sha256 {digest}, {total} bytes", status=page.status)
        headers = {"content_type": "Content-Type", "etag": "ETag", "last_modified": "Last-Modified",
                   "robots_tag": "X-Robots-Tag"}  # fmt: skip
        metadata = {f"http_{key}": page.header(header)[:500] or None for key, header in headers.items()}
        return Answer(
            ok=True, file=name, bytes=total, sha256=digest, final_url=page.url, http_status=page.status,
            metadata=metadata | {"redirects": page.hops, "kind": kind, "length_unknown": not has_length},
        )  # fmt: skip

    def _check_kind(self, page: Page, head: bytes) -> str:
        kind = media_kind.kind_of(head)
        if kind in media_kind.MEDIA:
            return kind
        stated = page.header("Content-Type").partition(";")[0].strip()[:100] or "nothing"
        raise FetchError("not_media", f"{kind} (stated as {stated})", status=page.status)
