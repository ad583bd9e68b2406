"""The reasons of a failed fetch, and whether another try may succeed.

A reason comes from the most reliable evidence: our own refusal, then the text of the site, then the HTTP status, then
the kind of the error. Only reasons of the table can be raised.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
from collections.abc import Iterator

from vidal.errors import ClipError

REASONS: dict[str, tuple[bool, str]] = {
    # permanent
    "gone": (False, "the site says that it does not exist, or no longer"),
    "private": (False, "the owner has restricted who may see it"),
    "login_required": (False, "requires signing in or a payment"),
    "age": (False, "age-restricted"),
    "geo": (False, "not available in this country, or withheld by law"),
    "live": (False, "a live stream, under way or announced"),
    "drm": (False, "protected by DRM"),
    "not_media": (False, "the file is a page, a text, an image or empty"),
    "too_large": (False, "more than max_bytes"),
    "ssrf": (False, "it leads to an address that is not public, or to a host that the settings exclude"),
    "scheme_not_allowed": (False, "a kind of address that fetch.schemes does not list"),
    "unsupported_address": (False, "no kind of address that vidal can fetch"),
    "redirect_loop": (False, "redirects that form a loop or are too many"),
    "changed_content": (False, "other bytes than those recorded by an earlier crawl"),
    "robots": (False, "disallowed by the host's robots.txt"),
    "noai": (False, "the host's X-Robots-Tag opts out"),
    "removed": (False, "on the removals list"),
    # transient
    "blocked": (True, "the site blocks automated visitors, or all visitors for now"),
    "rate_limited": (True, "the site asks for fewer requests"),
    "network": (True, "no connection, or a broken one"),
    "dns": (True, "the host's name could not be resolved"),
    "host_unavailable": (True, "the host has been unavailable for longer than its patience_s"),
    "truncated": (True, "the file ends early"),
    "server_error": (True, "the server reports an error of its own"),
    "timeout": (True, "exceeded the time limit"),
    "no_formats": (True, "yt-dlp is offered no format; a newer yt-dlp, or one with JavaScript, may be"),
    "extractor_failed": (True, "yt-dlp could not read the page; a newer version may"),
    "fetcher_died": (True, "the fetching process itself failed"),
}
"""Each reason: whether it is transient, and what it means."""

DISK = "storage"
"""No clip's reason but an environment error: the disk failed, and the parent stops the run."""


