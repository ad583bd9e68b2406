"""yt-dlp's requests with a browser's TLS handshake and headers, through libcurl, under the rules of the guard.

libcurl opens its sockets itself, where no audit hook sees them. So it is given a function that opens each socket, once
the address is resolved and before it is connected to, and which asks the guard as Python's own sockets do. Redirects
are followed here, one request at a time, as each is checked and charged before it is sent.
"""

from __future__ import annotations

import functools
import math
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from queue import Full, Queue
from typing import Any
from urllib.parse import urljoin, urlsplit

import curl_cffi.requests
import urllib3
from curl_cffi._wrapper import ffi, lib
from curl_cffi.const import CurlECode, CurlOpt
from curl_cffi.requests.exceptions import RequestException
from urllib3.response import HTTPResponse, _get_decoder
from yt_dlp.networking._curlcffi import CurlCFFIRH
from yt_dlp.networking._helper import get_redirect_method
from yt_dlp.networking.common import Request, Response
from yt_dlp.networking.exceptions import NoSupportingHandlers, RequestError
from yt_dlp.networking.impersonate import ImpersonateTarget
from yt_dlp.utils.networking import normalize_url

from vidal.crawl import guard
from vidal.crawl.reasons import FetchError
from vidal.crawl.response import is_cut
from vidal.media.limits import MIB

# Both of libcurl's curl.h.
_OPENSOCKETFUNCTION = 20163
_CURL_SOCKET_BAD = -1
_HEAD = struct.Struct("=iiiI")
"""Of libcurl's ``curl_sockaddr``: family, type, protocol and length of the address, which comes next."""
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_STEP_BYTES = MIB
_WAITING_CHUNKS = 256
"""Chunks of at most 16 KiB that libcurl is ahead of their reader."""

_opened = 0
"""How many sockets libcurl has asked for."""


def target_of(browser: str) -> ImpersonateTarget:
    """Return the browser that a name such as ``chrome`` or ``safari-26.0:macos`` stands for.

    Raises `ValueError` for one that the installed curl-cffi cannot imitate.
    """
    wanted = ImpersonateTarget.from_str(browser.lower())
    for target in CurlCFFIRH.supported_targets:
        if wanted in target:
            return target
    known = sorted({target.client for target in CurlCFFIRH.supported_targets})
    raise ValueError(f"{browser!r} is no browser of curl-cffi's; choose from {', '.join(known)}, or BROWSER-VERSION:OS")


@ffi.callback("int(void *, int, void *)", error=_CURL_SOCKET_BAD)  # type: ignore[untyped-decorator]
def _open_socket(_client: Any, _purpose: int, address: Any) -> int:
    """Give libcurl a socket for an address of its choice, if the guard lets Python connect there."""
    global _opened
    _opened += 1
    family, kind, protocol, length = _HEAD.unpack(bytes(ffi.buffer(address, _HEAD.size)))
    raw = bytes(ffi.buffer(ffi.cast("char *", address) + _HEAD.size, length))
    try:
        with socket.socket(family, kind, protocol) as sock:
            sys.audit("socket.connect", sock, _python_address(family, raw))
            return sock.detach()
    # Whatever happened, libcurl gets no socket; the guard remembers what it refused.
    except BaseException:
        return _CURL_SOCKET_BAD


def _python_address(family: int, raw: bytes) -> tuple[Any, ...] | bytes:
    """A ``sockaddr`` of C as Python writes it; bytes, which the guard refuses, for a family other than IP."""
    (port,) = struct.unpack("!H", raw[2:4])
    if family == socket.AF_INET:
        return socket.inet_ntop(family, raw[4:8]), port
    if family == socket.AF_INET6:
        (scope,) = struct.unpack("=I", raw[24:28])
        return socket.inet_ntop(family, raw[8:24]), port, 0, scope
    return raw


