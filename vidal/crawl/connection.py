"""HTTP connections that are kept between requests, one per host, through a proxy where there is one."""

from __future__ import annotations

import functools
import http.client
import re
import ssl
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from vidal.crawl.guard import Rules
from vidal.crawl.reasons import FetchError

_MAX_KEPT = 16
_Key = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(slots=True)
class Page:
    """The response to one request, its body not read yet."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    url: str
    hops: int = 0
    """How many redirects led here."""

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        """The values of a header, joined by commas; empty where there is none."""
        return ", ".join(self.response.headers.get_all(name, []))

    def length(self) -> int | None:
        """The length in bytes that was announced, if any; raises `FetchError` for several that differ or no number."""
        lengths = {part.strip() for part in self.header("Content-Length").split(",")}
        if self.response.chunked or lengths == {""}:
            return None
        length = lengths.pop()
        if lengths or not re.fullmatch(r"\d{1,18}", length):
            self.drop()
            text = self.header("Content-Length")[:100]
            raise FetchError("server_error", f"no length can be {text!r}", status=self.status)
        return int(length)

    def drop(self) -> None:
        """Leave the body unread and close the connection with it."""
        self.response.close()
        self.connection.close()


class Connections:
    """Sends requests over at most 16 kept connections; those made under other rules are closed."""

    def __init__(self) -> None:
        self._kept: dict[_Key, http.client.HTTPConnection] = {}
        self._rules: tuple[Rules, str] = (Rules(), "")

    def get(
        self, url: str, parts: SplitResult, headers: dict[str, str], *, timeout_s: float, rules: Rules, proxy: str
    ) -> Page:
        """Send one GET without following redirects; once more where a kept connection has gone stale."""
        if (rules, proxy) != self._rules:
            self.close()
            self._rules = (rules, proxy)
        key = (parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        connection = self._kept.pop(key, None) or _connect(key, proxy)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        while len(self._kept) >= _MAX_KEPT:
            self._kept.pop(next(iter(self._kept))).close()
        self._kept[key] = connection
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~[]|")
        if proxy and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            headers = headers | _proxy_headers(proxy)
        headers["Host"] = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
        is_kept = connection.sock is not None
        try:
            try:
                response = _request(connection, target, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not is_kept:
                    raise
                connection.close()
                response = _request(connection, target, headers)
        except BaseException:
            connection.close()
            raise
        return Page(response, connection, url)

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()


def _connect(key: _Key, proxy: str) -> http.client.HTTPConnection:
    scheme, host, port = key
    proxy_parts = urlsplit(proxy)
    address = (proxy_parts.hostname or "", proxy_parts.port or 80) if proxy else (host, port)
    if scheme == "http":
        return http.client.HTTPConnection(*address)
    connection = http.client.HTTPSConnection(*address, context=_tls())
    if proxy:
        connection.set_tunnel(host, port, headers=_proxy_headers(proxy))
    return connection


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


@functools.cache
def _tls() -> ssl.SSLContext:
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _request(connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()
