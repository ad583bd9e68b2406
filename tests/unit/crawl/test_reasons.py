"""From statuses, words and errors to one reason each."""

from __future__ import annotations

import errno
import http.client
import io
import socket
import ssl

import pytest
import yt_dlp
from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError, UnsupportedError, UserNotLive

from vidal.crawl import guard
from vidal.crawl.ask import Answer
from vidal.crawl.platform import reason_of
from vidal.crawl.reasons import DISK, REASONS, FetchError, from_error, from_status, from_words, is_transient


def test_every_reason_of_the_contract_is_known_as_permanent_or_transient() -> None:
    permanent = "gone private age geo live not_media too_large ssrf unsupported_address changed_content robots noai removed drm login_required"
    transient = "blocked rate_limited network truncated server_error timeout fetcher_died"
    assert [is_transient(reason) for reason in permanent.split()] == [False] * len(permanent.split())
    assert [is_transient(reason) for reason in transient.split()] == [True] * len(transient.split())


@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (404, "", "gone"), (410, "", "gone"), (401, "", "login_required"), (402, "", "login_required"),
        (403, "", "blocked"), (403, "This video is private.", "private"), (403, "Please sign in to continue", "login_required"),
        (403, "not available in your country", "geo"), (403, "Solve this captcha", "blocked"), (429, "", "rate_limited"),
        (420, "", "rate_limited"), (451, "", "geo"), (408, "", "timeout"), (500, "", "server_error"), (503, "", "server_error"),
        (599, "", "server_error"), (418, "", "unsupported_address"), (407, "", "network"), (412, "", "blocked"),
    ],
)  # fmt: skip
def test_a_status_has_a_reason(status: int, words: str, reason: str) -> None:
    assert from_status(status, words) == reason


WORDS = [
    ("[youtube] x: Private video. Sign in if you've been granted access to this video", "private"),
    ("[youtube] x: Video unavailable. This video is private", "private"),
    ("[youtube] x: Video unavailable. This video has been removed by the uploader", "gone"),
    ("[youtube] x: Video unavailable", "gone"),
    ("[youtube] x: This video is no longer available because the YouTube account associated with this video has been terminated.", "gone"),
    ("[youtube] x: Video unavailable. This video contains content from SME, who has blocked it in your country on copyright grounds", "geo"),
    ("[youtube] x: The uploader has not made this video available in your country", "geo"),
    ("[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
    ("[youtube] x: Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication", "blocked"),
    ("[youtube] x: This content isn't available, try again later. Your account has been rate-limited by YouTube", "blocked"),
    ("[youtube] x: Join this channel to get access to members-only content like this video", "login_required"),
    ("[youtube] x: This video requires payment to watch", "login_required"),
    ("[youtube] x: This live event will begin in 3 hours.", "live"),
    ("[youtube] x: Premieres in 2 days", "live"),
    ("[youtube] x: This video is DRM protected", "drm"),
    ("[vimeo] 1: This video is only available for registered users. Use --cookies", "login_required"),
    ("[Instagram] x: Requested content is not available, rate-limit reached or login required", "rate_limited"),
    ("[TikTok] 1: This post may not be comfortable for some audiences. Log in for access", "login_required"),
    ("[twitch:stream] x: The channel is not currently live", "live"),
    ("Unsupported URL: http://example.com/", "unsupported_address"),
    ("unable to download video data: HTTP Error 403: Forbidden", "blocked"),
    ("HTTP Error 429: Too Many Requests", "rate_limited"),
    ("unable to download video data: HTTP Error 503: Service Unavailable", "server_error"),
    ("[download] Got error: Downloaded 1 bytes, expected 2 bytes", "truncated"),
    ("The read operation timed out", "timeout"),
    ("Unable to download webpage: [Errno -2] Name or service not known", "dns"),
    ("Unable to connect to proxy", "network"),
    ("unable to write data: [Errno 28] No space left on device", DISK),
    ("All is well", None),
]  # fmt: skip


SAID_BY_SITES = [
    ("Failed to perform, curl: (28) Operation too slow. Less than 1 bytes/sec transferred the last 2 seconds", "timeout"),
    ("Failed to perform, curl: (6) Could not resolve host: nonexistent.example", "dns"),
    ("Failed to perform, curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Could not connect to server", "network"),
    ("Failed to perform, curl: (18) end of response with 9 bytes missing", "truncated"),
    ("Failed to perform, curl: (52) Empty reply from server", "network"),
    ("[twitter] 1: Suspended", "gone"),
    ("[vk] 1: Your account was flagged for automated behavior", "blocked"),
    ("[twitter] 1: This request looks like it might be automated", "blocked"),
    ("Unable to download JSON metadata: HTTP Error 412: Precondition Failed", "blocked"),
    ("[x] 1: Follow the owner to see it. Use --cookies, --cookies-from-browser, --username and --password", "login_required"),
    ("[x] 1: Sorry, this video is available in China only", "geo"),
    ('[twitch:stream] 1: Channel "somebody" not found', "gone"),
    ("[spankbang] 1: Video a1b2 is not available", "gone"),
    ("[youtube] 1: Video unavailable. This video is not available", "no_formats"),
    ("[youtube] 1: This video is not available in your country", "geo"),
    ("[x] 1: This video is not available", "gone"),
    ("[twitter] 1: Protected", "private"),
    ("[x] 1: Protected", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [*WORDS, *SAID_BY_SITES])
def test_words_have_a_reason(text: str, reason: str | None) -> None:
    assert from_words(text) == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("timed out"), "timeout"), (ConnectionResetError(104, "x"), "network"),
        (ConnectionRefusedError(111, "x"), "network"), (socket.gaierror(-2, "x"), "dns"), (ssl.SSLError("x"), "network"),
        (http.client.IncompleteRead(b""), "truncated"), (http.client.RemoteDisconnected("x"), "network"),
        (OSError(errno.ENOSPC, "x"), DISK), (OSError(errno.EFBIG, "x"), "too_large"), (OSError(errno.ENETUNREACH, "x"), "network"),
        (ValueError("x"), None),
    ],
)  # fmt: skip
def test_errors_have_a_reason(error: BaseException, reason: str | None) -> None:
    assert from_error(error) == reason


