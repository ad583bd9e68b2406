"""What a recipe says of the web: what may be visited, how, how often, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vidal.crawl.governor import HostRules
from vidal.crawl.guard import Rules
from vidal.errors import RecipeError
from vidal.media.limits import MIB

RESTRICTED = {
    "youtube": ("youtube.com", "youtu.be", "youtube-nocookie.com"),
    "tiktok": ("tiktok.com",),
    "instagram": ("instagram.com",),
    "x": ("x.com", "twitter.com"),
}
"""Platforms whose terms restrict automated access, by the name with which a recipe accepts them."""


class WebSettings(BaseModel):
    """The web's part of the settings of ``fetch``, which the fetching child gets with every ask."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    how: ClassVar[tuple[str, ...]] = (
        "allow_addresses", "hosts", "any_host", "concurrency", "tries", "back_off_s", "outage_tries", "wall_s",
        "cookies", "proxy", "session", "user_agent", "contact", "accept_terms",
    )  # fmt: skip
    """Settings that say how something is fetched rather than what: no part of the fingerprint."""
    hidden: ClassVar[tuple[str, ...]] = ("cookies", "proxy")
    """Settings that stand in no file of a data set."""

    via: Literal["auto", "direct", "platform"] = "auto"
    """auto: yt-dlp where one of its extractors knows the address, else a plain download."""
    generic: bool = False
    """Let yt-dlp look for players in pages of hosts that it does not know."""
    accept_terms: list[str] = Field(default_factory=list)
    """Platforms whose terms on automated access the user has read and answers for."""
    allow_hosts: list[str] = Field(default_factory=list)
    """If any: only these hosts and what is under them."""
    deny_hosts: list[str] = Field(default_factory=list)
    allow_addresses: list[str] = Field(default_factory=list)
    """Private addresses or networks that may be visited all the same."""
    hosts: dict[str, HostRules] = Field(
        default_factory=lambda: {
            # A guest is turned away at about 300 videos an hour.
            "youtube.com": HostRules(per_s=1 / 15, jitter=0.5, concurrent=1, pause_s=600, patience_s=7200),
        }
    )
    any_host: HostRules = HostRules()
    max_bytes: int = Field(512 * MIB, gt=0)
    max_height: int = Field(720, ge=144)
    """Of the smaller side, so that an upright 720x1280 counts as 720."""
    wall_s: float = Field(600.0, gt=0)
    """Wall-clock limit of one visit."""
    concurrency: int = Field(8, ge=1, le=64)
    """Visits of one worker under way at once."""
    tries: int = Field(4, ge=1)
    """Visits to one clip before its transient failure is a row."""
    back_off_s: float = Field(2.0, ge=0)
    """Time before the second visit; twice as long before each further one. Other clips go on meanwhile."""
    outage_tries: int = Field(6, ge=1)
    """Visits to one clip that may fall into its host's outages before its failure is a row."""
    user_agent: str = ""
    """By default vidal with its version and ``contact``."""
    contact: str = ""
    """An address or e-mail for the owners of visited sites; becomes part of the user agent."""
    robots: bool = True
    """Keep to the robots.txt of hosts that are asked for files or pages directly."""
    noai: tuple[str, ...] = ("noai", "noimageai")
    """Directives of X-Robots-Tag at which we turn away."""
    subtitles: tuple[str, ...] = ()
    """Languages whose subtitles are kept, in yt-dlp's patterns, such as ``en.*``."""
    thumbnail: bool = False
    cookies: str = Field("", repr=False)
    """A Netscape cookie file, read and never written; kept out of every log and row."""
    proxy: str = Field("", repr=False)
    """``http://[user:password@]host:port``, and then nothing else is connected to; kept out of every log and row."""
    session: str = ""
    """Name of the guest whose budget is spent, where several proxies or cookies are several guests."""
    socket_timeout_s: float = Field(20.0, gt=0)

    @field_validator("cookies")
    @classmethod
    def _is_a_file(cls, cookies: str) -> str:
        """The whole path, as the fetching child works in a folder of its own."""
        path = Path(cookies).expanduser().absolute()
        if cookies and not path.is_file():
            raise ValueError("names no file of cookies")
        return str(path) if cookies else ""

    @model_validator(mode="after")
    def _rules_can_be_read(self) -> Self:
        # By itself: what pydantic says of a bad setting would quote the proxy's password.
        try:
            self.rules()
        except ValueError as error:
            raise RecipeError(f"fetch: {error}") from None
        return self

    def rules(self) -> Rules:
        """Who may be spoken to; raises `ValueError` for an address or a proxy that is none."""
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
            allow_addresses=tuple(self.allow_addresses),
            allow_hosts=tuple(self.allow_hosts),
            deny_hosts=tuple(self.deny_hosts),
            proxy=proxy,
        )

    def agent(self) -> str:
        """The user agent that is sent."""
        if self.user_agent:
            return self.user_agent
        from vidal import __version__

        return f"vidal/{__version__} (data set crawler{f'; {self.contact}' if self.contact else ''})"

    def needs_acceptance(self, host: str) -> str | None:
        """The platform whose terms have to be accepted before a host is visited."""
        for platform, domains in RESTRICTED.items():
            if platform not in self.accept_terms and any(host == d or host.endswith(f".{d}") for d in domains):
                return platform
        return None
