"""Downloads from platforms, in the fetching child, through yt-dlp's Python API: first the metadata, then the media.

yt-dlp chooses the formats, which are downloaded one by one under names of our own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yt_dlp
import yt_dlp.extractor
from yt_dlp.networking.common import Request
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
from vidal.crawl.downloader import OWN_EXTRACTORS, Downloader, Log
from vidal.crawl.http import Client
from vidal.crawl.metadata import clean, crawl_columns
from vidal.crawl.reasons import DISK, FetchError, chain, from_error, from_status, from_words, is_transient
from vidal.crawl.response import retry_after_s

INFO_FILE = "info.json"
_LISTING_COLUMNS = ("extractor", "title", "platform_id")
_HASH_CHUNK_BYTES = 1024 * 1024
_SUBTITLE_BYTES = 4 * 1024 * 1024
_MAX_SUBTITLES = 16
_SUBTITLE_FORMATS = ("vtt", "srt", "ttml", "ass", "srv1", "srv2", "srv3", "json3")
_FORMAT_LISTS = ("requested_formats", "requested_downloads")
_OMITTED = ("cookies", "http_headers", "automatic_captions", "thumbnails", "heatmap", "comments")

_MEDIA_NAME = re.compile(
    r"\.(?:mp4|m4v|mov|webm|mkv|avi|flv|ts|mpe?g|3gp|og[gv]|opus|mp3|m4a|aac|flac|wav)$", re.IGNORECASE
)


def matching_extractor(url: str) -> str | None:
    """The name of the first extractor for the URL other than the generic one; sends no request."""
    for extractor in (*OWN_EXTRACTORS, *yt_dlp.extractor.gen_extractor_classes()):
        if extractor.suitable(url) and extractor.ie_key() != "Generic":
            return str(extractor.ie_key())
    return None


def which(ask: Ask) -> Answer:
    """Whether yt-dlp or a direct download fits the URL; one that names a media file is downloaded directly."""
    extractor = matching_extractor(ask.url)
    if extractor is None and ask.settings.generic and not _MEDIA_NAME.search(urlsplit(ask.url).path):
        extractor = "generic"
    return Answer(ok=True, metadata={"via": "direct" if extractor is None else "yt_dlp", "extractor": extractor})


class Platform:
    """One ask of yt-dlp; `answer` raises `FetchError` with the reason of any failure."""

    def __init__(self, ask: Ask, client: Client) -> None:
        self.ask, self.log = ask, Log()
        if not SEARCH.match(ask.url) or ask.op != "search":
            guard.check_url(ask.url, ask.settings.rules())
        self.downloader = Downloader(ask, client, self.log)
        extractor = matching_extractor(ask.url)
        if extractor is None and ask.op == "search" and (search := SEARCH.match(ask.url)):
            keys = (getattr(extractor, "SEARCH_KEY", None) for extractor in yt_dlp.extractor.gen_extractor_classes())
            known = ", ".join(sorted(key for key in keys if isinstance(key, str)))
            raise FetchError("unsupported_address", f"yt-dlp has no search {search[0]} it has {known}")
        if extractor is None and not ask.settings.generic:
            raise FetchError("unsupported_address", "no extractor of yt-dlp's reads it, and `generic` is off")
        self.downloader.is_generic = extractor is None

    def answer(self) -> Answer:
        try:
            return {"metadata": self._metadata, "media": self._media, "search": self._search}[self.ask.op]()
        except Exception as error:
            raise reason_of(error, self.log.lines, self.downloader.refusal_text) from error
        finally:
            self.downloader._request_director.close()

    def _metadata(self) -> Answer:
        info = self._extract()
        info = {name: value for name, value in self.downloader.sanitize_info(info).items() if name not in _OMITTED}
        for stream in (*info.get("formats", ()), *info.get("requested_formats", ())):
            # yt-dlp notes the session's cookies with each format; they belong into no file.
            stream.pop("cookies", None)
        if self.ask.folder:
            (Path(self.ask.folder) / INFO_FILE).write_text(json.dumps({"asked": self.ask.url, "info": info}))
        return Answer(ok=True, metadata=crawl_columns(info), final_url=info.get("webpage_url"))

    def _extract(self) -> dict[str, Any]:
        info = self.downloader.extract_info(self.ask.url, download=False)
        if info is None:
            raise FetchError("extractor_failed", "nothing came of the address")
        if info.get("_type") in ("playlist", "multi_video"):
            entries = [entry for entry in info.get("entries") or () if entry]
            # A list of one is a page with that video, such as a post.
            if len(entries) != 1:
                what = "no video" if not entries else "several videos; name it as a channel or playlist"
                raise FetchError("not_media" if not entries else "unsupported_address", f"the page has {what}")
            info = entries[0]
        return dict(info)

    def _media(self) -> Answer:
        info = self._stored_info() or self._extract()
        columns = crawl_columns(info)
        if columns["is_live"]:
            raise FetchError("live", str(columns["live_status"] or "is_live"))
        formats = info.get("requested_formats") or info.get("requested_downloads") or [info]
        # Without the lists of formats: with them, yt-dlp would download all for each.
        common = {name: value for name, value in info.items() if name not in _FORMAT_LISTS}
        formats = [common | stream for stream in formats]
        announced = sum(int(stream.get("filesize") or 0) for stream in formats)
        if announced > self.ask.max_bytes:
            raise FetchError("too_large", f"{announced} bytes are announced, {self.ask.max_bytes} are allowed")
        names = ["source"] if len(formats) == 1 else ["source.video", "source.audio"]
        paths = [self._download(stream, name) for stream, name in zip(formats[:2], names, strict=True)]
        size, digest = 0, hashlib.sha256()
        for path in paths:
            size += os.path.getsize(path)
            with path.open("rb") as file:
                while chunk := file.read(_HASH_CHUNK_BYTES):
                    digest.update(chunk)
        sha256 = digest.hexdigest()
        notes: list[str] = []
        # Again, as what a platform announces may be missing or wrong.
        if size > self.ask.max_bytes:
            raise FetchError("too_large", f"more than {self.ask.max_bytes} bytes")
        if self.ask.expected_sha256 and sha256 != self.ask.expected_sha256:
            raise FetchError("changed_content", f"sha256 {sha256}, {size} bytes")
        chosen = {
            "format_id": clean("+".join(str(stream.get("format_id")) for stream in formats)),
            # YouTube's name of the client that it took us for.
            "client": clean("+".join(parse_qs(urlsplit(formats[0].get("url") or "").query).get("c", ())), 35)
            if columns["extractor"] == "youtube" else None,
        }  # fmt: skip
        return Answer(
            ok=True, metadata=columns | chosen,
            file=names[0], audio_file=names[1] if len(names) > 1 else None, bytes=size, sha256=sha256,
            final_url=info.get("webpage_url"), subtitle_files=self._subtitles(info, notes),
            thumbnail_file=self._thumbnail(info, notes), notes=tuple(notes),
        )  # fmt: skip

    def _stored_info(self) -> dict[str, Any] | None:
        """The metadata that an earlier ask has left in the folder, so that the platform is asked only once."""
        path = Path(self.ask.folder) / INFO_FILE
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        if stored["asked"] != self.ask.url:
            return None
        info = self.downloader.sanitize_info(stored["info"], remove_private_keys=False)
        info.pop("requested_formats", None)
        return dict(self.downloader.process_ie_result(info, download=False))

    def _download(self, info: dict[str, Any], name: str) -> Path:
        path = Path(self.ask.folder) / name
        path.unlink(missing_ok=True)
        self.downloader.kind = "media"
        ok, _ = self.downloader.dl(str(path), info)
        if not ok or not path.is_file():
            raise FetchError(*(_from_log(self.log.lines) or ("network", "nothing came")))
        with path.open("rb") as file:
            kind = media_kind.kind_of(file.read(media_kind.HEAD_BYTES))
        if kind not in media_kind.MEDIA:
            raise FetchError("not_media", kind)
        # Even where all announced bytes came: the server's own copy may be half a file.
        if media_kind.is_cut_off(path):
            raise FetchError("truncated", f"the container goes on after {path.stat().st_size} bytes")
        return path

    def _subtitles(self, info: dict[str, Any], notes: list[str]) -> dict[str, str]:
        """The requested subtitles; one that cannot be had does not fail the clip, but adds a note."""
        files: dict[str, str] = {}
        requested: dict[str, Any] = info.get("requested_subtitles") or {}
        for pattern in self.ask.settings.subtitles:
            if not any(re.fullmatch(pattern, language) for language in requested):
                notes.append(f"subtitles {pattern}: the platform has none")
        for number, (language, subtitle) in enumerate(requested.items()):
            try:
                if number >= _MAX_SUBTITLES:
                    raise FetchError("too_large", f"more than {_MAX_SUBTITLES} languages")
                name = self._subtitle(number, subtitle)
            except OSError:
                raise
            except Exception as error:
                notes.append(_note(f"subtitles {clean(language, 35)}", reason_of(error, self.log.lines)))
            else:
                # A number would make it an image's name (`vidal.dataset.alignment`).
                language = re.sub(r"[^A-Za-z0-9-]", "_", str(language))[:35]
                files[f"x-{language}" if language.isdigit() else language] = name
        return files

    def _subtitle(self, number: int, subtitle: dict[str, Any]) -> str:
        # A platform's word, which becomes part of a file's name.
        suffix = subtitle.get("ext") if subtitle.get("ext") in _SUBTITLE_FORMATS else "txt"
        path = Path(self.ask.folder) / f"subtitle.{number}.{suffix}"
        if (data := subtitle.get("data")) is not None:
            path.write_text(data, encoding="utf-8", errors="replace")
        else:
            self.downloader.dl(str(path), {**subtitle, "id": "subtitle"}, subtitle=True)
        if not path.is_file():
            raise FetchError(*(_from_log(self.log.lines) or ("network", "nothing came")))
        if path.stat().st_size > _SUBTITLE_BYTES:
            path.unlink()
            raise FetchError("too_large", f"more than {_SUBTITLE_BYTES} bytes")
        return path.name

    def _thumbnail(self, info: dict[str, Any], notes: list[str]) -> str | None:
        """The platform's thumbnail if it is requested; without one, a note is added."""
        if not self.ask.settings.thumbnail:
            return None
        path = Path(self.ask.folder) / "thumbnail"
        try:
            if not info.get("thumbnail"):
                raise FetchError("gone", "the platform has none")
            with self.downloader.urlopen(Request(info["thumbnail"])) as response:
                data = response.read(_SUBTITLE_BYTES + 1)
            if len(data) > _SUBTITLE_BYTES:
                raise FetchError("too_large", f"more than {_SUBTITLE_BYTES} bytes")
            kind = media_kind.kind_of(data[: media_kind.HEAD_BYTES])
            if kind not in media_kind.IMAGES:
                raise FetchError("not_media", f"{kind} is no image")
        except Exception as error:
            notes.append(_note("thumbnail", reason_of(error, self.log.lines)))
            return None
        path.write_bytes(data)
        return path.name

    def _search(self) -> Answer:
        """The entries of a search, channel or playlist, as crawl columns with the URL of each."""
        listing = self.downloader.extract_info(self.ask.url, download=False) or {}
        entries = [listing] if listing.get("entries") is None else listing["entries"]
        rows = []
        for entry in [entry for entry in entries if entry][: self.ask.entries]:
            # The entry's own page, or the media itself where every entry has the page of the list.
            url = entry.get("webpage_url")
            if entry.get("_type") in ("url", "url_transparent"):
                url = url or entry.get("url")
            elif not url or url == listing.get("webpage_url"):
                url = (entry.get("formats") or [entry])[-1].get("url")
            rows.append(crawl_columns(entry) | {"url": str(url) if url else None})
        columns = crawl_columns(listing)
        return Answer(ok=True, metadata={"entries": rows} | {name: columns[name] for name in _LISTING_COLUMNS})


