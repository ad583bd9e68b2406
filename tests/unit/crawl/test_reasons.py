"""From statuses, words and errors to one reason each."""

from __future__ import annotations

import errno
import http.client
import io
import socket
import ssl
from pathlib import Path

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


SAID_BY_YT_DLP = [
    # module of yt-dlp, its message as it stands there, what the rest of the message is, the reason
    ("YoutubeDL.py", "No video formats found!", "", "no_formats"),
    ("YoutubeDL.py", "Requested format is not available. Use --list-formats for a list of available formats", "", "no_formats"),
    ("YoutubeDL.py", "only images are available for download. Use --list-formats to see them", "", "no_formats"),
    ("extractor/youtube/_video.py", "No supported JavaScript runtime could be found. Only deno is enabled by default", "", "no_formats"),
    ("extractor/youtube/_video.py", "Ensure you have a supported JavaScript runtime and ", "", "no_formats"),
    ("extractor/youtube/_video.py", "All player responses are invalid. Your IP is likely being blocked by Youtube", "", "blocked"),
    ("extractor/youtube/_video.py", ". YouTube is requiring a captcha challenge before playback", "", "blocked"),
    ("extractor/youtube/_video.py", "has been rate-limited by YouTube for up to an hour", "", "rate_limited"),
    ("extractor/tiktok.py", "Your IP address is blocked from accessing this post", "", "blocked"),
    ("extractor/tiktok.py", "You do not have permission to view this post. Log into an account that has access", "", "private"),
    ("extractor/tiktok.py", "This post may not be comfortable for some audiences. Log in for access", "", "login_required"),
    ("extractor/bilibili.py", "Request is blocked by server (412), please wait and try later.", "", "blocked"),
    ("extractor/bilibili.py", "Request is rejected by server (352)", "", "blocked"),
    ("extractor/bilibili.py", "You have exceeded the rate limit. Try again later", "", "rate_limited"),
    ("extractor/bilibili.py", "This is a supporter-only video: ", "", "login_required"),
    ("extractor/bilibili.py", "This video is for premium members only", "", "login_required"),
    ("extractor/yandexmusic.py", "YandexMusic has considered yt-dlp requests automated and ", "asks you to solve a CAPTCHA.", "blocked"),
    ("extractor/vimeo.py", "This request has been blocked due to its TLS fingerprint. ", "", "blocked"),
    ("extractor/vimeo.py", "If you are using a data center IP or VPN/proxy, your IP may be blocked", "", "blocked"),
    ("extractor/vimeo.py", "This video is protected by a password, use the --video-password option", "", "private"),
    ("extractor/vimeo.py", "Wrong password", "", "private"),
    ("extractor/reddit.py", "Your IP address is unable to access the Reddit API", "", "blocked"),
    ("extractor/reddit.py", "Private subreddit; an account that has been approved is required", "", "private"),
    ("extractor/reddit.py", "Quarantined subreddit; an account that has opted in is required", "", "login_required"),
    ("extractor/reddit.py", "No media found", "", "not_media"),
    ("extractor/twitter.py", "NSFW tweet requires authentication", "", "login_required"),
    ("extractor/twitter.py", "You are not authorized to view this protected tweet", "", "private"),
    ("extractor/twitter.py", "No video could be found in this tweet", "", "not_media"),
    ("extractor/twitter.py", "Twitter API says: ", "This Post is from a suspended account", "gone"),
    ("extractor/twitter.py", "Twitter API says: ", "This Post is from an account that no longer exists", "gone"),
    ("extractor/twitter.py", "Twitter API says: ", "This Post was deleted by the Post author", "gone"),
    ("extractor/twitter.py", "Twitter API says: ", "You’re unable to view this Post because this account owner limits who can view their Posts", "private"),
    ("extractor/twitter.py", "Twitter API says: ", "Age-restricted adult content. This content might not be appropriate for people under 18 years old", "age"),
    ("extractor/twitter.py", "This live broadcast has not yet started", "", "live"),
    ("extractor/dailymotion.py", " said: ", "Content has been deleted", "gone"),
    ("extractor/dailymotion.py", " said: ", "Copyrighted content, access forbidden", "gone"),
    ("extractor/dailymotion.py", " said: ", "Private content", "private"),
    ("extractor/niconico.py", "Video unavailable, may not exist or was deleted", "", "gone"),
    ("extractor/niconico.py", "Video unavailable, set to private", "", "private"),
    ("extractor/niconico.py", "Removed by rights-holder request", "", "gone"),
    ("extractor/niconico.py", "PPV video, payment information required", "", "login_required"),
    ("extractor/niconico.py", "Sensitive content, login required", "", "login_required"),
    ("extractor/niconico.py", "Maintenance is in progress", "", "server_error"),
    ("extractor/kick.py", "This video requires a channel subscription", "", "login_required"),
    ("extractor/patreon.py", "You do not have access to this post", "", "login_required"),
    ("extractor/patreon.py", "No supported media found in this post", "", "not_media"),
    ("extractor/likee.py", "Video was deleted", "", "gone"),
    ("extractor/kuwo.py", "This song is blocked in this region", "", "geo"),
    ("extractor/common.py", "This video is not available from your location due to geo restriction", "", "geo"),
    ("extractor/tumblr.py", "No video could be found in this post", "", "not_media"),
    ("extractor/instagram.py", "There is no video in this post", "", "not_media"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "fragment", "rest", "reason"), SAID_BY_YT_DLP)
def test_what_yt_dlp_says_is_still_in_its_source_and_has_a_reason(
    module: str, fragment: str, rest: str, reason: str
) -> None:
    source = (Path(yt_dlp.__file__).parent / module).read_text(encoding="utf-8")
    assert fragment in source
    assert from_words(f"[x] 1: {fragment}{rest}") == reason


SAID_BY_SITES = [
    ("[twitter] 1: Suspended", "gone"),
    ("[vk] 1: Your account was flagged for automated behavior", "blocked"),
    ("[twitter] 1: This request looks like it might be automated", "blocked"),
    ("Unable to download JSON metadata: HTTP Error 412: Precondition Failed", "blocked"),
    ("[x] 1: Follow the owner to see it. Use --cookies, --cookies-from-browser, --username and --password", "login_required"),
    ("[x] 1: Sorry, this video is available in China only", "geo"),
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