def http_error(status: int, body: bytes = b"", **headers: str) -> HTTPError:
    return HTTPError(
        Response(io.BytesIO(body), "http://x/", {k.replace("_", "-"): v for k, v in headers.items()}, status=status)
    )


def caused(message: str, cause: BaseException) -> DownloadError:
    """As yt-dlp wraps what went wrong: a `DownloadError` with the extractor's error, which has the cause."""
    try:
        raise ExtractorError(message, cause=cause, expected=True)
    except ExtractorError as error:
        import sys

        return DownloadError(f"ERROR: {error}", sys.exc_info())


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (caused("Unable to download webpage: HTTP Error 404", http_error(404)), "gone", 404),
        (caused("Unable to download JSON", http_error(429, Retry_After="7")), "rate_limited", 429),
        (caused("Unable to download webpage: HTTP Error 403: Forbidden", http_error(403)), "blocked", 403),
        (caused("Unable to download webpage", http_error(451)), "geo", 451),
        (caused("Unable to download webpage", http_error(502)), "server_error", 502),
        (caused("Unable to download webpage", TransportError(cause=ConnectionResetError(104, "reset"))), "network", None),
        (caused("x", IncompleteRead(3, 9)), "truncated", None),
        (caused("x", guard.RefusedError("10.0.0.1 is not a public address")), "ssrf", None),
        (GeoRestrictedError("This is for some only"), "geo", None),
        (UnsupportedError("http://x/"), "unsupported_address", None),
        (UserNotLive(), "live", None),
        (FetchError("too_large", "x"), "too_large", None),
        (ExtractorError("Unable to extract player"), "extractor_failed", None),
        (KeyError("formats"), "fetcher_died", None),
    ],
)  # fmt: skip
def test_what_yt_dlp_raises_has_a_reason(error: BaseException, reason: str, status: int | None) -> None:
    found = reason_of(error, [])
    assert (found.reason, found.status) == (reason, status)
    assert found.retry_after_s == (7.0 if status == 429 else None)
    assert "report this issue" not in found.detail


def test_a_refusal_is_told_apart_by_the_pages_words() -> None:
    error = caused("Unable to download webpage: HTTP Error 403: Forbidden", http_error(403))
    assert reason_of(error, [], "<p>This video is private</p>").reason == "private"
    assert reason_of(error, [], "<p>Prove that you are human: captcha</p>").reason == "blocked"


def test_yt_dlp_still_words_its_refusals_as_the_table_has_them() -> None:
    extractor = yt_dlp.YoutubeDL({"quiet": True}, auto_init=False).get_info_extractor("Youtube")
    for refuse, reason in (
        (lambda: extractor.raise_login_required(), "login_required"),
        (lambda: extractor.raise_geo_restricted(), "geo"),
        (lambda: extractor.report_drm("x"), "drm"),
    ):
        with pytest.raises(ExtractorError) as raised:
            refuse()
        assert reason_of(raised.value, []).reason == reason


def test_an_answer_carries_its_reason_over_the_pipe() -> None:
    answer = Answer.failed("rate_limited", "HTTP 429", status=429, retry_after_s=2.5)
    assert Answer.from_line(answer.to_line()) == answer
    assert answer.transient and not Answer.failed("gone").transient
    assert all(meaning for _, meaning in REASONS.values())
