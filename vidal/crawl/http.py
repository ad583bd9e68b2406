"""Direct downloads, in the fetching child: every hop is checked by the rules, every byte is counted.

The server decides neither the name of the file nor the number of redirects, the time or the size.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.cookiejar
import json
import os
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from vidal.crawl import media_kind
from vidal.crawl import robots as robots_txt
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.body import read_body
from vidal.crawl.connection import Connections, Page
from vidal.crawl.cookies import read_cookies
from vidal.crawl.guard import Rules, check_url
from vidal.crawl.reasons import FetchError, chain, from_error, from_status
from vidal.crawl.settings import WebSettings

FILE = "source"
_TEXT_BYTES = 16 * 1024
_JSON_BYTES = 16 * 1024 * 1024
_ROBOTS_KEPT_S = 3600.0
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5


@dataclass(slots=True)
class Client:
    """What lives as long as the child: its connections, and the robots.txt of the hosts that it has asked."""

    connections: Connections = field(default_factory=Connections)
    robots: dict[str, tuple[float, robots_txt.Robots]] = field(default_factory=dict)
    """By origin: the time of reading (`time.time`) and the rules."""
    robots_folder: Path | None = None
    """Where the children of one worker share what they read, so that each host is asked once."""
    requests: Counter[str] = field(default_factory=Counter)
    """By host, for one ask."""

    def direct(self, ask: Ask) -> Answer:
        """Download the file at an address into the folder, as ``source``."""
        with Visit(self, ask) as visit:
            if ask.settings.robots:
                self.check_robots(visit, ask.url)
            page = visit.follow(ask.url, {"Accept": "*/*"})
            check_directives(page.header("X-Robots-Tag"), ask.settings)
            return visit.save(page)

    def get_json(self, ask: Ask) -> Answer:
        """The answer of an API, as ``json`` of the metadata."""
        with Visit(self, ask) as visit:
            page = visit.follow(ask.url, {"Accept": "application/json", **ask.headers})
            body = b"".join(visit.body(page, min(ask.max_bytes, _JSON_BYTES)))
        try:
            value = json.loads(body)
        except ValueError:
            raise FetchError("server_error", "the answer is not JSON", status=page.status) from None
        return Answer(ok=True, metadata={"json": value}, final_url=page.url, http_status=page.status, bytes=len(body))

    def ask_robots(self, ask: Ask) -> Answer:
        """Whether robots.txt allows the address; raises `FetchError` ``robots`` where it does not."""
        with Visit(self, ask) as visit:
            rules = self.check_robots(visit, ask.url)
        return Answer(ok=True, metadata={"crawl_delay_s": rules.crawl_delay_s})

    def check_robots(self, visit: Visit, url: str) -> robots_txt.Robots:
        """The robots.txt rules of the address's host; raises `FetchError` ``robots`` where they disallow it.

        They are kept for an hour, in memory and in ``robots_folder``.
        """
        parts = check_url(url, visit.rules)
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        known, file = self.robots.get(origin), None
        if self.robots_folder:
            file = self.robots_folder / hashlib.sha256(origin.encode()).hexdigest()[:32]
        if known is None and file is not None and file.is_file():
            read_at, rules, delay_s = json.loads(file.read_text())
            known = read_at, robots_txt.Robots([(allow, pattern) for allow, pattern in rules], delay_s)
        if known is None or known[0] < time.time() - _ROBOTS_KEPT_S:
            known = (time.time(), visit.read_robots(origin))
            if file is not None:
                temporary = file.with_suffix(f".{os.getpid()}")
                temporary.write_text(json.dumps([known[0], known[1].rules, known[1].crawl_delay_s]))
                temporary.replace(file)
        self.robots[origin] = known
        if not known[1].allows((parts.path or "/") + (f"?{parts.query}" if parts.query else "")):
            raise FetchError("robots", f"robots.txt of {parts.netloc} disallows the address")
        return known[1]


@dataclass(slots=True)
class Visit:
    """One ask in progress: its deadline, its rules and its cookies."""

    client: Client
    ask: Ask
    rules: Rules = field(init=False)
    deadline: float = field(init=False)
    jar: http.cookiejar.CookieJar | None = field(init=False)
    page: Page | None = None
    """The latest one, whose connection can be used again only once its body has been read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.page is not None and not self.page.response.isclosed():
            self.page.drop()

    def __post_init__(self) -> None:
        self.rules = self.ask.settings.rules()
        self.deadline = time.monotonic() + self.ask.wall_s
        self.jar = read_cookies(self.ask.settings.cookies)

    def timeout_s(self) -> float:
        """The timeout of the next socket operation in seconds; raises `FetchError` ``timeout`` after the deadline."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")
        return min(self.ask.settings.socket_timeout_s, left_s)

    def follow(self, url: str, headers: dict[str, str]) -> Page:
        """The page at the end of the redirects; raises the `FetchError` that its status stands for unless it is 200."""
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
            length = page.header("Content-Length")
            if length.isdigit() and int(length) <= _TEXT_BYTES:
                # Reading these few bytes lets the connection be used again.
                page.response.read(int(length))
                page.response.close()
            else:
                page.drop()
            with contextlib.suppress(UnicodeError):
                # Servers mean UTF-8 where the header's bytes are that.
                target = target.encode("latin-1").decode("utf-8")
            # As in browsers, raw spaces and letters are escaped; nothing else is corrected.
            url = urljoin(url, quote(target, safe="/:?#[]@!$&'()*+,;=%~-._")).partition("#")[0]
            if urlsplit(url).netloc != urlsplit(page.url).netloc:
                headers = {name: value for name, value in headers.items() if name == "Accept"}
        raise FetchError("redirect_loop", f"more than {_MAX_REDIRECTS} redirects")

    def get(self, url: str, headers: dict[str, str]) -> Page:
        """Send one request, without following redirects, after checking the address against the rules."""
        parts, settings = check_url(url, self.rules), self.ask.settings
        timeout_s = self.timeout_s()
        headers = {"User-Agent": settings.agent(), "Accept-Encoding": "identity", **headers}
        if self.jar is not None:
            request = urllib.request.Request(url)
            self.jar.add_cookie_header(request)
            if cookie := request.get_header("Cookie"):
                headers["Cookie"] = cookie
        self.client.requests[(parts.hostname or "").lower()] += 1
        self.page = self.client.connections.get(
            url, parts, headers, timeout_s=timeout_s, rules=self.rules, proxy=settings.proxy
        )
        return self.page

    def _raise_for_status(self, page: Page) -> None:
        if page.status in (200, 203):
            return
        wait_s, text = retry_after_s(page.header("Retry-After")), ""
        if page.status >= 400:
            try:
                page.connection.sock.settimeout(min(2.0, self.timeout_s()))
                text = page.response.read1(_TEXT_BYTES).decode("utf-8", "replace")
            except (OSError, http.client.HTTPException, AttributeError):
                pass
        page.drop()
        if page.status == 206:
            raise FetchError("truncated", "a part was sent though the whole was asked for", status=206)
        if 200 <= page.status < 300:
            raise FetchError("not_media", f"HTTP {page.status}", status=page.status)
        reason = from_status(page.status, re.sub(r"<[^<>]{0,2000}>|\s+", " ", text))
        raise FetchError(reason, f"HTTP {page.status}", status=page.status, retry_after_s=wait_s)

    def read_robots(self, origin: str) -> robots_txt.Robots:
        """The rules of a host's robots.txt; without one, everything is allowed. Raises where the host cannot say."""
        try:
            page = self.follow(f"{origin}/robots.txt", {"Accept": "text/plain"})
            text = b"".join(self.body(page, robots_txt.MAX_BYTES, may_cut=True)).decode("utf-8", "replace")
        except FetchError as error:
            is_absent = error.status is not None and 400 <= error.status < 500 and error.reason != "rate_limited"
            if error.reason == "redirect_loop" or is_absent:
                return robots_txt.Robots()
            raise
        if media_kind.kind_of(text[: media_kind.HEAD_BYTES].encode()) == "html":
            return robots_txt.Robots()
        return robots_txt.parse(text, self.ask.settings.agent().partition("/")[0])

    def body(self, page: Page, max_bytes: int, *, may_cut: bool = False) -> Iterator[bytes]:
        """The body of a page, by `read_body`, within the deadline."""
        return read_body(page, max_bytes, timeout_s=self.timeout_s, may_cut=may_cut)

    def save(self, page: Page, name: str = FILE) -> Answer:
        """Write the body to the folder, checking its first bytes before the rest is written."""
        path, sha256, total, head = Path(self.ask.folder) / name, hashlib.sha256(), 0, b""
        has_length = page.length() is not None or page.response.chunked
        with path.open("wb", buffering=0) as file:
            for chunk in self.body(page, self.ask.max_bytes):
                if len(head) < media_kind.HEAD_BYTES:
                    head += chunk[: media_kind.HEAD_BYTES - len(head)]
                    if len(head) >= media_kind.HEAD_BYTES:
                        self._check_kind(page, head)
                sha256.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
                total += len(chunk)
        kind = self._check_kind(page, head)
        if not has_length and media_kind.is_cut_off(path):
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
        page.drop()
        stated = page.response.headers.get_content_type()
        raise FetchError("not_media", f"{kind} (stated as {stated})", status=page.status)


