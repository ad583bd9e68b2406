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
    "terms_not_accepted": (False, "it leads to a platform whose terms fetch.accept_terms does not name"),
    # transient
    "blocked": (True, "the site blocks automated visitors, or all visitors for now"),
    "rate_limited": (True, "the site asks for fewer requests"),
    "crawl_delay": (True, "the host's Crawl-delay is longer than its patience_s, which has to be longer to fetch it"),
    "network": (True, "no connection, or a broken one"),
    "dns": (True, "the host's name could not be resolved"),
    "host_unavailable": (True, "the host has been unavailable for longer than its patience_s"),
    "truncated": (True, "the file ends early"),
    "server_error": (True, "the server reports an error of its own"),
    "timeout": (True, "exceeded the time limit"),
    "no_formats": (True, "no format is offered: not yet, or not to a yt-dlp of this age, without JavaScript"),
    "extractor_failed": (True, "yt-dlp could not read the page; a newer version, or one with more installed, may"),
    "fetcher_died": (True, "the fetching process itself failed"),
}
"""Each reason: whether it is transient, and what it means."""

OUTAGES = frozenset({"network", "server_error", "timeout"})
"""Reasons of a host that may be well again soon."""

HOST_WIDE = OUTAGES | {"blocked", "dns"}
"""Reasons that concern a whole host, if several of its addresses in succession have them."""

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
    """Return whether a failure with this reason may not recur, so that `vidal retry` retries it."""
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


_THINGS = (
    r"video|page|clip|track|content|file|user|account|channel|playlist|episode|stream|song|show|lecture|post|tweet"
    r"|space|program\w*"
)
"""What a site speaks of when it says that it was not found."""


