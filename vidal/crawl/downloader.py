"""yt-dlp itself, tied down: one request handler, the rules before each request, nothing written but the media.

No plug-ins, configuration, cache or other programs: the guard sees every hop, those of an imitated browser, too.
"""

from __future__ import annotations

import functools
import io
import urllib.request
import urllib.response
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import urllib3
import yt_dlp
import yt_dlp.extractor
from urllib3.exceptions import DecodeError
from yt_dlp.networking._urllib import UrllibRH
from yt_dlp.networking.common import Request, Response
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.networking.impersonate import ImpersonateTarget

from vidal.crawl import guard, javascript
from vidal.crawl.ask import Ask
from vidal.crawl.cookies import read_cookies
from vidal.crawl.http import Client, Visit
from vidal.crawl.opt_out import check_headers, check_page
from vidal.crawl.reasons import FetchError, chain
from vidal.crawl.response import is_cut
from vidal.crawl.settings import WebSettings
from vidal.media.limits import MIB

javascript.register()

_TEXT_BYTES = 16 * 1024
_PAGE_BYTES = 32 * MIB
"""What is read as a whole: pages, playlists, answers of APIs, and whatever is sent compressed."""
_STEP_BYTES = MIB

OWN_EXTRACTORS: list[type] = []
"""Extractors that come before yt-dlp's own."""


class Log:
    """The last messages of yt-dlp, which may give the reason of a failure."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _keep(self, message: str) -> None:
        self.lines = [*self.lines[-20:], str(message)[:1000]]

    warning = error = _keep

    def debug(self, message: str) -> None:
        """Progress messages are dropped, except the one that is a refusal."""
        if "max-filesize" in message:
            self._keep(message)

    info = debug


class Downloader(yt_dlp.YoutubeDL):  # type: ignore[misc]
    """yt-dlp with one request handler, and the rules checked before each request."""

    def __init__(self, ask: Ask, client: Client, log: Log) -> None:
        self.ask, self.client, self.deadline = ask, client, client.clock() + ask.wall_s
        self.is_generic = False
        self.kind = "page"
        """``media`` while a file or its segments are downloaded."""
        self.refusal_text = ""
        """The text of the last page with status 401 or 403."""
        # Extractors are added below: by itself yt-dlp would add all of its own, the generic one included.
        super().__init__(_parameters(ask, log, self._on_progress), auto_init=False)
        for extractor in OWN_EXTRACTORS:
            self.add_info_extractor(extractor())
        for extractor in yt_dlp.extractor.gen_extractor_classes():
            if extractor.ie_key() != "Generic" or ask.settings.generic:
                self.add_info_extractor(extractor)

    def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
        if (jar := read_cookies(self.ask.settings.cookies)) is not None:
            for cookie in jar:
                self.cookiejar.set_cookie(cookie)
        downloader = self

        class EveryHopRH(UrllibRH):  # type: ignore[misc]
            def _create_instance(self, **given: Any) -> urllib.request.OpenerDirector:
                opener: urllib.request.OpenerDirector = super()._create_instance(**given)
                opener.add_handler(_EveryHop(downloader))
                return opener

        handlers = [EveryHopRH]
        if self.ask.settings.impersonate:
            # curl-cffi is there only where the setting is in use.
            from vidal.crawl.impersonation import handler_for

            # Never in the browser's place, not even where that fails.
            EveryHopRH._SUPPORTED_URL_SCHEMES = ("data",)
            handlers.append(handler_for(self))
        return super().build_request_director(handlers, ())

    def before_hop(self, url: str) -> None:
        """See whether there is time for a request and the owner of a page's host allows it, and wait for its turn.

        Raises `FetchError` where there is no time or no permission.
        """
        if self.client.clock() > self.deadline:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")
        if self.is_generic and self.ask.settings.robots:
            with Visit(self.client, self.ask) as visit:
                self.client.check_robots(visit, url)
        self.client.before_request(urlsplit(url).hostname or "", self.kind)

    def after_hop(self, status: int, headers: urllib3.HTTPHeaderDict) -> None:
        """Tell of a response, and see whether it states one length, and whether the page's owner opts out in it.

        Raises `FetchError` ``server_error`` for several lengths, and ``noai`` for an owner who opts out.
        """
        self.client.answered(status)
        lengths = {length.strip() for length in (headers.get("Content-Length") or "").split(",")}
        # Beside Transfer-Encoding no length counts; else yt-dlp would take the first for the whole.
        if len(lengths) > 1 and "Transfer-Encoding" not in headers:
            detail = f"several values of Content-Length: {', '.join(sorted(lengths))[:100]}"
            raise FetchError("server_error", detail, status=status)
        if self.is_generic:
            check_headers(headers, self.ask.settings)

    def urlopen(self, request: Any) -> Response:
        url = request if isinstance(request, str) else getattr(request, "url", None) or request.full_url
        if not url.startswith("data:"):
            guard.check_url(url, self.ask.settings.rules(), is_first=False)
        try:
            response: Response = super().urlopen(request if not isinstance(request, str) else Request(request))
        except HTTPError as error:
            if error.status in (401, 403):
                # Read before yt-dlp closes it, and left for extractors to read, too.
                data = error.response.read(_TEXT_BYTES)
                error.response.fp = io.BytesIO(data)
                self.refusal_text = data.decode("utf-8", "replace")
            raise
        except Exception as error:
            # yt-dlp takes it for a fault of the handler, after which extractors may go on.
            if own := next((one for one in chain(error) if isinstance(one, FetchError)), None):
                raise own from None
            raise
        response.read = functools.partial(self._read, response, response.read, bytearray())
        return response

    def _read(self, response: Response, read: Callable[..., bytes], head: bytearray, amt: int | None = None) -> bytes:
        """Read as asked, but no more than `_PAGE_BYTES` as a whole; a page may then opt out.

        ``head`` is what was read of it before.
        """
        if amt is not None:
            data = read(amt)
            head += data[: _TEXT_BYTES - len(head)]
            return data
        length = response.headers.get("Content-Length") or ""
        # Of urllib's, only this way notices that a body is shorter than announced; libcurl notices by itself.
        if not self.ask.settings.impersonate and length.isdigit() and int(length) <= _PAGE_BYTES:
            data = read()
        else:
            # In steps, as yt-dlp's reader of libcurl's responses copies what it has with every 16 KiB.
            parts, left = [], _PAGE_BYTES + 1
            while left and (part := read(min(left, _STEP_BYTES))):
                parts.append(part)
                left -= len(part)
            data = b"".join(parts)
        _check_size(data)
        if self.is_generic:
            # As Latin-1 any bytes decode, and the words that matter are ASCII.
            check_page((head + data).decode("latin-1"), self.ask.settings)
        return data

    def _on_progress(self, progress: dict[str, Any]) -> None:
        if (progress.get("downloaded_bytes") or 0) > self.ask.max_bytes:
            raise FetchError("too_large", f"more than {self.ask.max_bytes} bytes")
        if self.client.clock() > self.deadline:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")


class _EveryHop(urllib.request.BaseHandler):
    """Sees each request and each response, those of redirects, too, before yt-dlp's own handler, which would unpack."""

    # urllib's own handlers have 500, and yt-dlp's with them.
    handler_order = 400

    def __init__(self, downloader: Downloader) -> None:
        self._downloader = downloader

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self._downloader.before_hop(request.full_url)
        return request

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        headers = urllib3.HTTPHeaderDict(response.headers.items())
        self._downloader.after_hop(response.status, headers)
        if "Content-Encoding" not in headers:
            return response
        data = _decoded(urllib3.HTTPResponse(response, headers, response.status, preload_content=False))
        # Those of the compressed body would make yt-dlp miss bytes, or find too many.
        del response.headers["Content-Encoding"], response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(data))
        plain: Any = urllib.response.addinfourl(io.BytesIO(data), response.headers, response.url, response.status)
        # urllib's next handler reads it, and `addinfourl` has none.
        plain.msg = response.msg
        return plain

    https_request, https_response = http_request, http_response