class _GuardedSession(curl_cffi.requests.Session[Any]):
    """curl_cffi's, which sends one request at a time, through sockets of `_open_socket`."""

    def __init__(self, downloader: Any, cookiejar: Any) -> None:
        self._downloader = downloader
        super().__init__(cookies=cookiejar, trust_env=False)

    def request(self, method: Any, url: str, **given: Any) -> Any:  # type: ignore[override]
        """Send a request and follow its redirects; the arguments are those of yt-dlp's handler."""
        headers = dict(given.pop("headers", None) or {})
        for _ in range(_MAX_REDIRECTS + 1):
            # What urllib announces of each of its requests, and the guard then checks.
            sys.audit("urllib.Request", url, given.get("data"), headers, method)
            self._downloader.before_hop(url)
            response = self._send(method, url, headers=headers, **given)
            self._downloader.after_hop(response.status_code, urllib3.HTTPHeaderDict(response.headers.multi_items()))
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not target:
                return _unpacked(response)
            response.close()
            method, before, url = get_redirect_method(method, response.status_code), method, urljoin(url, target)
            url = normalize_url(url).partition("#")[0]
            left_out = {"cookie"} if method == before else {"cookie", "content-length", "content-type"}
            if urlsplit(url).netloc != urlsplit(response.url).netloc:
                left_out.add("authorization")
            if method != before:
                given["data"] = None
            headers = {name: value for name, value in headers.items() if name.lower() not in left_out}
        raise FetchError("redirect_loop", f"more than {_MAX_REDIRECTS} redirects")

    def _send(self, method: Any, url: str, **given: Any) -> Any:
        downloader = self._downloader
        settings, refused, opened = downloader.ask.settings, len(guard.refusals()), _opened
        if lib._curl_easy_setopt(self.curl._curl, _OPENSOCKETFUNCTION, _open_socket):
            raise guard.RefusedError("this libcurl lets nobody see where it connects to")
        # They are set last, for each request anew, where yt-dlp's own are lost with the first.
        options: dict[Any, Any] = {
            CurlOpt.PROTOCOLS_STR: "http,https", CurlOpt.PROXY: settings.proxy, CurlOpt.NOPROXY: "",
            CurlOpt.HTTPPROXYTUNNEL: int(url.startswith("https:")),
            CurlOpt.TIMEOUT_MS: max(1, int((downloader.deadline - downloader.client.clock()) * 1000)),
            CurlOpt.LOW_SPEED_TIME: math.ceil(settings.socket_timeout_s),
            # libcurl reads one member of several, and takes data that ends early for the whole.
            CurlOpt.HTTP_CONTENT_DECODING: 0,
        }  # fmt: skip
        self.curl_options = options
        given |= {"allow_redirects": False, "stream": True}
        try:
            response = super().request(method, url, **given)
        except RequestException as error:
            if len(guard.refusals()) > refused:
                raise guard.RefusedError(guard.refusals()[-1]) from None
            if error.code == CurlECode.WEIRD_SERVER_REPLY:
                raise FetchError("server_error", f"the response makes no sense: {error}"[:300]) from error
            raise
        if _opened == opened:
            raise guard.RefusedError("libcurl connected without asking")
        _bound(response.queue, response.quit_now.is_set)
        return response


def _unpacked(response: Any) -> Any:
    """The response, whose body is read unpacked, and whose headers are those of such a body."""
    encoding = (response.headers.get("Content-Encoding") or "").lower()
    if encoding and all(part.strip() in HTTPResponse.CONTENT_DECODERS for part in encoding.split(",")):
        response.iter_content = functools.partial(_unpack, response.iter_content, encoding, response.status_code)
        # Of the packed body yt-dlp would count the bytes.
        del response.headers["Content-Encoding"]
        response.headers.pop("Content-Length", None)
    return response


def _unpack(iter_content: Callable[[], Iterator[bytes]], encoding: str, status: int) -> Iterator[bytes]:
    decoder, is_empty = _get_decoder(encoding), True
    for chunk in iter_content():
        is_empty = False
        while True:
            try:
                data = decoder.decompress(chunk, max_length=_STEP_BYTES)
            except HTTPResponse.DECODER_ERROR_CLASSES as error:
                raise FetchError("truncated", f"the compressed body is damaged: {error}", status=status) from error
            if data:
                yield data
            if not decoder.has_unconsumed_tail:
                break
            chunk = b""
    if not is_empty and is_cut(decoder):
        raise FetchError("truncated", "the compressed body ends early", status=status)


def _bound(chunks: Queue[Any], is_given_up: Callable[[], bool]) -> None:
    """Let libcurl wait for the reader, where it would keep a whole file in memory."""
    put, chunks.maxsize = chunks.put, _WAITING_CHUNKS

    def put_in_turn(chunk: Any) -> None:
        while not is_given_up():
            try:
                return put(chunk, timeout=0.1)
            except Full:
                continue

    chunks.put = chunks.put_nowait = put_in_turn  # type: ignore[method-assign,assignment]


def handler_for(downloader: Any) -> type[CurlCFFIRH]:
    """yt-dlp's request handler for imitated browsers, whose requests a downloader checks and charges."""

    class GuardedCurlRH(CurlCFFIRH):  # type: ignore[misc]
        RH_NAME = "curl_cffi"

        def _create_instance(self, cookiejar: Any = None) -> _GuardedSession:
            return _GuardedSession(downloader, cookiejar)

        def send(self, request: Request) -> Response:
            try:
                return super().send(request)
            except RequestError:
                raise
            except Exception as error:
                # At any other error yt-dlp would go on with the next handler.
                raise NoSupportingHandlers([], [error]) from error

    return GuardedCurlRH