def _note(what: str, failure: FetchError) -> str:
    if failure.reason == DISK:
        raise failure
    return f"{what}: {failure.reason}: {failure.detail[:200]}"


_BY_TYPE: tuple[tuple[type, str], ...] = (
    (GeoRestrictedError, "geo"),
    (UserNotLive, "live"),
    (UnsupportedError, "unsupported_address"),
    (ContentTooShortError, "truncated"),
)


def reason_of(error: BaseException, log: list[str], refusal_text: str = "") -> FetchError:
    """The `FetchError` that a failure of yt-dlp's stands for.

    In order: our own error, the kind of yt-dlp's, its text, the HTTP status, the socket's error, the log.
    ``refusal_text`` is the text of a page with status 401 or 403.
    """
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
    # Without colours, the request for bug reports, the list of causes and addresses in memory.
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ")
    text = re.split(r"; please report this issue on|\(caused by ", text)[0]
    text = re.sub(r"0x[0-9a-f]+", "…", text).strip()[:400] or type(error).__name__
    said = text
    # Of these yt-dlp's own text says only how many there are.
    for cause in (cause for one in errors for cause in getattr(one, "unexpected_errors", ())):
        text = f"{text}: {type(cause).__name__}: {re.sub(r'0x[0-9a-f]+', '…', str(cause))}"[:400]
    text = text.replace("Unable to handle request: 1 unexpected error(s): ", "")
    for one in errors:
        for kind, known_reason in _BY_TYPE:
            if isinstance(one, kind):
                return FetchError(known_reason, text)
    status, wait_s = None, None
    if http_error := next((one for one in errors if isinstance(one, HTTPError)), None):
        status = http_error.status
        wait_s = retry_after_s(http_error.response.headers.get("Retry-After") or "")
    if any(from_error(one) == DISK for one in errors):
        return FetchError(DISK, text)
    reason = from_words(said)
    is_its_own = isinstance(error, (ExtractorError, yt_dlp.utils.DownloadError))
    is_expected = all(one.expected for one in errors if isinstance(one, ExtractorError))
    if status is None and reason is not None and reason != DISK and not is_expected:
        # What yt-dlp itself calls a bug of its extractor tells nothing about the video.
        reason = reason if is_transient(reason) else "extractor_failed"
    if status in (401, 403) and reason in (None, "blocked", "login_required"):
        reason = from_status(status, refusal_text)
    if reason is None and status is not None:
        reason = from_status(status)
    if reason is not None:
        return FetchError(reason, text, status=status, retry_after_s=wait_s)
    causes = (*map(from_error, errors), *map(from_words, map(str, errors)))
    cause = next((cause for cause in causes if cause is not None), None) or (_from_log(log) or (None,))[0]
    return FetchError(cause or ("extractor_failed" if is_its_own else "fetcher_died"), text)


def _from_log(log: list[str]) -> tuple[str, str] | None:
    """The last line with a reason, and that reason.

    Warnings are of what yt-dlp lacks, so that only a transient reason counts, or that the file is too large; and not
    ``no_formats``, of which every visit warns.
    """
    for line in reversed(log):
        reason = from_words(line)
        if reason == "too_large" or (reason not in (None, DISK, "no_formats") and is_transient(reason)):
            return reason, line
    return None
