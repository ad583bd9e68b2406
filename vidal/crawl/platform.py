"""Platforms, through yt-dlp's Python API, in the child: metadata first, then media, nothing of yt-dlp's besides.

No plug-ins, no configuration, no cache, no other program, no disguise as a browser's network stack; one request
handler, whose every hop the guard sees. Formats are chosen by yt-dlp and brought one by one under our own names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yt_dlp
import yt_dlp.extractor
from yt_dlp.networking._urllib import UrllibRH
from yt_dlp.networking.common import Request, Response
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import (
    ContentTooShortError,
    ExtractorError,
    GeoRestrictedError,
    UnsupportedError,
    UserNotLive,
)

from vidal.crawl import guard, media_kind
from vidal.crawl.ask import SEARCH, Answer, Ask
from vidal.crawl.http import Client, Visit, check_directives, read_cookies, retry_after_s
from vidal.crawl.metadata import crawl_columns
from vidal.crawl.reasons import DISK, FetchError, chain, from_error, from_status, from_words

INFO_FILE = "info.json"
_HASH_CHUNK_BYTES = 1024 * 1024
_SUBTITLE_BYTES = 4 * 1024 * 1024
_SUBTITLES = 16
_WORDS_BYTES = 16 * 1024
_SUBTITLE_FORMATS = ("vtt", "srt", "ttml", "ass", "srv1", "srv2", "srv3", "json3")
_SEVERAL = ("requested_formats", "requested_downloads")
_UNKEPT = ("cookies", "http_headers", "automatic_captions", "thumbnails", "heatmap", "comments")

OWN_EXTRACTORS: list[type] = []
"""Extractors that are asked before yt-dlp's own."""


class _Log:
    """yt-dlp's messages: the last of them help to tell why it failed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _keep(self, message: str) -> None:
        self.lines = [*self.lines[-20:], str(message)[:1000]]

    warning = error = _keep

    def debug(self, message: str) -> None:
        """Where yt-dlp's progress goes, and one refusal that is worded as progress."""
        if "max-filesize" in message:
            self._keep(message)

    info = debug


class _Downloader(yt_dlp.YoutubeDL):  # type: ignore[misc]
    """yt-dlp with one request handler, and our rules before each request."""

    def __init__(self, ask: Ask, client: Client, log: _Log) -> None:
        self.ask, self.client, self.deadline = ask, client, time.monotonic() + ask.wall_s
        self.is_generic = False
        self.words = ""
        """Of the last page that refused us."""
        self.unmeasured: set[str] = set()
        """Addresses whose answers did not say how long they are."""
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
        self._count(url)
        try:
            response: Response = super().urlopen(request if not isinstance(request, str) else Request(request))
        except HTTPError as error:
            if error.status in (401, 403):
                self._keep_words(error.response)
            raise
        if response.url != url:
            self._count(response.url)
        if self.is_generic:
            check_directives(response.headers.get("X-Robots-Tag", ""), self.ask.settings)
        if not response.headers.get("Content-Length"):
            self.unmeasured.add(url)
        return response

    def _count(self, url: str) -> None:
        self.client.requests[(urlsplit(url).hostname or "").lower()] += 1

    def _keep_words(self, response: Response) -> None:
        """Read what a refusal says before yt-dlp closes it, and leave it to be read by extractors, too."""
        data = response.read(_WORDS_BYTES)
        response.fp = io.BytesIO(data)
        self.words = data.decode("utf-8", "replace")

    def _on_progress(self, progress: dict[str, Any]) -> None:
        if (progress.get("downloaded_bytes") or 0) > self.ask.max_bytes:
            raise FetchError("too_large", f"more than {self.ask.max_bytes} bytes")
        if time.monotonic() > self.deadline:
            raise FetchError("timeout", f"no end after {self.ask.wall_s:g} s")


