"""Why a fetch failed, in one word, and whether another try may succeed.

The word comes from what is surest: our own refusal, then the site's words, then the HTTP status, then the kind of
the error. A word that the table lacks cannot be raised.
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
    "gone": (False, "the site says that it is not there, or no longer"),
    "private": (False, "the owner lets nobody, or only a few, see it"),
    "login_required": (False, "only for those who are signed in, or who pay"),
    "age": (False, "only for those whose age the site knows"),
    "geo": (False, "not for this country, or withheld by law"),
    "live": (False, "a stream under way or yet to come"),
    "drm": (False, "encrypted against copying"),
    "not_media": (False, "what is there is a page, a text, a picture or nothing"),
    "too_large": (False, "more than max_bytes"),
    "ssrf": (False, "it leads to an address that is not public, or to a host that the settings exclude"),
    "scheme_not_allowed": (False, "a file, a store or another kind of address that fetch.schemes does not name"),
    "unsupported_address": (False, "nothing here reads such an address"),
    "redirect_loop": (False, "it leads in a circle, or through too many addresses"),
    "changed_content": (False, "other bytes than those first recorded"),
    "robots": (False, "the host's robots.txt asks not to"),
    "noai": (False, "the host asks not to be used for this"),
    "removed": (False, "on the list of removals"),
    # transient
    "blocked": (True, "the site takes us for a robot, or refuses guests for now"),
    "rate_limited": (True, "the site asks to come more slowly"),
    "network": (True, "no connection, or a broken one"),
    "dns": (True, "the host's name leads nowhere, or nobody says where"),
    "host_unavailable": (True, "the host has let nobody in for longer than its patience_s"),
    "truncated": (True, "the bytes ended early"),
    "server_error": (True, "the site is in trouble"),
    "timeout": (True, "no end within the time allowed"),
    "no_formats": (
        True,
        "the site offers yt-dlp no format; it may to a newer one, or to one with JavaScript",
    ),
    "extractor_failed": (True, "yt-dlp no longer understands the site; a newer one may"),
    "fetcher_died": (True, "the fetching process itself failed"),
}
"""Each reason: whether it is transient, and what it means."""

DISK = "storage"
"""Not a clip's reason: this machine's disk failed, and the parent stops the run."""


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


def from_status(status: int, words: str = "") -> str:
    """The reason of an HTTP status; a 401 or 403 is told apart by the page's words."""
    if status in (401, 403):
        said = from_words(words)
        return said if said in ("private", "login_required", "age", "geo", "blocked", "noai") else _STATUS[status]
    if status >= 500:
        return "server_error"
    return _STATUS.get(status, "unsupported_address" if 400 <= status < 500 else "server_error")


# In order: the first line that matches decides. Words are yt-dlp's own and those that platforms show.
_WORDS: tuple[tuple[str, str], ...] = (
    (DISK, r"\bno space left on device\b|disk quota exceeded|read-only file system"),
    ("blocked", r"confirm you.re not a (?:ro)?bot|unusual traffic|captcha|are you a robot|bot (?:check|detection)"),
    ("blocked", r"cloudflare anti-bot|content isn.t available, try again later|tls fingerprint"),
    (
        "blocked",
        r"\bip (?:address )?(?:is|may be|has been) (?:likely )?(?:being )?blocked|ip address is unable to access",
    ),
    ("blocked", r"request is (?:blocked|rejected) by server|http error 412"),
    (
        "blocked",
        r"(?:flagged|considered|might be)\b.{0,60}\bautomated|automated (?:queries|requests|traffic|behaviou?r)",
    ),
    ("rate_limited", r"rate.?limit|too many requests|http error 429|\bquota exceeded"),
    ("age", r"confirm your age|age.?(?:restricted|gate|verif\w+|check)|inappropriate for some users|18\+ only"),
    ("age", r"\b(?:under|older than) \d\d\b|adult verification"),
    (
        "private",
        r"private (?:video|account|playlist|track|post|subreddit)|granted access to this|said: private content",
    ),
    ("private", r"not authori[sz]ed to view|permission to (?:view|watch|access)|limits who can view"),
    (
        "private",
        r"\b(?:video|account|post|profile|page|file|vod)\b[^.]{0,20} is (?:likely )?(?:either )?private|set to private",
    ),
    ("private", r"protected by a pass(?:word|code)|password.?protected|wrong (?:video )?password"),
    (
        "login_required",
        r"members?.only|join this channel|(?:supporter|subscriber)s?.only|paywall|pay.?per.?view|\brental",
    ),
    (
        "login_required",
        r"requires? (?:payment|purchase|a (?:channel )?subscription)|premium (?:video|content|members|only)",
    ),
    (
        "login_required",
        r"(?:need to|with|ticket|coin) purchase|payment information required|video is paid|have to pay for",
    ),
    ("login_required", r"only (?:available )?(?:for|to) (?:subscribers|members|premium|registered|vip)"),
    ("drm", r"\bdrm\b|\bwidevine\b|\bfairplay\b"),
    (
        "geo",
        r"geo.?(?:restrict|block)|blocked (?:it )?in (?:your|this) (?:country|region)|in your country on copyright",
    ),
    (
        "geo",
        r"(?:not|n.t) (?:made (?:this video |it )?)?available (?:in|from) (?:your|this) (?:country|location|region)",
    ),
    ("geo", r"available in [\w ]{2,30} only"),
    ("live", r"live event (?:will begin|has ended)|premieres? (?:in|will begin)|this live (?:stream|event|has ended)"),
    ("live", r"not currently live|live stream recording is not available|livestream|live streams? (?:is|are) not"),
    (
        "live",
        r"not (?:yet )?started|(?:stream|streamer|user|model) is (?:offline|not live)|no active streams|will start at",
    ),
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
    (
        "not_media",
        r"\bno (?:supported )?(?:media|videos?)(?: content)?(?: (?:could be|was|were))? found|\bno videos? in\b",
    ),
    (
        "not_media",
        r"there(?:'s| is) no video|does(?:n.t| not) (?:contain|have) (?:an? |any )?(?:videos?|audio)|is not a video",
    ),
    ("timeout", r"timed out|timeout"),
    ("network", r"connection (?:reset|refused|aborted|closed)|remote end closed|broken pipe|unable to connect|proxy"),
    ("dns", r"name or service not known|failure in name|failed to resolve|getaddrinfo|no address associated"),
    ("network", r"network is unreachable|no route to host|\bssl\b|certificate|tunnel connection failed"),
    # What yt-dlp adds to a refusal that an account would lift.
    ("login_required", r"use --cookies|--cookies-from-browser"),
)

_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), reason) for reason, pattern in _WORDS)


def from_words(text: str) -> str | None:
    """The reason that a message gives, in a platform's words or in yt-dlp's; None where it says nothing known."""
    plain = text.replace("’", "'")
    return next((reason for pattern, reason in _COMPILED if pattern.search(plain)), None)


_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def from_error(error: BaseException) -> str | None:
    """The reason of an operating-system, TLS or HTTP error; None for any other."""
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
    """An error and all that led to it, each once; yt-dlp keeps some in attributes of its own."""
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