def _decoded(response: urllib3.HTTPResponse) -> bytes:
    try:
        data = response.read(_PAGE_BYTES + 1)
    except DecodeError as error:
        raise FetchError("truncated", f"the compressed body is damaged: {error}", status=response.status) from error
    _check_size(data)
    # The answers to HEAD and many redirects are called compressed, and are empty.
    if data and is_cut(getattr(response, "_decoder", None)):
        raise FetchError("truncated", "the compressed body ends early", status=response.status)
    return data


def _check_size(data: bytes) -> None:
    if len(data) > _PAGE_BYTES:
        raise FetchError("too_large", f"a page of more than {_PAGE_BYTES} bytes")


def _extractor_args(settings: WebSettings) -> dict[str, dict[str, list[str]]]:
    arguments = {extractor.lower(): dict(given) for extractor, given in settings.extractor_args.items()}
    if settings.po_token:
        arguments.setdefault("youtube", {})["po_token"] = settings.po_token.split(",")
    return arguments


def _parameters(ask: Ask, log: Log, on_progress: Any) -> dict[str, Any]:
    settings = ask.settings
    return {
        "quiet": True, "noprogress": True, "logger": log, "color": "no_color", "progress_hooks": [on_progress],
        "ignoreerrors": False, "noplaylist": True, "extract_flat": "in_playlist" if ask.op == "search" else False,
        # Two tell a page of one video from a page of several.
        "playlistend": ask.entries if ask.op == "search" else 2, "lazy_playlist": True,
        "format": "bv*+ba/b/ba",
        # `res` is the smaller side, and the nearest above is taken where nothing is below.
        "format_sort": [f"res:{settings.max_height}"],
        "outtmpl": {"default": "source"}, "paths": {"home": ask.folder}, "overwrites": True, "continuedl": False,
        "updatetime": False, "cachedir": False, "usenetrc": False, "enable_file_urls": False,
        "js_runtimes": {}, "remote_components": (), "postprocessors": [], "fixup": "never",
        # yt-dlp must not count on an FFmpeg that the guard would not let it start.
        "external_downloader": {"default": "native"}, "hls_prefer_native": True, "ffmpeg_location": "/nonexistent",
        # Retrying is for the governor to decide.
        "retries": 0, "fragment_retries": 0, "extractor_retries": 0, "file_access_retries": 0,
        "skip_unavailable_fragments": False, "socket_timeout": settings.socket_timeout_s,
        "max_filesize": ask.max_bytes, "geo_bypass": False, "proxy": settings.proxy,
        "http_headers": {} if settings.impersonate else {"User-Agent": settings.agent()},
        "impersonate": ImpersonateTarget.from_str(settings.impersonate) if settings.impersonate else None,
        "writesubtitles": bool(settings.subtitles), "subtitleslangs": list(settings.subtitles),
        "extractor_args": _extractor_args(settings),
        "allow_unplayable_formats": False, "check_formats": None,
    }  # fmt: skip