def _parameters(ask: Ask, log: _Log, on_progress: Any) -> dict[str, Any]:
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
        # Trying again is for the governor to allow.
        "retries": 0, "fragment_retries": 0, "extractor_retries": 0, "file_access_retries": 0,
        "skip_unavailable_fragments": False, "socket_timeout": settings.socket_timeout_s,
        "max_filesize": ask.max_bytes, "geo_bypass": False, "proxy": settings.proxy,
        "http_headers": {"User-Agent": settings.agent()},
        "writesubtitles": bool(settings.subtitles), "subtitleslangs": list(settings.subtitles),
        "allow_unplayable_formats": False, "check_formats": None,
    }  # fmt: skip


_MEDIA_NAME = re.compile(
    r"\.(?:mp4|m4v|mov|webm|mkv|avi|flv|ts|mpe?g|3gp|og[gv]|opus|mp3|m4a|aac|flac|wav)$", re.IGNORECASE
)


def matching_extractor(url: str) -> str | None:
    """The first extractor other than the generic one that reads the address; nothing is asked for."""
    for extractor in (*OWN_EXTRACTORS, *yt_dlp.extractor.gen_extractor_classes()):
        if extractor.suitable(url) and extractor.ie_key() != "Generic":
            return str(extractor.ie_key())
    return None


def which(ask: Ask) -> Answer:
    """Whether yt-dlp or a direct download is for the address; a file's name needs no look for players."""
    extractor = matching_extractor(ask.url)
    if extractor is None and ask.settings.generic and not _MEDIA_NAME.search(urlsplit(ask.url).path):
        extractor = "generic"
    return Answer(ok=True, metadata={"via": "direct" if extractor is None else "yt_dlp", "extractor": extractor})


