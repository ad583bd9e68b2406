"""Requests to a fetching child and its answers, one JSON line each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from vidal.crawl.reasons import DISK, is_transient
from vidal.crawl.settings import WebSettings
from vidal.errors import ClipError, StorageError
from vidal.media.limits import MIB

_Line = bytes  # in `Answer`, `bytes` is a field
SEARCH = re.compile(r"([a-z0-9]+)search(?:date)?\d*:")
"""A search in yt-dlp's syntax: ``nicosearch20:words``; ``nicosearchdate20:words`` returns the newest first."""
_SEARCHED = {"yt": "youtube.com", "bili": "bilibili.com", "nico": "nicovideo.jp", "gv": "google.com",
             "sc": "soundcloud.com", "yv": "yahoo.com", "rkfn": "rokfin.com"}  # fmt: skip

Op = Literal["which", "metadata", "media", "search", "direct", "robots", "get_json"]
"""``which``: the extractor that matches, without network · ``metadata``, ``media``: through yt-dlp · ``search``: the
entries of a search, channel or playlist · ``direct``: a plain download · ``robots``: whether robots.txt allows the
address · ``get_json``: the response of an API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to a fetching child, which writes nothing outside the clip's ``folder``."""

    op: Op
    url: str
    folder: str = ""
    wall_s: float = 120.0
    max_bytes: int = 512 * MIB
    expected_sha256: str = ""
    """Hash of an earlier crawl; different bytes fail with ``changed_content``. Empty: any bytes."""
    entries: int = 50
    """Maximum number of entries of ``search``."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Additional headers of ``get_json``, such as an API token."""
    settings: WebSettings = field(default_factory=WebSettings)

    def secrets(self) -> tuple[str, ...]:
        """Return the texts to redact from answers, longest first; cookie values are added where the file is read."""
        secrets = [self.settings.proxy, *self.headers.values()]
        # Of `Token KEY` a message may quote the key alone.
        secrets += [word for value in self.headers.values() for word in value.split()]
        secrets += [part for token in self.settings.po_token.split(",") for part in (token, *token.split("+"))]
        if self.settings.proxy:
            parts = urlsplit(self.settings.proxy)
            credentials = [text for text in (parts.username, parts.password) if text]
            # As the proxy's address spells them, and as they are sent.
            secrets += [*credentials, *map(unquote, credentials)]
        # A shorter text would be redacted from the middle of ordinary words.
        return tuple(sorted({text for text in secrets if len(text) >= 4}, key=len, reverse=True))

    def to_line(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields | {"settings": _text_of(self.settings)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Ask:
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"settings": _settings_of(fields["settings"])})


_text: tuple[WebSettings, str] | None = None


def _text_of(settings: WebSettings) -> str:
    """The settings as JSON. They are those of the ask before nearly always, and nobody changes them meanwhile."""
    global _text
    known = _text
    if known is None or known[0] is not settings:
        # The settings may be a whole stage; the child gets those of `WebSettings` only.
        dumped = settings.model_dump(mode="json", include=set(WebSettings.model_fields))
        _text = known = settings, json.dumps(dumped)
    return known[1]


@lru_cache(1)
def _settings_of(text: str) -> WebSettings:
    return WebSettings.model_validate(json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a request; files are names within its folder."""

    ok: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    """Crawl columns for ``metadata`` and ``media``, HTTP headers for ``direct``; see `vidal.crawl.metadata`."""
    file: str | None = None
    """The media file; the video if the platform delivers video and audio separately."""
    audio_file: str | None = None
    """The audio if it is delivered separately; `vidal.crawl.merge.merge` merges the two."""
    thumbnail_file: str | None = None
    subtitle_files: dict[str, str] = field(default_factory=dict)
    """File by language."""
    notes: tuple[str, ...] = ()
    """Lines on what was requested beside the media and could not be had, with the reason."""
    bytes: int | None = None
    sha256: str | None = None
    """Hash of the media bytes as downloaded: of the video, then the audio if it is delivered separately."""
    final_url: str | None = None
    reason: str | None = None
    detail: str = ""
    transient: bool = False
    retry_after_s: float | None = None
    http_status: int | None = None

    @classmethod
    def failed(
        cls, reason: str, detail: str = "", *, status: int | None = None, retry_after_s: float | None = None
    ) -> Answer:
        transient = reason != DISK and is_transient(reason)
        return cls(
            # Cut, as a platform's message may be of any length.
            ok=False, reason=reason, detail=detail[:500], transient=transient, http_status=status,
            retry_after_s=retry_after_s,
        )  # fmt: skip

    def raise_if_failed(self) -> None:
        """Raise `ClipError` for a failure of the clip, `StorageError` for one of this machine's disk."""
        if self.reason == DISK:
            raise StorageError(f"the disk failed while fetching: {self.detail}")
        if not self.ok:
            raise ClipError(self.reason or "fetcher_died", self.detail, transient=self.transient)

    def to_line(self) -> _Line:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: _Line) -> Answer:
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"notes": tuple(fields["notes"])})


def host_of(url: str) -> str:
    """Return the host whose budget a visit uses, in lower case; for a search, the host of the platform."""
    if (search := SEARCH.match(url)) and search[1] in _SEARCHED:
        return _SEARCHED[search[1]]
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
