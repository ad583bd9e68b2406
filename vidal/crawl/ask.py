"""What the parent and the fetching child say to each other: one JSON line each way."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from vidal.crawl.guard import Rules
from vidal.crawl.reasons import DISK, is_transient
from vidal.errors import ClipError, RecipeError, StorageError

MIB = 1024 * 1024
_Line = bytes
SEARCH = re.compile(r"([a-z0-9]+)search(?:date)?\d*:")
"""How yt-dlp writes a search: ``ytsearch20:words``; ``ytsearchdate20:words`` gives the newest first."""
_SEARCHED = {"yt": "youtube.com", "bili": "bilibili.com", "nico": "nicovideo.jp", "gv": "google.com",
             "sc": "soundcloud.com", "yahoo": "yahoo.com"}  # fmt: skip

Op = Literal["which", "metadata", "media", "search", "direct", "robots", "get_json"]
"""``which``: the extractor that matches, without network · ``metadata``, ``media``: through yt-dlp · ``search``: the
entries of a search, channel or playlist · ``direct``: the file itself · ``robots``: may the address be asked for ·
``get_json``: an API's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """What the child has to know for one ask; secrets are in here, so it has no useful text."""

    allow_addresses: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)
    """``http://[user:password@]host:port``; with one, nothing else is connected to."""
    cookies: str = ""
    """A Netscape cookies file; it is read, never written."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of ``get_json``, such as an API's token."""
    user_agent: str = ""
    """Empty: vidal with its version and ``contact``."""
    contact: str = ""
    socket_timeout_s: float = 20.0
    max_redirects: int = 5
    generic: bool = False
    """Whether yt-dlp's generic extractor may look for players in any page."""
    max_height: int = 720
    """Of the smaller side, so that an upright 720x1280 counts as 720."""
    audio_only: bool = False
    subtitles: tuple[str, ...] = ()
    """Languages, in yt-dlp's patterns, such as ``en.*``."""
    thumbnail: bool = False
    pictures: bool = False
    """Whether ``direct`` takes a picture for what was wanted."""
    robots: bool = True
    noai: tuple[str, ...] = ("noai", "noimageai")
    """Directives of X-Robots-Tag that make us turn away."""
    entries: int = 50
    """How many entries ``search`` gives at most."""

    def __post_init__(self) -> None:
        try:
            self.rules()
        except ValueError as error:
            raise RecipeError(f"fetch: {error}") from None

    def rules(self) -> Rules:
        proxy = None
        if self.proxy:
            try:
                parts = urlsplit(self.proxy)
                proxy = (parts.hostname or "", parts.port or 80)
            except ValueError:
                parts = None
            if parts is None or parts.scheme != "http" or not parts.hostname:
                raise ValueError("proxy is http://[user:password@]host:port")
        return Rules(
            allow_addresses=self.allow_addresses,
            allow_hosts=self.allow_hosts,
            deny_hosts=self.deny_hosts,
            proxy=proxy,
        )

    def agent(self) -> str:
        if self.user_agent:
            return self.user_agent
        from vidal import __version__

        return f"vidal/{__version__} (data set crawler{f'; {self.contact}' if self.contact else ''})"

    def secrets(self) -> tuple[str, ...]:
        """Texts that no answer may hold; the cookies' values are added where the file is read."""
        found = [self.proxy, *self.headers.values()]
        found += [word for value in self.headers.values() for word in value.split()]
        if self.proxy:
            parts = urlsplit(self.proxy)
            found += [unquote(text) for text in (parts.username, parts.password) if text]
            found += [text for text in (parts.username, parts.password) if text]
        return tuple(sorted({text for text in found if len(text) >= 4}, key=len, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing to do; ``folder`` is the clip's own, and nothing is written elsewhere."""

    op: Op
    url: str
    folder: str = ""
    wall_s: float = 120.0
    max_bytes: int = 512 * MIB
    expected_sha256: str = ""
    """Of an earlier crawl: other bytes become ``changed_content``."""
    settings: ChildSettings = field(default_factory=ChildSettings)

    def to_line(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Ask:
        raw = json.loads(line)
        told: dict[str, Any] = raw.pop("settings")
        settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        return cls(settings=ChildSettings(**settings), **raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an ask; files are names within the folder."""

    ok: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    """Crawl columns for ``metadata`` and ``media``, what HTTP said for ``direct``; by `vidal.crawl.metadata`."""
    file: str | None = None
    """The media; where picture and sound came apart, the picture."""
    audio_file: str | None = None
    """The sound, where it came apart: `vidal.crawl.merge.merge` puts the two together."""
    thumbnail_file: str | None = None
    subtitle_files: dict[str, str] = field(default_factory=dict)
    """Language to file."""
    bytes: int | None = None
    sha256: str | None = None
    """Of the media's bytes as they came; of picture and sound one after the other where they came apart."""
    final_url: str | None = None
    reason: str | None = None
    detail: str = ""
    transient: bool = False
    retry_after_s: float | None = None
    http_status: int | None = None
    requests: int = 0
    """HTTP requests that it took of the ask's host, those for robots.txt and redirects among them."""

    @classmethod
    def failed(
        cls, reason: str, detail: str = "", *, status: int | None = None, retry_after_s: float | None = None
    ) -> Answer:
        transient = reason != DISK and is_transient(reason)
        return cls(
            ok=False, reason=reason, detail=detail[:500], transient=transient, http_status=status,
            retry_after_s=retry_after_s,
        )  # fmt: skip

    def raise_if_failed(self) -> None:
        """`ClipError` for what is the clip's, `StorageError` for what is this machine's."""
        if self.reason == DISK:
            raise StorageError(f"the disk failed while fetching: {self.detail}")
        if not self.ok:
            raise ClipError(self.reason or "fetcher_died", self.detail, transient=self.transient)

    def to_line(self) -> _Line:
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: _Line) -> Answer:
        return cls(**json.loads(line))


def host_of(url: str) -> str:
    """The host that a visit counts for, in lower case; of a search, the platform's."""
    if (search := SEARCH.match(url)) and search[1] in _SEARCHED:
        return _SEARCHED[search[1]]
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