class Platform:
    """One ask to yt-dlp; every failure is a `FetchError` with the true reason."""

    def __init__(self, ask: Ask, client: Client) -> None:
        self.ask, self.log = ask, _Log()
        if not SEARCH.match(ask.url) or ask.op != "search":
            guard.check_url(ask.url, ask.settings.rules())
        self.downloader = _Downloader(ask, client, self.log)
        extractor = matching_extractor(ask.url)
        if extractor is None and not ask.settings.generic:
            raise FetchError("unsupported_address", "no extractor of yt-dlp's reads it, and `generic` is off")
        self.downloader.is_generic = extractor is None

    def answer(self) -> Answer:
        try:
            return {"metadata": self._metadata, "media": self._media, "search": self._search}[self.ask.op]()
        except Exception as error:
            raise reason_of(error, self.log.lines, self.downloader.words) from error
        finally:
            self.downloader._request_director.close()

    def _metadata(self) -> Answer:
        info = self._extract()
        kept = {name: value for name, value in self.downloader.sanitize_info(info).items() if name not in _UNKEPT}
        for one in (*kept.get("formats", ()), *kept.get("requested_formats", ())):
            one.pop("cookies", None)
        text = json.dumps({"asked": self.ask.url, "info": kept})
        if self.ask.folder:
            (Path(self.ask.folder) / INFO_FILE).write_text(text)
        return Answer(ok=True, metadata=crawl_columns(info), final_url=info.get("webpage_url"))

    def _extract(self) -> dict[str, Any]:
        info = self.downloader.extract_info(self.ask.url, download=False)
        if info is None:
            raise FetchError("extractor_failed", "nothing came of the address")
        if info.get("_type") in ("playlist", "multi_video"):
            entries = [entry for entry in info.get("entries") or () if entry]
            if len(entries) != 1:
                what = "no video" if not entries else "several videos; name it as a channel or playlist"
                raise FetchError("not_media" if not entries else "unsupported_address", f"the page has {what}")
            info = entries[0]
        return dict(info)

    def _media(self) -> Answer:
        info = self._known() or self._extract()
        columns = crawl_columns(info)
        if columns["is_live"]:
            raise FetchError("live", str(columns["live_status"] or "is_live"))
        formats = info.get("requested_formats") or info.get("requested_downloads") or [info]
        # A stream of its own: told of the others, yt-dlp would take each for all of them.
        about = {name: value for name, value in info.items() if name not in _SEVERAL}
        formats = [about | one for one in formats]
        stated = sum(int(one.get("filesize") or 0) for one in formats)
        if stated > self.ask.max_bytes:
            raise FetchError("too_large", f"{stated} bytes are announced, {self.ask.max_bytes} are allowed")
        names = ["source"] if len(formats) == 1 else ["source.video", "source.audio"]
        paths = [self._download(one, name) for one, name in zip(formats[:2], names, strict=True)]
        size, sha256 = _measure(paths)
        if size > self.ask.max_bytes:
            raise FetchError("too_large", f"more than {self.ask.max_bytes} bytes")
        if self.ask.expected_sha256 and sha256 != self.ask.expected_sha256:
            raise FetchError("changed_content", f"sha256 {sha256}, {size} bytes")
        return Answer(
            ok=True, metadata=columns | {"format_id": "+".join(str(one.get("format_id")) for one in formats)},
            file=names[0], audio_file=names[1] if len(names) > 1 else None, bytes=size, sha256=sha256,
            final_url=info.get("webpage_url"), subtitle_files=self._subtitles(info),
            thumbnail_file=self._thumbnail(info),
        )  # fmt: skip

    def _known(self) -> dict[str, Any] | None:
        """What an earlier ask for metadata has left in the folder, so that the platform is asked once."""
        path = Path(self.ask.folder) / INFO_FILE
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        if known["asked"] != self.ask.url:
            return None
        info = self.downloader.sanitize_info(known["info"], remove_private_keys=False)
        info.pop("requested_formats", None)
        return dict(self.downloader.process_ie_result(info, download=False))

    def _download(self, info: dict[str, Any], name: str) -> Path:
        path = Path(self.ask.folder) / name
        path.unlink(missing_ok=True)
        ok, _ = self.downloader.dl(str(path), info)
        if not ok or not path.is_file():
            reason, said = _from_log(self.log.lines) or ("network", "nothing came")
            raise FetchError(reason, said)
        with path.open("rb") as file:
            kind = media_kind.kind_of(file.read(media_kind.HEAD_BYTES))
        if kind not in media_kind.MEDIA:
            raise FetchError("not_media", kind)
        if info.get("url") in self.downloader.unmeasured and media_kind.is_cut_off(path):
            raise FetchError("truncated", f"the container goes on after {path.stat().st_size} bytes")
        return path

    def _subtitles(self, info: dict[str, Any]) -> dict[str, str]:
        """Those that were asked for and could be had; a clip is not lost for want of one."""
        files: dict[str, str] = {}
        wanted = list((info.get("requested_subtitles") or {}).items())[:_SUBTITLES]
        for number, (language, one) in enumerate(wanted):
            ending = one.get("ext") if one.get("ext") in _SUBTITLE_FORMATS else "txt"
            path = Path(self.ask.folder) / f"subtitle.{number}.{ending}"
            data = one.get("data")
            try:
                if data is not None:
                    path.write_text(data[:_SUBTITLE_BYTES], encoding="utf-8", errors="replace")
                else:
                    self.downloader.dl(str(path), {**one, "id": "subtitle"}, subtitle=True)
            except OSError:
                raise
            except Exception:
                continue
            if path.is_file() and path.stat().st_size <= _SUBTITLE_BYTES:
                files[re.sub(r"[^A-Za-z0-9-]", "_", str(language))[:35]] = path.name
        return files

    def _thumbnail(self, info: dict[str, Any]) -> str | None:
        url = info.get("thumbnail")
        if not self.ask.settings.thumbnail or not url:
            return None
        path = Path(self.ask.folder) / "thumbnail"
        try:
            with self.downloader.urlopen(Request(url)) as response:
                data = response.read(_SUBTITLE_BYTES)
        except Exception:
            return None
        if media_kind.kind_of(data[: media_kind.HEAD_BYTES]) not in media_kind.PICTURES:
            return None
        path.write_bytes(data)
        return path.name

    def _search(self) -> Answer:
        """The entries of a search, channel or playlist, as crawl columns with the address of each."""
        found = self.downloader.extract_info(self.ask.url, download=False)
        entries = (found or {}).get("entries")
        rows = [found] if entries is None else [entry for entry in entries if entry][: self.ask.entries]
        columns = [crawl_columns(row) for row in rows if row]
        for row, entry in zip(columns, rows, strict=True):
            row["url"] = _address(entry, (found or {}).get("webpage_url"))
        about = {name: crawl_columns(found or {})[name] for name in ("extractor", "title", "platform_id")}
        return Answer(ok=True, metadata={"entries": columns, **about})