class FetchError(ClipError):
    """One address could not be fetched; the child turns it into an answer."""

    def __init__(
        self, reason: str, detail: str = "", *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        assert reason in REASONS or reason == DISK, reason
        super().__init__(reason, detail, transient=reason != DISK and is_transient(reason))
        self.status = status
        self.retry_after_s = retry_after_s


def is_transient(reason: str) -> bool:
    return REASONS[reason][0]


_STATUS = {
    400: "unsupported_address", 401: "login_required", 402: "login_required", 403: "blocked", 404: "gone",
    407: "network", 408: "timeout", 409: "server_error", 410: "gone", 412: "blocked", 420: "rate_limited",
    421: "network", 425: "server_error", 429: "rate_limited", 451: "geo",
}  # fmt: skip


def from_status(status: int, text: str = "") -> str:
    """The reason that an HTTP status stands for; for 401 and 403, the text of the page decides between several."""
    if status in (401, 403):
        reason = from_words(text)
        return reason if reason in ("private", "login_required", "age", "geo", "blocked", "noai") else _STATUS[status]
    if status >= 500:
        return "server_error"
    return _STATUS.get(status, "unsupported_address" if 400 <= status < 500 else "server_error")


# The first match decides. Texts are yt-dlp's own and those that platforms show.
_WORDS: tuple[tuple[str, str], ...] = (
    (DISK, r"\bno space left on device\b|disk quota exceeded|read-only file system"),
    ("blocked", r"confirm you.re not a (?:ro)?bot|unusual traffic|captcha|are you a robot|bot (?:check|detection)"),
    ("blocked", r"cloudflare anti-bot|content isn.t available, try again later|tls fingerprint"),
    ("blocked", r"\bip (?:address )?(?:is|may be|has been) (?:likely )?(?:being )?blocked"),
    ("blocked", r"ip address is unable to access"),
    ("blocked", r"request is (?:blocked|rejected) by server|http error 412"),
    ("blocked", r"(?:flagged|considered|might be)\b.{0,60}\bautomated"),
    ("blocked", r"automated (?:queries|requests|traffic|behaviou?r)"),
    ("rate_limited", r"rate.?limit|too many requests|http error 429|\bquota exceeded"),
    ("age", r"confirm your age|age.?(?:restricted|gate|verif\w+|check)|inappropriate for some users|18\+ only"),
    ("age", r"\b(?:under|older than) \d\d\b|adult verification"),
    ("private", r"private (?:video|account|playlist|track|post|subreddit)"),
    ("private", r"granted access to this|said: private content"),
    ("private", r"not authori[sz]ed to view|permission to (?:view|watch|access)|limits who can view"),
    ("private", r"\b(?:video|account|post|profile|page|file|vod)\b[^.]{0,20} is (?:likely )?(?:either )?private"),
    ("private", r"set to private"),
    ("private", r"protected by a pass(?:word|code)|password.?protected|wrong (?:video )?password"),
    ("login_required", r"members?.only|join this channel"),
    ("login_required", r"(?:supporter|subscriber)s?.only|paywall|pay.?per.?view|\brental"),
    ("login_required", r"requires? (?:payment|purchase|a (?:channel )?subscription)"),
    ("login_required", r"premium (?:video|content|members|only)"),
    ("login_required", r"(?:need to|with|ticket|coin) purchase"),
    ("login_required", r"payment information required|video is paid|have to pay for"),
    ("login_required", r"only (?:available )?(?:for|to) (?:subscribers|members|premium|registered|vip)"),
    ("drm", r"\bdrm\b|\bwidevine\b|\bfairplay\b"),
    ("geo", r"geo.?(?:restrict|block)|blocked (?:it )?in (?:your|this) (?:country|region)"),
    ("geo", r"in your country on copyright"),
    (
        "geo",
        r"(?:not|n.t) (?:made (?:this video |it )?)?available (?:in|from) (?:your|this) (?:country|location|region)",
    ),
    ("geo", r"available in [\w ]{2,30} only"),
    ("live", r"live event (?:will begin|has ended)|premieres? (?:in|will begin)|this live (?:stream|event|has ended)"),
    ("live", r"not currently live|live stream recording is not available|livestream|live streams? (?:is|are) not"),
    ("live", r"not (?:yet )?started|(?:stream|streamer|user|model) is (?:offline|not live)"),
    ("live", r"no active streams|will start at"),
    ("login_required", r"(?:sign|log|logg(?:ed|ing)).?in\b|login required|only available for registered users"),
    ("login_required", r"account cookies|authentication (?:is )?required|requires authentication|opted in is required"),
    ("login_required", r"do(?:es)? not have access to"),
    ("gone", r"has been (?:removed|terminated|taken down)|no longer (?:available|exists?)|not found|\bdeleted\b"),
    ("gone", r"does(?:n.t| not) exist|removed by|copyright(?:ed)? (?:claim|infringement|content|issues)"),
    ("gone", r"account .{0,60}terminated|\bsuspended\b|violated the .{1,20}\brules|http error 4(?:04|10)"),
    ("gone", r"(?:video|page|post|track|file) (?:is )?(?:unavailable|not available|isn.t available)"),
    ("redirect_loop", r"redirect loop|infinite loop|too many redirects|http error 30\d"),
    ("too_large", r"larger than max.?filesize|file is larger|file too large"),
    ("truncated", r"content too short|downloaded \d+ bytes, expected \d+|bytes read, \d+ more expected"),
    ("truncated", r"incomplete ?read|did not get any data blocks|fragment \d+ not found"),
    ("server_error", r"http error 5\d\d|internal server error|bad gateway|service (?:temporarily )?unavailable"),
    ("server_error", r"maintenance is in progress"),
    ("blocked", r"http error 403"),
    ("login_required", r"http error 401"),
    ("geo", r"http error 451"),
    ("unsupported_address", r"unsupported url|not a valid url|no suitable extractor"),
    ("no_formats", r"no (?:video |supported )?formats (?:are )?(?:found|available)|only images are available"),
    ("no_formats", r"requested format is not available|(?:javascript|\bjs) runtime"),
    ("not_media", r"\bno (?:supported )?(?:media|videos?)(?: content)?(?: (?:could be|was|were))? found"),
    ("not_media", r"\bno videos? in\b"),
    ("not_media", r"there(?:'s| is) no video"),
    ("not_media", r"does(?:n.t| not) (?:contain|have) (?:an? |any )?(?:videos?|audio)|is not a video"),
    ("timeout", r"timed out|timeout"),
    ("network", r"connection (?:reset|refused|aborted|closed)|remote end closed|broken pipe|unable to connect|proxy"),
    ("dns", r"name or service not known|failure in name|failed to resolve|getaddrinfo|no address associated"),
    ("network", r"network is unreachable|no route to host|\bssl\b|certificate|tunnel connection failed"),
    # What yt-dlp adds to a refusal that an account would lift.
    ("login_required", r"use --cookies|--cookies-from-browser"),
)

_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), reason) for reason, pattern in _WORDS)


def from_words(text: str) -> str | None:
    """The reason that a message of a platform or of yt-dlp gives; None for an unknown one."""
    plain = text.replace("’", "'")
    return next((reason for pattern, reason in _COMPILED if pattern.search(plain)), None)


_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def from_error(error: BaseException) -> str | None:
    """The reason that an operating-system, TLS or HTTP error stands for; None for any other."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, http.client.IncompleteRead):
        return "truncated"
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, (ssl.SSLError, ConnectionError, http.client.HTTPException)):
        return "network"
    if isinstance(error, OSError):
        if error.errno in _DISK_ERRNOS:
            return DISK
        return "too_large" if error.errno == errno.EFBIG else "network" if error.errno is not None else None
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, each once, including those that yt-dlp keeps in attributes of its own."""
    seen: set[int] = set()
    rest: list[object] = [error]
    while rest:
        one = rest.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        held = getattr(one, "exc_info", None)
        rest += [held[1] if isinstance(held, tuple) and len(held) == 3 else None, getattr(one, "cause", None)]
        rest += [one.__cause__, one.__context__, getattr(one, "reason", None), *getattr(one, "unexpected_errors", ())]
