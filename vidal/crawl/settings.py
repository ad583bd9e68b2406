"""`WebSettings`: what a recipe may fetch from the web, how, how often, and for how long."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vidal.crawl.guard import Rules
from vidal.crawl.javascript import deno_path
from vidal.crawl.platforms import budget_of, domains_of, known_platforms, platform_of
from vidal.errors import RecipeError
from vidal.media.limits import MIB


class HostRules(BaseModel):
    """How often a platform or host is asked, and when it is paused."""

    model_config = ConfigDict(extra="forbid")

    per_s: float = Field(2.0, gt=0)
    """Requests per second, of whatever kind: robots.txt, pages, redirects, segments, retries."""
    media_per_s: float | None = Field(None, gt=0)
    """Requests per second for the media of platforms, files and segments, apart from ``per_s``; none: within it."""
    jitter: float = Field(0.1, ge=0, le=5)
    """Up to this share is added to the gap between two requests."""
    concurrent: int = Field(2, ge=1)
    """Visits under way at once."""
    failures_to_pause: int = Field(5, ge=1)
    """Consecutive troubles after which the host is paused."""
    pause_s: float = Field(30.0, gt=0)
    """The first pause; each consecutive one is twice as long."""
    max_pause_s: float = Field(3600.0, gt=0)
    """Longest pause, in seconds."""
    patience_s: float = Field(120.0, ge=0)
    """How long a clip waits for pauses between which the host answers nobody; otherwise it fails without a request,
    with the transient reason ``host_unavailable`` or ``rate_limited``, unless ``when_unavailable`` is ``open``. The
    pauses that its own visits were answered with count in all. A Crawl-delay longer than this is not waited for: its
    clips have the transient reason ``crawl_delay``."""


_TERMS_SAID = 5
"""Platforms of which a refusal says more than the name."""
_SECRET_ARGUMENTS = ("po_token", "visitor_data", "data_sync_id", "refresh_token", "access_token", "api_key", "password")


class WebSettings(BaseModel):
    """The settings of ``fetch`` that concern the web; the fetching child receives them with every request."""

    how: ClassVar[tuple[str, ...]] = (
        "allow_addresses", "hosts", "any_host", "concurrency", "tries", "back_off_s", "outage_s", "wall_s",
        "when_unavailable", "cookies", "proxy", "session", "user_agent", "contact", "accept_terms", "javascript",
        "extractor_args", "po_token", "impersonate",
    )  # fmt: skip
    """Settings excluded from the fingerprint: they determine how clips are fetched, not what."""
    hidden: ClassVar[tuple[str, ...]] = ("cookies", "proxy", "po_token")
    """Settings that are never stored in a dataset."""

    via: Literal["auto", "direct", "platform"] = "auto"
    """auto: yt-dlp if one of its extractors supports the address, otherwise a plain download."""
    generic: bool = False
    """Let yt-dlp search for players in the pages of unsupported hosts."""
    accept_terms: list[str] = Field(default_factory=list)
    """Platforms whose terms on automated access the user has read and takes responsibility for, such as ``youtube``;
    a plan that leads to others ends with a line that names them all."""
    allow_hosts: list[str] = Field(default_factory=list)
    """If any, only these hosts and their subdomains may be visited."""
    deny_hosts: list[str] = Field(default_factory=list)
    """These hosts and what is under them are not visited."""
    allow_addresses: list[str] = Field(default_factory=list)
    """Private addresses or networks that may be visited nevertheless."""
    hosts: dict[str, HostRules] = Field(
        default_factory=lambda: {
            # The platform blocks a guest at about 300 videos or 1,000 requests per hour; a video takes two or more.
            "youtube.com": HostRules(per_s=1 / 6, media_per_s=1.0, jitter=0.5, concurrent=1, pause_s=600),
        }
    )
    """Rules of single hosts and what is under them; those of any host of a platform are those of the platform."""
    any_host: HostRules = HostRules()
    """Rules of every other host."""
    max_bytes: int = Field(512 * MIB, gt=0)
    """Size of the fetched file, in bytes."""
    max_height: int = Field(720, ge=144)
    """Maximum of the smaller side in pixels: an upright 720x1280 counts as 720."""
    wall_s: float = Field(600.0, gt=0)
    """Wall-clock limit of one visit in seconds; a clip that has taken so long is left to `vidal retry`."""
    concurrency: int = Field(8, ge=1, le=64)
    """Concurrent visits per worker, and as many more for its next shard while one ends or is packed."""
    tries: int = Field(4, ge=1)
    """Attempts per clip before a transient failure is final."""
    back_off_s: float = Field(2.0, ge=0)
    """Longest delay before the second attempt, doubled before each further one up to 16 s; the delay is a random share
    of it, and other clips are fetched meanwhile."""
    outage_s: float = Field(15.0, ge=0)
    """A clip whose host is down, and answers no other visit either, is attempted for at least this long, apart from
    pauses."""
    when_unavailable: Literal["transient", "open"] = "transient"
    """What becomes of a clip whose host stays paused beyond its ``patience_s``. transient: a failed row, which
    `vidal retry` retries. open: its shard is not committed, and the same command, run again, builds it; the run ends
    with a line that says when. A Crawl-delay, which does not end, leaves no shard open."""
    user_agent: str = ""
    """User-Agent header; by default vidal with its version and ``contact``."""
    contact: str = ""
    """A URL or e-mail address for the owners of visited sites; part of the user agent."""
    robots: bool = True
    """Respect the robots.txt and tdmrep.json of hosts for plain downloads and pages. A ``Crawl-delay`` makes requests
    rarer than the rules of the host do, never more frequent."""
    noai: tuple[str, ...] = ("noai", "noimageai")
    """Directives of X-Robots-Tag and `<meta name="robots">` that opt a file out of crawling; unless empty, a
    `tdm-reservation`, `Content-Usage: train-ai=n` and `Content-Signal: ai-train=no` do, too."""
    subtitles: tuple[str, ...] = ()
    """Languages of the subtitles to keep, as patterns such as ``en.*``; automatic captions are none.
    `keep_source` stores them as ``subtitle.<language>.<format>``; ``fetch_notes`` names those that could not be had."""
    thumbnail: bool = False
    """Whether the platform's thumbnail is kept, which `keep_source` stores as ``thumbnail.<format>``."""
    cookies: str = Field("", repr=False)
    """Path of a Netscape cookie file, which is never written; redacted from all logs and rows."""
    proxy: str = Field("", repr=False)
    """``http://[user:password@]host:port``, the only host then connected to; redacted from all logs and rows."""
    javascript: Literal["off", "deno"] = "off"
    """Solve the challenges of YouTube's players; deno, of the extra ``javascript``, gets neither network nor files.
    Without it YouTube offers a guest the formats of one old client, and a signed-in user none."""
    extractor_args: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Arguments of yt-dlp's extractors, such as ``{youtube: {player_client: [tv, web_safari]}}``."""
    po_token: str = Field("", repr=False)
    """YouTube's proof-of-origin token, ``CLIENT.CONTEXT+TOKEN``, or several with commas; redacted from all rows."""
    impersonate: str = ""
    """Browser whose TLS handshake and headers yt-dlp's requests imitate, such as ``chrome`` or ``safari-26.0:macos``,
    for platforms that block others; curl-cffi is of the extra ``impersonate``. Its User-Agent then takes the place of
    ``user_agent``, except for robots.txt and plain downloads."""
    session: str = ""
    """Name of the guest whose budget is used, if several proxies or cookies act as several guests."""
    socket_timeout_s: float = Field(20.0, gt=0)
    """Time limit of one network operation, in seconds."""

    @field_validator("cookies")
    @classmethod
    def _is_a_file(cls, cookies: str) -> str:
        """Make the path absolute, as the fetching child has another working directory."""
        path = Path(cookies).expanduser().absolute()
        if cookies and not path.is_file():
            raise ValueError("is not a cookie file")
        return str(path) if cookies else ""

    @field_validator("accept_terms")
    @classmethod
    def _are_platforms(cls, names: list[str]) -> list[str]:
        known = known_platforms()
        for name in names:
            if name not in known:
                like = difflib.get_close_matches(name, known, 3)
                hint = (
                    f"did you mean {' or '.join(like)}" if like else "give it an address, and the plan says which it is"
                )
                raise ValueError(f"{name!r} is none of the {len(known)} platforms; {hint}")
        return names

    @field_validator("subtitles")
    @classmethod
    def _are_patterns(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        for language in languages:
            try:
                re.compile(language)
            except re.error as error:
                raise ValueError(f"{language!r} is no pattern: {error}") from None
        return languages

    @model_validator(mode="after")
    def _rules_can_be_read(self) -> Self:
        # Not left to pydantic, whose error would quote the proxy's password or a token.
        try:
            self.rules()
            if self.po_token and not all(re.fullmatch(r"\w+\.\w+\+\S+", one) for one in self.po_token.split(",")):
                raise ValueError("po_token must be CLIENT.CONTEXT+TOKEN, such as web.gvs+…")
            self._check_extractor_args()
        except ValueError as error:
            raise RecipeError(f"fetch: {error}") from None
        return self

    def _check_extractor_args(self) -> None:
        for extractor, arguments in self.extractor_args.items():
            # They would replace the program whose hash yt-dlp checks.
            if extractor.lower().startswith("youtube-ejs"):
                raise ValueError("extractor_args: youtube-ejs is for the developers of yt-dlp")
            if secret := next((name for name in arguments if name.lower() in _SECRET_ARGUMENTS), None):
                raise ValueError(
                    f"extractor_args are stored, and {secret} is a secret; set po_token or cookies instead"
                )

    @field_validator("javascript")
    @classmethod
    def _is_installed(cls, javascript: str) -> str:
        if javascript == "deno" and deno_path() is None:
            raise ValueError("needs deno and yt-dlp-ejs, which are not installed: pip install 'vidal[javascript]'")
        return javascript

    @field_validator("impersonate")
    @classmethod
    def _can_be_imitated(cls, browser: str) -> str:
        if browser:
            if lacking := [name for name in ("curl_cffi", "brotli") if find_spec(name) is None]:
                package = lacking[0].replace("_", "-")
                raise ValueError(f"needs {package}, which is not installed: pip install 'vidal[impersonate]'")
            try:
                from vidal.crawl.impersonation import target_of
            except ImportError as error:
                raise ValueError(f"curl-cffi {version('curl-cffi')} does not fit yt-dlp: {error}") from None
            target_of(browser)
        return browser

    def rules(self) -> Rules:
        """Return the rules on permitted connections; raises `ValueError` for an invalid address or proxy."""
        proxy = None
        if self.proxy:
            try:
                parts = urlsplit(self.proxy)
                proxy = (parts.hostname or "", parts.port or 80)
            except ValueError:
                parts = None
            if parts is None or parts.scheme != "http" or not parts.hostname:
                raise ValueError("proxy must be http://[user:password@]host:port")
        program = (deno_path() or "") if self.javascript == "deno" else ""
        return _rules(tuple(self.allow_addresses), tuple(self.allow_hosts), tuple(self.deny_hosts), proxy, program)

    def agent(self) -> str:
        """Return the User-Agent header."""
        if self.user_agent:
            return self.user_agent
        from vidal import __version__

        return f"vidal/{__version__} (dataset crawler{f'; {self.contact}' if self.contact else ''})"

    def rules_of(self, host: str) -> HostRules:
        """Return the rules of a host: its own, its domain's, its platform's, or those of any host."""
        for domain in domains_of(host) if self.hosts else ():
            if domain in self.hosts:
                return self.hosts[domain]
        for name, rules in self.hosts.items():
            if budget_of(name) == budget_of(host):
                return rules
        return self.any_host

    def tools(self) -> list[str]:
        """Return how platforms are asked, a line per choice; of secrets only that there is one."""
        javascript = (
            f"deno {version('deno')}, yt-dlp-ejs {version('yt-dlp-ejs')}" if self.javascript == "deno" else "off"
        )
        arguments = (
            f"extractor_args {extractor}:{name}={','.join(values)}"
            for extractor, given in sorted(self.extractor_args.items())
            for name, values in sorted(given.items())
        )
        secrets = (name for name in self.hidden if getattr(self, name))
        browser = []
        if self.impersonate:
            from vidal.crawl.impersonation import target_of

            browser = [f"impersonate {target_of(self.impersonate)}, curl-cffi {version('curl-cffi')}"]
        return [f"yt-dlp {version('yt-dlp')}", f"javascript {javascript}", *browser, *arguments, *secrets]

    def check_terms(self, hosts: Iterable[str]) -> None:
        """Raise a `RecipeError` that names every platform of the hosts whose terms nobody has accepted."""
        first: dict[str, str] = {}
        for host in hosts:
            if name := self.needs_acceptance(host):
                first.setdefault(name, host)
        if not first:
            return
        said = []
        for name, host in list(first.items())[:_TERMS_SAID]:
            platform = known_platforms()[name]
            what = (
                f"the terms of {name} restrict automated access"
                if platform.basis
                else (f"nobody here has read the terms of {name}, and most platforms' restrict automated access")
            )
            said.append(f"{host}: {what}" + f" ({platform.terms})" * bool(platform.terms))
        if len(first) > len(said):
            said.append(f"and {len(first) - len(said)} more platforms")
        names = ",".join((*self.accept_terms, *first))
        raise RecipeError(
            f"{'; '.join(said)}: read them, and if you take responsibility, name the platforms in fetch.accept_terms: "
            f'--set "fetch.accept_terms=[{names}]"'
        )

    def needs_acceptance(self, host: str) -> str | None:
        """Return the platform whose terms must be accepted before a host is visited; None if there is none."""
        platform = platform_of(host)
        return platform.name if platform and platform.restricts and platform.name not in self.accept_terms else None


@lru_cache(8)
def _rules(
    allow_addresses: tuple[str, ...], allow_hosts: tuple[str, ...], deny_hosts: tuple[str, ...],
    proxy: tuple[str, int] | None, program: str,
) -> Rules:  # fmt: skip
    # Networks are parsed, and rules are asked for several times a request.
    return Rules(
        allow_addresses=allow_addresses, allow_hosts=allow_hosts, deny_hosts=deny_hosts, proxy=proxy, program=program
    )
