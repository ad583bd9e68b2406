"""What yt-dlp's extractors say, word for word as its installed source has it, and the reason that each message means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yt_dlp
from yt_dlp.utils import ExtractorError

from vidal.crawl.platform import reason_of
from vidal.crawl.reasons import is_transient

# module under yt_dlp/extractor, its words, what stands there at run time after them, the reason
TABLE = [
    # no_formats
    ("YoutubeDL", "No video formats found!", "", "no_formats"),
    ("YoutubeDL", "Requested format is not available. Use --list-formats for a list of available formats", "", "no_formats"),
    ("YoutubeDL", "only images are available for download. Use --list-formats to see them", "", "no_formats"),
    ("ard", "This video is only available after 20:00", "", "no_formats"),
    ("bilibili", "This course episode is not yet available.", "", "no_formats"),
    ("reddit", "This video is processing", "", "no_formats"),
    ("streamable", "This video is currently unavailable. It may still be uploading or processing.", "", "no_formats"),
    ("twitter", "Twitter Space ended but not downloadable yet", "", "no_formats"),
    ("youtube/_video", "Ensure you have a supported JavaScript runtime and ", "", "no_formats"),
    ("youtube/_video", "No supported JavaScript runtime could be found. Only deno is enabled by default", "", "no_formats"),
    # blocked
    ("bilibili", "Request is blocked by server (401), please wait and try later.", "", "blocked"),
    ("bilibili", "Request is blocked by server (412), please wait and try later.", "", "blocked"),
    ("bilibili", "Request is rejected by server (352)", "", "blocked"),
    ("instagram", "Instagram sent an empty media response. Check if this post is accessible in your ", "", "blocked"),
    ("reddit", "Your IP address is unable to access the Reddit API", "", "blocked"),
    ("tiktok", "Fresh cookies (not necessarily logged in) are needed", "", "blocked"),
    ("tiktok", "Your IP address is blocked from accessing this post", "", "blocked"),
    ("udemy", "Udemy asks you to solve a CAPTCHA. Login with browser, ", "", "blocked"),
    ("vimeo", "If you are using a data center IP or VPN/proxy, your IP may be blocked", "", "blocked"),
    ("vimeo", "This request has been blocked due to its TLS fingerprint. ", "", "blocked"),
    ("vk", "You are trying to log in from an unusual location. You should confirm ownership at vk.com to log in with this ", "", "blocked"),
    ("yandexmusic", "YandexMusic has considered yt-dlp requests automated and ", "asks you to solve a CAPTCHA.", "blocked"),
    ("youtube/_video", ". YouTube is requiring a captcha challenge before playback", "", "blocked"),
    ("youtube/_video", "All player responses are invalid. Your IP is likely being blocked by Youtube", "", "blocked"),
    # rate_limited
    ("bilibili", "You have exceeded the rate limit. Try again later", "", "rate_limited"),
    ("instagram", "The webpage request was redirected to the login page. ", "You have exceeded the rate-limit", "rate_limited"),
    ("mixcloud", "You have reached your play limit for this track", "", "rate_limited"),
    ("youtube/_video", "has been rate-limited by YouTube for up to an hour", "", "rate_limited"),
    # private
    ("afreecatv", "This VOD is private", "", "private"),
    ("afreecatv", "This livestream is protected by a password, use the --video-password option", "", "private"),
    ("bilibili", "This is a private playlist. You need to login as its owner", "", "private"),
    ("dailymotion", " said: ", "Private content", "private"),
    ("dropbox", "Invalid password", "", "private"),
    ("dropbox", "Password protected video, use --video-password <password>", "", "private"),
    ("iwara", "Private video. Login if you have permissions to watch", "", "private"),
    ("loom", "Invalid video password", "", "private"),
    ("loom", "This video is password-protected, use the --video-password option", "", "private"),
    ("mixcloud", "Track is restricted", "", "private"),
    ("niconico", "Video unavailable, set to private", "", "private"),
    ("pornhub", " is locked", "", "private"),
    ("reddit", "Private subreddit; an account that has been approved is required", "", "private"),
    ("tiktok", "You do not have permission to view this post. Log into an account that has access", "", "private"),
    ("twitcasting", "This video is protected by a password, use the --video-password option", "", "private"),
    ("twitter", "You are not authorized to view this protected tweet", "", "private"),
    ("vimeo", "This album is protected by a password, use the --video-password option", "", "private"),
    ("vimeo", "This video is protected by a password, use the --video-password option", "", "private"),
    ("vimeo", "Wrong password", "", "private"),
    ("vimeo", "Wrong video password", "", "private"),
    ("wistia", "Invalid video password", "", "private"),
    ("wistia", "This content is password-protected. Use the --video-password option", "", "private"),
    ("youku", "Youku said: Sorry, this video is private", "", "private"),
    # login_required
    ("afreecatv", "This VOD is for subscribers only", "", "login_required"),
    ("afreecatv", "This channel is streaming for subscribers only", "", "login_required"),
    ("afreecatv", "This livestream is for subscribers only", "", "login_required"),
    ("bilibili", "This is a supporter-only video: ", "", "login_required"),
    ("bilibili", "This video is for premium members only", "", "login_required"),
    ("bilibili", "You need to login to access your watchlater playlist", "", "login_required"),
    ("bilibili", "You need to purchase the course to download this episode", "", "login_required"),
    ("hotstar", "Your account does not have access to this content", "", "login_required"),
    ("instagram", "This content is only available for registered users who follow this account", "", "login_required"),
    ("instagram", "This content is unreachable", "", "login_required"),
    ("instagram", "You need to log in to access this content", "", "login_required"),
    ("iwara", "Invalid login credentials", "", "login_required"),
    ("iwara", "Video may need login to view", "", "login_required"),
    ("kick", "This video requires a channel subscription", "", "login_required"),
    ("niconico", "PPV video, payment information required", "", "login_required"),
    ("niconico", "Sensitive content, login required", "", "login_required"),
    ("niconico", "You have to be logged in to get your history", "", "login_required"),
    ("openrec", "This content requires a ", "", "login_required"),
    ("patreon", "You do not have access to this post", "", "login_required"),
    ("pornhub", "Redirection detected; the video may be deleted or require login", "", "login_required"),
    ("reddit", "Account authentication is required", "", "login_required"),
    ("reddit", "Quarantined subreddit; an account that has opted in is required", "", "login_required"),
    ("soundcloud", "Login using username and password is not currently supported. ", "", "login_required"),
    ("tiktok", "This post may not be comfortable for some audiences. Log in for access", "", "login_required"),
    ("twitch", "You must be logged into an account that has ", "", "login_required"),
    ("twitch", "Your account does not have ", "", "login_required"),
    ("twitter", "NSFW tweet requires authentication", "", "login_required"),
    ("udemy", " is not free. You have to pay for it before you can download. ", "", "login_required"),
    ("vidio", "This video is only available for registered users with the appropriate subscription", "", "login_required"),
    ("vimeo", " client only works when logged-in", "", "login_required"),
    ("youtube/_base", "Login details are needed to download this content. ", "", "login_required"),
    ("youtube/_base", "Login with OAuth is no longer supported. ", "", "login_required"),
    # not_media
    ("bluesky", "No video could be found in this post", "", "not_media"),
    ("flickr", "not a video", "", "not_media"),
    ("floatplane", "Post does not contain a video or audio track", "", "not_media"),
    ("imgur", " is not a video or animated image", "", "not_media"),
    ("instagram", "There is no video in this post", "", "not_media"),
    ("ninegag", "The given url does not contain a video", "", "not_media"),
    ("patreon", "No supported media found in this post", "", "not_media"),
    ("reddit", "No media found", "", "not_media"),
    ("tiktok", "This account does not have any videos posted", "", "not_media"),
    ("tumblr", "No video could be found in this post", "", "not_media"),
    ("twitter", " is not a video", "", "not_media"),
    ("twitter", "No video could be found in this tweet", "", "not_media"),
    ("udemy", " is not a video", "", "not_media"),
    # age
    ("afreecatv", "Only users older than 19 are able to watch this video", "", "age"),
    ("ard", "This video is only available for age verified users or after 22:00", "", "age"),
    ("niconico", "Login is required to access age-restricted content", "", "age"),
    ("twitter", "Twitter API says: ", "Age-restricted adult content. This content might not be appropriate for people under 18 years old", "age"),
    # live
    ("afreecatv", "This livestream has ended", "", "live"),
    ("bilibili", "Streamer is not live", "", "live"),
    ("cbc", "This livestream has not yet started", "", "live"),
    ("lbry", "This stream is not live", "", "live"),
    ("naver", "Stream is offline.", "", "live"),
    ("picarto", "Stream is offline", "", "live"),
    ("showroomlive", "Next livestream is scheduled to start at ", "", "live"),
    ("tiktok", "This livestream has ended", "", "live"),
    ("tver", "This program is scheduled to start at ", "", "live"),
    ("twitter", "This live broadcast has not yet started", "", "live"),
    ("twitter", "Twitter Space not started yet", "", "live"),
    ("vimeo", "This live event is scheduled for ", "", "live"),
    # gone
    ("afreecatv", "The VOD does not exist", "", "gone"),
    ("arte", "Video is not available in this language edition of Arte or broadcast rights expired", "", "gone"),
    ("bilibili", "Playlist is no longer available", "", "gone"),
    ("bitchute", "Video is unavailable. Please make sure this video is playable in the browser ", "", "gone"),
    ("facebook", "The video is not available, Facebook said: \"", "", "gone"),
    ("likee", "Video was deleted", "", "gone"),
    ("mixcloud", "Track not found", "", "gone"),
    ("nhk", "Content not found; it has most likely expired", "", "gone"),
    ("nhk", "Stream not found; it has most likely expired", "", "gone"),
    ("niconico", "Removed by rights-holder request", "", "gone"),
    ("niconico", "Video unavailable, may not exist or was deleted", "", "gone"),
    ("openrec", "This video in no longer available", "", "gone"),
    ("rtve", "The video is no longer available", "", "gone"),
    ("tver", "This program is no longer available", "", "gone"),
    ("twitch", " does not exist", "", "gone"),
    ("twitch", "This clip is no longer available", "", "gone"),
    ("twitter", "Broadcast no longer exists", "", "gone"),
    ("twitter", "Twitter Space ended and replay is disabled", "", "gone"),
    ("twitter", "Twitter Space not found", "", "gone"),
    ("vimeo", "This event video is unavailable", "", "gone"),
    # server_error
    ("niconico", "Maintenance is in progress", "", "server_error"),
    ("niconico", "Service temporarily unavailable", "", "server_error"),
    # geo
    ("bilibili", "This video may be deleted or geo-restricted. ", "", "geo"),
    ("common", "Access to this webpage has been blocked by decision of the Russian government. ", "", "geo"),
    ("common", "This video is not available from your location due to geo restriction", "", "geo"),
    ("kuwo", "This song is blocked in this region", "", "geo"),
    ("mixcloud", "Track unavailable in your country due to licensing restrictions", "", "geo"),
    ("youku", "Youku said: Sorry, this video is available in China only", "", "geo"),
    # extractor_failed
    ("YoutubeDL", "ffmpeg not found. The downloaded format may not be the best available", "", "extractor_failed"),
    ("bilibili", "pycryptodomex not found. Please install", "", "extractor_failed"),
    ("generic", "try again with  --extractor-args \"generic:impersonate\"", "", "extractor_failed"),
    ("openload", "PhantomJS not found", "", "extractor_failed"),
    ("vimeo", " client is unable to fetch new OAuth tokens ", "", "extractor_failed"),
    ("vimeo", "No Vimeo embed or video ID could be found in VimeoPro page", "", "extractor_failed"),
    ("youtube/_base", "Incomplete data received", "", "extractor_failed"),
    ("youtube/_video", "No player clients have been requested", "", "extractor_failed"),
    ("ertgr", "Requested tiles not found", "", "extractor_failed"),
    ("genius", "Brightcove video ID not found in webpage", "", "extractor_failed"),
    ("nbc", "No video content found in webpage", "", "extractor_failed"),
    ("nfl", "were not found among passed cookies", "", "extractor_failed"),
    ("opencast", "Video id was not found", "", "extractor_failed"),
    ("openload", "`saveAndExit();` not found in `jscode`", "", "extractor_failed"),
    ("rcs", "Video data not found in the page", "", "extractor_failed"),
    ("steam", "No video found", "", "extractor_failed"),
    ("uplynk", "Necessary parameters not found in Uplynk URL", "", "extractor_failed"),
    ("bundestag", "Could not find suitable formats", "", "no_formats"),
    # drm
    ("common", "This video is DRM protected", "", "drm"),
    # network
    ("common", "A network error has occurred.", "", "network"),
    # unsupported_address
    ("generic", " is not a valid URL", "", "unsupported_address"),
    ("youtube/_mistakes", "Incomplete YouTube ID ", "abc. URL http://x/ looks truncated.", "unsupported_address"),
    # redirect_loop
    ("tiktok", ". Taking measures to avoid an infinite loop", "", "redirect_loop"),
]  # fmt: skip

OWN_LACKS = ("no_formats", "extractor_failed")


def source_of(module: str) -> str:
    package = Path(yt_dlp.__file__).parent
    return (package / ("" if module == "YoutubeDL" else "extractor") / f"{module}.py").read_text(encoding="utf-8")


def raised(module: str, fragment: str, message: str) -> ExtractorError:
    """The error as that module raises it: `raise_login_required` adds words of its own, `raise_geo_restricted` a type."""
    how = re.search(r"raise_(login_required|geo_restricted)\(\s*f?['\"]" + re.escape(fragment), source_of(module))
    extractor = yt_dlp.YoutubeDL({"quiet": True}, auto_init=False).get_info_extractor("Generic")
    try:
        if how:
            getattr(extractor, f"raise_{how[1]}")(message)
        raise ExtractorError(message, expected=True)
    except ExtractorError as error:
        named = ExtractorError(error.orig_msg, expected=True, ie=module.split("/")[0], video_id="1")
        error.args = named.args
        return error


@pytest.mark.parametrize(("module", "fragment", "rest", "reason"), TABLE)
def test_what_yt_dlp_says_is_still_in_its_source_and_has_a_reason(
    module: str, fragment: str, rest: str, reason: str
) -> None:
    assert fragment in source_of(module)
    assert reason_of(raised(module, fragment, fragment + rest), []).reason == reason


def test_the_table_covers_the_extractors_that_a_crawl_meets() -> None:
    assert len({(module, fragment) for module, fragment, *_ in TABLE}) == len(TABLE) >= 150
    assert len({module for module, *_ in TABLE}) >= 60


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Unable to extract the video's id", "extractor_failed"),
        ("Video data does not exist in the answer", "extractor_failed"),
        ("No video content found in webpage", "extractor_failed"),
        ("Channel not found", "extractor_failed"),
        ("Too many requests", "rate_limited"),
        ("No video formats found!", "no_formats"),
    ],
)
def test_what_yt_dlp_takes_for_its_own_bug_is_never_final(message: str, reason: str) -> None:
    assert reason_of(ExtractorError(message), []).reason == reason
    assert is_transient(reason)


@pytest.mark.parametrize(
    "lack",
    [
        "No video formats found!", "Requested format is not available", "Only images are available for download",
        "No supported JavaScript runtime could be found", "Unable to solve JS challenge", "A PO Token is required",
        'Impersonate target "chrome" is not available. Use --list-impersonate-targets', "ffmpeg not found. Please install",
        "ffprobe is not installed", "pycryptodomex not found. Please install", "PhantomJS not found", "curl_cffi is missing",
        "This feature requires websockets", "Confirm you are on the latest version using yt-dlp -U",
    ],
)  # fmt: skip
def test_what_may_be_the_crawlers_own_lack_is_never_final(lack: str) -> None:
    assert reason_of(ExtractorError(lack, expected=True), []).reason in OWN_LACKS
    assert all(is_transient(reason) for reason in OWN_LACKS)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[youtube] 1: ffmpeg not found. The downloaded format may not be the best available", "extractor_failed"),
        ("[bilibili] 1: Subtitles are only available when logged in. Use --cookies", "extractor_failed"),
        ("[youtube] 1: No supported JavaScript runtime could be found", "extractor_failed"),
        ("HTTP Error 429: Too Many Requests", "rate_limited"),
        ("[download] File is larger than max-filesize (9 bytes > 8 bytes). Aborting.", "too_large"),
    ],
)
def test_a_warning_makes_no_failure_final(line: str, reason: str) -> None:
    assert reason_of(ExtractorError("It did not work", expected=True), [line]).reason == reason
