"""Platforms that yt-dlp knows: every host that belongs to one, and whether its terms restrict automated access.

budget_of("r3---sn-4g5e.googlevideo.com")     # "youtube", as of youtu.be, i.ytimg.com and m.youtube.com
budget_of("films.example.org")                # "films.example.org": a host of its own
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownPlatform:
    """A platform; `hosts` are its domains, short links, embedded players and media servers."""

    name: str
    hosts: tuple[str, ...]
    terms: str
    """The address of its terms of use."""
    restricts: bool = True
    """Whether the terms restrict automated access, or are not known to permit it."""


PLATFORMS = (
    KnownPlatform("youtube", ("youtube.com", "youtu.be", "youtube-nocookie.com", "youtubekids.com",
                  "youtubei.googleapis.com", "youtube.googleapis.com", "googlevideo.com", "ytimg.com"),
                  "https://www.youtube.com/t/terms"),
    KnownPlatform("tiktok", ("tiktok.com", "tiktokv.com", "tiktokcdn.com", "tiktokcdn-us.com", "tiktokv.us",
                  "muscdn.com"),
                  "https://www.tiktok.com/legal/page/us/terms-of-service/en"),
    KnownPlatform("vimeo", ("vimeo.com", "vimeocdn.com", "vimeopro.com", "vhx.tv"), "https://vimeo.com/terms"),
    KnownPlatform("dailymotion", ("dailymotion.com", "dai.ly", "dmcdn.net"),
                  "https://legal.dailymotion.com/en/terms-of-use/"),
    KnownPlatform("instagram", ("instagram.com", "instagr.am", "cdninstagram.com"),
                  "https://help.instagram.com/581066165581870"),
    KnownPlatform("facebook", ("facebook.com", "fb.com", "fb.watch", "fb.me", "fbcdn.net", "fbsbx.com"),
                  "https://www.facebook.com/legal/terms"),
    KnownPlatform("x", ("x.com", "twitter.com", "t.co", "twimg.com", "pscp.tv", "periscope.tv"),
                  "https://x.com/en/tos"),
    KnownPlatform("bilibili", ("bilibili.com", "bilibili.tv", "b23.tv", "bilivideo.com", "bilivideo.cn",
                  "hdslb.com"),
                  "https://www.bilibili.com/protocal/licence.html"),
    KnownPlatform("reddit", ("reddit.com", "redd.it", "redditmedia.com", "redditstatic.com"),
                  "https://redditinc.com/policies/user-agreement"),
    KnownPlatform("twitch", ("twitch.tv", "ttvnw.net", "jtvnw.net", "twitchcdn.net"),
                  "https://legal.twitch.com/en/legal/terms-of-service/"),
    KnownPlatform("soundcloud", ("soundcloud.com", "snd.sc", "sndcdn.com", "soundcloud.cloud"),
                  "https://soundcloud.com/terms-of-use"),
    KnownPlatform("flickr", ("flickr.com", "flic.kr", "staticflickr.com"), "https://www.flickr.com/help/terms"),
    KnownPlatform("pinterest", ("pinterest.com", "pin.it", "pinimg.com"),
                  "https://policy.pinterest.com/en/terms-of-service"),
    KnownPlatform("niconico", ("nicovideo.jp", "nico.ms", "nimg.jp", "dmc.nico"),
                  "https://account.nicovideo.jp/rules/account"),
    KnownPlatform("vk", ("vk.com", "vk.ru", "vkvideo.ru", "vkontakte.ru", "vkuser.net", "userapi.com",
                  "vk-cdn.net", "okcdn.ru"),
                  "https://vk.com/terms"),
    KnownPlatform("rumble", ("rumble.com", "rmbl.ws", "1a-1791.com"), "https://rumble.com/s/terms"),
    KnownPlatform("odysee", ("odysee.com", "odycdn.com", "lbry.tv", "lbryplayer.xyz"), "https://odysee.com/$/tos"),
    KnownPlatform("streamable", ("streamable.com",), "https://streamable.com/terms"),
    KnownPlatform("imgur", ("imgur.com",), "https://imgur.com/tos"),
    KnownPlatform("giphy", ("giphy.com", "gph.is"), "https://giphy.com/terms"),
    KnownPlatform("archive", ("archive.org",), "https://archive.org/about/terms.php", restricts=False),
    KnownPlatform("wikimedia", ("wikimedia.org", "wikipedia.org"),
                  "https://foundation.wikimedia.org/wiki/Policy:Terms_of_Use", restricts=False),
    KnownPlatform("freesound", ("freesound.org",), "https://freesound.org/help/tos_api/", restricts=False),
)  # fmt: skip

_BY_HOST = {host: platform for platform in PLATFORMS for host in platform.hosts}


def domains_of(host: str) -> list[str]:
    """Return a host's name and the domains that it is under, the most specific first."""
    # `youtube.com.` is the same host, and must not get a budget of its own.
    parts = host.lower().rstrip(".").split(".")
    return [".".join(parts[n:]) for n in range(len(parts))]


def platform_of(host: str) -> KnownPlatform | None:
    return next((_BY_HOST[domain] for domain in domains_of(host) if domain in _BY_HOST), None)


def budget_of(host: str) -> str:
    """Return the name of the budget that a request to the host is charged to: the platform's, or the host itself."""
    platform = platform_of(host)
    return platform.name if platform else host.lower().rstrip(".")