def retry_after_s(header: str, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or as a date; None where it is neither.

    ``now`` is in seconds since the epoch, by default the present.
    """
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return max(0.0, at.timestamp() - (time.time() if now is None else now))


def check_directives(header: str, settings: WebSettings) -> None:
    """Raise `FetchError` ``noai`` for an X-Robots-Tag directive in ``settings.noai``, for all agents or for ours."""
    agent, name = settings.agent().partition("/")[0].lower(), ""
    for part in header.lower().split(","):
        head, colon, rest = part.partition(":")
        if colon and re.fullmatch(r"\s*[\w.*-]+\s*", head) and head.strip() not in ("unavailable_after", "max-snippet"):
            name, part = head.strip(), rest
        if part.strip() in settings.noai and name in ("", "*", agent):
            raise FetchError("noai", f"X-Robots-Tag: {part.strip()}")


def reason_of(error: BaseException) -> FetchError:
    """The `FetchError` that an error of a direct download stands for; its text is the same in every run."""
    for cause in chain(error):
        if isinstance(cause, FetchError):
            return cause
        if (reason := from_error(cause)) is not None:
            # Without addresses in memory.
            return FetchError(reason, f"{type(cause).__name__}: {re.sub(r'0x[0-9a-f]+', '…', str(cause))}"[:300])
    return FetchError("fetcher_died", f"{type(error).__name__}: {error}")