def _address(entry: dict[str, Any], page: str | None) -> str | None:
    """Where an entry can be fetched: its own page, or the media itself where all have the list's page."""
    own = entry.get("webpage_url")
    if entry.get("_type") in ("url", "url_transparent"):
        found = own or entry.get("url")
    else:
        found = own if own and own != page else (entry.get("formats") or [entry])[-1].get("url")
    return str(found) if found else None


def _measure(paths: list[Path]) -> tuple[int, str]:
    sha256, size = hashlib.sha256(), 0
    for path in paths:
        size += os.path.getsize(path)
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                sha256.update(chunk)
    return size, sha256.hexdigest()


_BY_TYPE: tuple[tuple[type, str], ...] = (
    (GeoRestrictedError, "geo"),
    (UserNotLive, "live"),
    (UnsupportedError, "unsupported_address"),
    (ContentTooShortError, "truncated"),
)


def reason_of(error: BaseException, log: list[str], words: str = "") -> FetchError:
    """The true cause: our own refusal, the kind of the error, the words said, the HTTP status, the socket's error."""
    errors = list(chain(error))
    for one in errors:
        if isinstance(one, FetchError):
            return one
    for one in errors:
        if isinstance(one, guard.RefusedError):
            return FetchError("ssrf", one.detail)
        if "Redirection to url" in str(one):
            # urllib's own refusal of file: and the like.
            return FetchError("ssrf", "redirected to what is neither http nor https")
    text = _plain(str(error)) or type(error).__name__
    for one in errors:
        for kind, reason in _BY_TYPE:
            if isinstance(one, kind):
                return FetchError(reason, text)
    status, wait_s = _http(errors)
    if any(from_error(one) == DISK for one in errors):
        return FetchError(DISK, text)
    said = from_words(text)
    if status in (401, 403) and said in (None, "blocked", "login_required"):
        said = from_status(status, words)
    if said is None and status is not None:
        said = from_status(status)
    if said is not None:
        return FetchError(said, text, status=status, retry_after_s=wait_s)
    causes = (*map(from_error, errors), *map(from_words, map(str, errors)))
    cause = next((reason for reason in causes if reason is not None), None) or (_from_log(log) or (None,))[0]
    is_its_own = isinstance(error, (ExtractorError, yt_dlp.utils.DownloadError))
    return FetchError(cause or ("extractor_failed" if is_its_own else "fetcher_died"), text)


def _from_log(log: list[str]) -> tuple[str, str] | None:
    """The last line that gives a reason; that yt-dlp would like a JavaScript runtime is a warning in every visit."""
    said = ((from_words(line), line) for line in reversed(log))
    return next(((reason, line) for reason, line in said if reason not in (None, "no_formats")), None)


def _http(errors: list[BaseException]) -> tuple[int | None, float | None]:
    for one in errors:
        if isinstance(one, HTTPError):
            return one.status, retry_after_s(one.response.headers.get("Retry-After") or "")
    return None, None


def _plain(text: str) -> str:
    """yt-dlp's message without its colours, its request for bug reports and its list of causes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).removeprefix("ERROR: ")
    text = re.split(r"; please report this issue on|\(caused by ", text)[0]
    return re.sub(r"0x[0-9a-f]+", "…", text).strip()[:400]
