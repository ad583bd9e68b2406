"""What the parent and the fetching child say to each other: one JSON line each way."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from vidal.crawl.reasons import DISK, is_transient
from vidal.crawl.settings import WebSettings
from vidal.errors import ClipError, StorageError

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
class Ask:
    """One thing to do; ``folder`` is the clip's own, and nothing is written elsewhere."""

    op: Op
    url: str
    folder: str = ""
    wall_s: float = 120.0
    max_bytes: int = 512 * MIB
    expected_sha256: str = ""
    """Of an earlier crawl: other bytes become ``changed_content``."""
    entries: int = 50
    """How many entries ``search`` gives at most."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of ``get_json``, such as an API's token."""
    settings: WebSettings = field(default_factory=WebSettings)

    def secrets(self) -> tuple[str, ...]:
        """Texts that no answer may hold, longest first; the cookies' values are added where the file is read."""
        secrets = [self.settings.proxy, *self.headers.values()]
        secrets += [word for value in self.headers.values() for word in value.split()]
        if self.settings.proxy:
            parts = urlsplit(self.settings.proxy)
            secrets += [unquote(text) for text in (parts.username, parts.password) if text]
            secrets += [text for text in (parts.username, parts.password) if text]
        return tuple(sorted({text for text in secrets if len(text) >= 4}, key=len, reverse=True))

    def to_line(self) -> bytes:
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        # The settings may be those of the whole stage; the child gets the web's part of them.
        fields["settings"] = self.settings.model_dump(mode="json", include=set(WebSettings.model_fields))
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Ask:
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"settings": WebSettings.model_validate(fields["settings"])})


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
