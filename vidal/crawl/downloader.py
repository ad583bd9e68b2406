"""yt-dlp itself, tied down: one request handler, the rules before each request, nothing written but the media.

No plug-ins, configuration, cache, other programs or imitation of a browser's network stack: the guard sees every hop.
"""

from __future__ import annotations

import io
import time
from typing import Any
from urllib.parse import urlsplit

import yt_dlp
import yt_dlp.extractor
from yt_dlp.networking._urllib import UrllibRH
from yt_dlp.networking.common import Request, Response
from yt_dlp.networking.exceptions import HTTPError

from vidal.crawl import guard
from vidal.crawl.ask import Ask
from vidal.crawl.cookies import read_cookies
from vidal.crawl.http import Client, Visit
from vidal.crawl.opt_out import check_headers
from vidal.crawl.reasons import FetchError

_TEXT_BYTES = 16 * 1024

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
        self.ask, self.client, self.deadline = ask, client, time.monotonic() + ask.wall_s
        self.is_generic = False
        self.refusal_text = ""
        """The text of the last page with status 401 or 403."""
        self.without_length: set[str] = set()
        """URLs whose responses had no Content-Length."""
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
        return super().build_request_director([UrllibRH], ())

    def urlopen(self, request: Any) -> Response:
        url = request if isinstance(request, str) else getattr(request, "url", None) or request.full_url
        if not url.startswith("data:"):
            guard.check_url(url, self.ask.settings.rules(), is_first=False)
        if time.monotonic() > self.deadline:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")
        if self.is_generic and self.ask.settings.robots:
            with Visit(self.client, self.ask) as visit:
                self.client.check_robots(visit, url)
        self.client.requests[(urlsplit(url).hostname or "").lower()] += 1
        try:
            response: Response = super().urlopen(request if not isinstance(request, str) else Request(request))
        except HTTPError as error:
            if error.status in (401, 403):
                # Read before yt-dlp closes it, and left for extractors to read, too.
                data = error.response.read(_TEXT_BYTES)
                error.response.fp = io.BytesIO(data)
                self.refusal_text = data.decode("utf-8", "replace")
            raise
        if response.url != url:
            self.client.requests[(urlsplit(response.url).hostname or "").lower()] += 1
        if self.is_generic:
            check_headers(response.headers, self.ask.settings)
        if not response.headers.get("Content-Length"):
            self.without_length.add(url)
        return response

    def _on_progress(self, progress: dict[str, Any]) -> None:
        if (progress.get("downloaded_bytes") or 0) > self.ask.max_bytes:
            raise FetchError("too_large", f"more than {self.ask.max_bytes} bytes")
        if time.monotonic() > self.deadline:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")


def _parameters(ask: Ask, log: Log, on_progress: Any) -> dict[str, Any]:
    settings = ask.settings
    return {
        "quiet": True, "noprogress": True, "logger": log, "color": "no_color", "progress_hooks": [on_progress],
        "ignoreerrors": False, "noplaylist": True, "extract_flat": "in_playlist" if ask.op == "search" else False,
        "playlistend": ask.entries if ask.op == "search" else 2, "lazy_playlist": True,
        "format": "bv*+ba/b/ba",
        # `res` is the smaller side, and the nearest above is taken where nothing is below.
        "format_sort": [f"res:{settings.max_height}"],
        "outtmpl": {"default": "source"}, "paths": {"home": ask.folder}, "overwrites": True, "continuedl": False,
        "updatetime": False, "cachedir": False, "usenetrc": False, "enable_file_urls": False,
        "js_runtimes": {}, "remote_components": (), "postprocessors": [], "fixup": "never",
        "external_downloader": {"default": "native"}, "hls_prefer_native": True, "ffmpeg_location": "/nonexistent",
        # Retrying is for the governor to decide.
        "retries": 0, "fragment_retries": 0, "extractor_retries": 0, "file_access_retries": 0,
        "skip_unavailable_fragments": False, "socket_timeout": settings.socket_timeout_s,
        "max_filesize": ask.max_bytes, "geo_bypass": False, "proxy": settings.proxy,
        "http_headers": {"User-Agent": settings.agent()},
        "writesubtitles": bool(settings.subtitles), "subtitleslangs": list(settings.subtitles),
        "allow_unplayable_formats": False, "check_formats": None,
    }  # fmt: skip