# The first match decides. Texts are yt-dlp's own and those that platforms show. What may be the crawler's own lack
# comes first, and is never permanent: no dependency that is "not found" makes a video "gone".
_WORDS: tuple[tuple[str, str], ...] = (
    (DISK, r"\bno space left on device\b|disk quota exceeded|read-only file system"),
    ("blocked", r"confirm you.re not a (?:ro)?bot|unusual traffic|captcha|are you a robot|bot (?:check|detection)"),
    ("blocked", r"cloudflare anti-bot|content isn.t available, try again later|tls fingerprint|client challenge"),
    ("blocked", r"\bip (?:address )?(?:is|may be|has been) (?:likely )?(?:being )?blocked"),
    ("blocked", r"ip address is unable to access|suspected as a bot"),
    ("blocked", r"request is (?:blocked|rejected) by server|http error 412"),
    ("blocked", r"(?:flagged|considered|might be)\b.{0,60}\bautomated"),
    ("blocked", r"automated (?:queries|requests|traffic|behaviou?r)"),
    ("blocked", r"cookies \(not necessarily logged in\)|empty media response|unusual location"),
    ("no_formats", r"requested format is not available|only images are available|formats? not found|offered no format"),
    ("no_formats", r"no (?:video |supported |suitable )?formats?\b"),
    ("no_formats", r"(?:suitable|any video) formats|formats are (?:currently )?not"),
    ("no_formats", r"\b(?:javascript|js) (?:runtime|engine|interpreter|challenge|dependency|player)|\bpo.?token"),
    ("no_formats", r"\b(?:is|still|be)(?: uploading or)? processing\b"),
    ("no_formats", r"not (?:be )?(?:downloadable|available) yet|not yet available"),
    ("no_formats", r"(?:will be|only) available after"),
    ("extractor_failed", r"impersonat\w+ (?:target|dependenc)|--impersonate|:impersonate\b|\bff(?:mpeg|probe)\b"),
    ("extractor_failed", r"pycryptodome|phantomjs|curl_cffi|websockets"),
    ("extractor_failed", r"not found\. please install|this feature requires"),
    ("extractor_failed", r"latest version|\byt-dlp (?:does ?n.t|does not|cannot) support|is not implemented"),
    ("extractor_failed", r"\b(?:id|url|data|parameters|information|embeds?|tiles)\b(?: was| were)? not found"),
    ("extractor_failed", r"\btokens? (?:is|has|have)\b|expired token"),
    ("extractor_failed", r"not found (?:in|on|among|even though)\b|found (?:in|on) (?:the )?(?:web)?page"),
    ("rate_limited", r"rate.?limit|too many requests|http error 429|\bquota exceeded|play limit"),
    ("age", r"confirm your age|age.?(?:restricted|gate|verif\w+|check)|inappropriate for some users|18\+ only"),
    ("age", r"\b(?:under|older than) \d\d\b|adult verification"),
    ("private", r"private (?:video|account|playlist|track|post|subreddit|show)"),
    ("private", r"granted access to this|said: private content"),
    ("private", r"not authori[sz]ed to view|permission to (?:view|watch|access)|limits who can view"),
    ("private", r"\b(?:video|account|post|profile|page|file|vod)\b[^.]{0,20} is (?:likely )?(?:either )?private"),
    ("private", r"set to private"),
    ("private", r"protected by a pass(?:word|code)|password.?protected"),
    ("private", r"(?:wrong|invalid|incorrect) (?:video )?password"),
    ("login_required", r"members?.only|join this channel"),
    ("login_required", r"(?:supporter|subscriber)s?.only|paywall|pay.?per.?view|\brental"),
    ("login_required", r"(?:requires?|needs?) (?:payment|purchase|an? (?:channel )?subscription)|subscription needed"),
    ("login_required", r"premium (?:video|content|members|only)"),
    ("login_required", r"(?:need to|with|ticket|coin) purchase"),
    ("login_required", r"payment information required|video is paid|have to pay for"),
    ("login_required", r"only (?:available )?(?:for|to) (?:subscribers|members|premium|registered|vip|users of part)"),
    ("login_required", r"not subscribed to|your account does not have"),
    ("drm", r"\bdrm\b|\bwidevine\b|\bfairplay\b"),
    ("geo", r"geo.?(?:restrict|block|fenc)|blocked (?:it )?in (?:your|this) (?:country|region)"),
    ("geo", r"in your country on copyright|by decision of the russian government"),
    ("geo", r"(?:not |n.t |\bun)(?:made (?:this video |it )?)?available (?:in|from) (?:your|this) (?:country|region)"),
    ("geo", r"not available (?:in|from) (?:your|this) location"),
    ("geo", r"not viewable in (?:your|this) (?:country|region)"),
    ("geo", r"available in [\w ]{2,30} only|your country/region"),
    ("live", r"live event (?:will begin|has ended|is scheduled)"),
    ("live", r"premieres? (?:in|will begin)|this live (?:stream|event|has ended)"),
    ("live", r"not currently live|live stream recording is not available|livestream|live streams? (?:is|are) not"),
    ("live", r"not (?:yet )?started|(?:stream|streamer|user|model|video) is (?:offline|not live)"),
    ("live", r"no active streams|(?:will|scheduled to) start at|event has ended, and"),
    ("login_required", r"(?:sign|log|logg(?:ed|ing)).?in(?:to)?\b|login required|only available for registered users"),
    ("login_required", r"(?:account|session) cookies|authentication (?:is )?required|requires authentication"),
    ("login_required", r"opted in is required|do(?:es)? not have access to"),
    ("gone", r"has been (?:removed|terminated|taken down)|(?:no|any) longer (?:available|exists?)|\bdeleted\b"),
    ("gone", r"does(?:n.t| not) exist|removed by|copyright(?:ed)? (?:claim|infringement|content|issues)"),
    ("gone", rf"\b(?:{_THINGS})\b(?: [\"'\w:-]{{1,60}})? (?:was |could )?not (?:be )?found"),
    ("gone", r"account .{0,60}terminated|\bsuspended\b|violated the .{1,20}\brules|http error 4(?:04|10)"),
    ("gone", r"(?:video|page|post|track|file|tweet)(?: #?\w+)? (?:is )?(?:unavailable|not available|isn.t available)"),
    ("gone", r"(?:has|link is|rights) expired|there is no archive|replay is disabled"),
    ("redirect_loop", r"redirect loop|infinite loop|too many redirects|http error 30\d"),
    ("too_large", r"larger than max.?filesize|file is larger|file too large"),
    ("truncated", r"content too short|downloaded \d+ bytes, expected \d+|\d+ bytes read\b"),
    ("truncated", r"incomplete ?read|did not get any data blocks|fragment \d+ not found"),
    ("server_error", r"http error 5\d\d|internal server error|bad gateway|service (?:temporarily )?unavailable"),
    ("server_error", r"maintenance is in progress|error on server-side"),
    ("blocked", r"http error 403"),
    ("login_required", r"http error 401"),
    ("geo", r"http error 451"),
    ("unsupported_address", r"unsupported url|not a valid url|no suitable extractor|looks truncated"),
    ("unsupported_address", r"website is no(?:t| longer) supported"),
    ("not_media", r"no (?:supported )?(?:media|video) (?:could be )?found in this (?:tweet|post)"),
    ("not_media", r"\bno videos? in\b|there(?:'s| is) no video"),
    ("not_media", r"does(?:n.t| not) (?:contain|have) (?:an? |any )?(?:videos?|audio)|\bnot a video"),
    # libcurl numbers its errors.
    ("timeout", r"timed out|timeout|curl: \(28\)"),
    ("dns", r"curl: \([56]\)"),
    ("truncated", r"curl: \(18\)"),
    ("network", r"curl: \(\d+\)"),
    ("network", r"connection (?:reset|refused|aborted|closed)|remote end closed|broken pipe|unable to connect"),
    ("dns", r"name or service not known|failure in name|failed to resolve ['\"h]|getaddrinfo|no address associated"),
    ("network", r"network is unreachable|no route to host|\bssl\b|certificate|tunnel connection failed|network error"),
    # What yt-dlp adds to a refusal that an account would lift.
    ("login_required", r"use --cookies|--cookies-from-browser"),
)  # fmt: skip

# What a sentence means on one platform only, by the first word of yt-dlp's ``[extractor]``; before the others.
_WORDS_OF: dict[str, tuple[tuple[str, str], ...]] = {
    # Said of videos that are withheld from a guest's client, too.
    "youtube": (("no_formats", r"this (?:video|content) (?:is not|isn.t) available(?! in| anymore| on this|, try)"),),
    "reddit": (("not_media", r"no media found"),),
    "twitter": (("private", r"\bprotected\b"),),
    "mixcloud": (("private", r"track is restricted"),),
    "pornhub": (("private", r"is locked"),),
}


def _compiled(rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in rules)


_COMPILED = _compiled(_WORDS)
_COMPILED_OF = {extractor: _compiled(rules) for extractor, rules in _WORDS_OF.items()}


def from_words(text: str) -> str | None:
    """The reason that a message of a platform or of yt-dlp gives; None for an unknown one."""
    plain = text.replace("’", "'")
    extractor = re.match(r"(?:ERROR: )?\[(\w+)", plain)
    own = _COMPILED_OF.get(extractor[1].lower(), ()) if extractor else ()
    return next((reason for reason, pattern in (*own, *_COMPILED) if pattern.search(plain)), None)


_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def from_error(error: BaseException) -> str | None:
    """The reason that an operating-system, TLS or HTTP error stands for; None for any other."""
    # The narrower classes first, as most of these are OSErrors, too.
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
        # EFBIG: the bound that the parent has set to the child's files.
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
