"""Platforms whose terms were looked for by hand: their hosts, and whether the terms restrict automated access.

What a platform's terms say was read in public archives of them in November 2026, or in somebody's summary where it says
so. A platform of which nothing could be read, or whose terms are silent, is taken to restrict.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownPlatform:
    """A platform; its subdomains belong to it, too."""

    name: str
    hosts: tuple[str, ...]
    """Domains whose pages an extractor of yt-dlp reads."""
    terms: str
    """The address of its terms of use."""
    basis: str = ""
    """What ``restricts`` rests on: the month of the text, and its sense; empty: the text has not been read."""
    restricts: bool = True
    """Whether the terms restrict automated access, or are not known to permit it."""
    others: tuple[str, ...] = ()
    """Its short links, APIs and media servers."""


REVIEWED = (
    KnownPlatform(
        "youtube", hosts=("youtube.com", "youtu.be", "youtube-nocookie.com", "youtubekids.com"),
        others=("youtubei.googleapis.com", "youtube.googleapis.com", "googlevideo.com", "ytimg.com"),
        terms="https://www.youtube.com/t/terms",
        basis="2026-07: no automated means but search engines' or with written permission; no downloads",
    ),
    KnownPlatform(
        "tiktok", hosts=("tiktok.com", "tiktokv.com"), others=("tiktokv.us", "tiktokcdn.com", "tiktokcdn-us.com",
        "muscdn.com"),
        terms="https://www.tiktok.com/legal/terms-of-use",
        basis="2026-07: no extraction of content by an automated system that TikTok has not approved in writing",
    ),
    KnownPlatform(
        "douyin", hosts=("douyin.com",), others=("iesdouyin.com", "douyinvod.com", "douyinpic.com"),
        terms="https://www.douyin.com/agreements/?id=6773906068725565448",
    ),
    KnownPlatform(
        "vimeo", hosts=("vimeo.com", "vimeopro.com"), others=("vimeocdn.com", "vhx.tv"),
        terms="https://vimeo.com/terms",
        basis="2024-07: no automated means but its APIs and what robots.txt permits search engines",
    ),
    KnownPlatform(
        "dailymotion", hosts=("dailymotion.com", "dai.ly"), others=("dmcdn.net", "dailymotion.*"),
        terms="https://legal.dailymotion.com/en/terms-of-use/",
        basis="2026-06, 2.6: no access by automated processes without written approval; 4.3: no downloads",
    ),
    KnownPlatform(
        "instagram", hosts=("instagram.com",), others=("instagr.am", "cdninstagram.com"),
        terms="https://help.instagram.com/581066165581870",
        basis="2026-08: no automated collection without permission, whether signed in or not",
    ),
    KnownPlatform(
        "facebook", hosts=("facebook.com",), others=("fb.com", "fb.watch", "fb.me", "fbcdn.net", "fbsbx.com"),
        terms="https://www.facebook.com/legal/terms",
        basis="2026-06: no access or collection by automated means without prior permission",
    ),
    KnownPlatform(
        "x", hosts=("x.com", "twitter.com", "periscope.tv", "pscp.tv"), others=("t.co", "twimg.com"),
        terms="https://x.com/en/tos",
        basis="2026-04: crawling or scraping in any form without prior written consent is prohibited",
    ),
    KnownPlatform(
        "bilibili", hosts=("bilibili.com", "bilibili.tv", "biliintl.com"), others=("b23.tv", "bilivideo.com",
        "bilivideo.cn", "hdslb.com", "bstarstatic.com"),
        terms="https://www.bilibili.com/protocal/licence.html",
        basis="before 2025-04, by a translation: no robots, spiders or crawlers without written permission",
    ),
    KnownPlatform(
        "reddit", hosts=("reddit.com", "redditmedia.com"), others=("redd.it", "redditstatic.com"),
        terms="https://redditinc.com/policies/user-agreement",
        basis="2026-07: crawling as robots.txt permits; scraping without written consent is prohibited",
    ),
    KnownPlatform(
        "twitch", hosts=("twitch.tv",), others=("ttvnw.net", "jtvnw.net", "twitchcdn.net"),
        terms="https://legal.twitch.com/en/legal/terms-of-service/",
        basis="2026-08: no robots, scrapers, crawlers or data mining for any purpose; no downloads",
    ),
    KnownPlatform(
        "soundcloud", hosts=("soundcloud.com",), others=("snd.sc", "sndcdn.com", "soundcloud.cloud"),
        terms="https://soundcloud.com/terms-of-use",
        basis="2026-08: no scraping or similar techniques to make use of content",
    ),
    KnownPlatform(
        "flickr", hosts=("flickr.com",), others=("flic.kr", "staticflickr.com"),
        terms="https://www.flickr.com/help/terms",
        basis="2025-09: no scraping, data mining, robots or similar extraction",
    ),
    KnownPlatform(
        "pinterest",
        hosts=tuple(f"pinterest.{ending}" for ending in (
            "com", "fr", "de", "ch", "jp", "cl", "ca", "it", "co.uk", "nz", "ru", "com.au", "at", "pt", "co.kr", "es",
            "com.mx", "dk", "ph", "th", "com.uy", "co", "nl", "info", "kr", "ie", "vn", "com.vn", "ec", "mx", "in",
            "pe", "co.at", "hu", "co.in", "co.nz", "id", "com.ec", "com.py", "tw", "be", "uk", "com.bo", "com.pe",
        )),
        others=("pin.it", "pinimg.com"),
        terms="https://policy.pinterest.com/en/terms-of-service",
        basis="2026-07: no access by automated means without express permission",
    ),
    KnownPlatform(
        "niconico", hosts=("nicovideo.jp", "nico.ms"), others=("nimg.jp", "dmc.nico"),
        terms="https://account.nicovideo.jp/rules/account",
        basis="2026-08, by a summary: no clause on automated access, none that permits it; no excessive load",
    ),
    KnownPlatform(
        "vk", hosts=("vk.com", "vk.ru", "vkvideo.ru", "vkplay.ru", "vkplay.live"), others=("vkontakte.ru",
        "vkuser.net", "vkuservideo.net", "userapi.com", "vk-cdn.net", "okcdn.ru"),
        terms="https://vk.com/terms",
    ),
    KnownPlatform("ok", hosts=("ok.ru",), others=("odnoklassniki.ru", "mycdn.me"), terms="https://ok.ru/regulations"),
    KnownPlatform("rutube", hosts=("rutube.ru",), others=("rtbcdn.ru",), terms="https://rutube.ru/info/agreement/"),
    KnownPlatform(
        "rumble", hosts=("rumble.com",), others=("rmbl.ws", "1a-1791.com"),
        terms="https://rumble.com/s/terms",
        basis="2026-07, by a summary: no access by automated software without prior written permission",
    ),
    KnownPlatform(
        "odysee", hosts=("odysee.com", "lbry.tv"), others=("odycdn.com", "lbryplayer.xyz"),
        terms="https://odysee.com/$/tos",
    ),
    KnownPlatform("bitchute", hosts=("bitchute.com",), terms="https://www.bitchute.com/policy/terms/"),
    KnownPlatform(
        "streamable", hosts=("streamable.com",),
        terms="https://terms.streamable.com/",
        basis="2025-09: a licence to use the service; automated means are named for uploads alone",
    ),
    KnownPlatform(
        "imgur", hosts=("imgur.com",),
        terms="https://imgur.com/tos",
        basis="2023-08: nothing on automated access, none that permits it",
    ),
    KnownPlatform(
        "giphy", hosts=(), others=("giphy.com", "gph.is"),
        terms="https://support.giphy.com/hc/en-us/articles/360020027752",
        basis="2026, by a summary: user terms prohibit scraping",
    ),
    KnownPlatform(
        "tumblr", hosts=("tumblr.com",),
        terms="https://www.tumblr.com/policy/en/terms-of-service",
        basis="2026-07: no automated access but as robots.txt permits; no scraping of content",
    ),
    KnownPlatform(
        "snapchat", hosts=("snapchat.com",), others=("sc-cdn.net",),
        terms="https://www.snap.com/terms",
        basis="2026-08: no robots, crawlers, scrapers or scripts to access, extract or copy",
    ),
    KnownPlatform(
        "linkedin", hosts=("linkedin.com",), others=("licdn.com", "lnkd.in"),
        terms="https://www.linkedin.com/legal/user-agreement",
        basis="2025-11: no software, scripts, robots or crawlers to scrape or copy the services",
    ),
    KnownPlatform(
        "bluesky", hosts=("bsky.app",), others=("bsky.social", "bsky.network"),
        terms="https://bsky.social/about/support/tos",
        basis="2025-12: nothing on automated access, none that permits it",
    ),
    KnownPlatform(
        "telegram", hosts=("t.me",), others=("telegram.me", "telegram.org", "telesco.pe"),
        terms="https://telegram.org/tos",
        basis="2026-08: data scraping is prohibited, by its content licensing and AI scraping terms",
    ),
    KnownPlatform(
        "truthsocial", hosts=("truthsocial.com",),
        terms="https://help.truthsocial.com/legal/terms-of-service",
        basis="2026-07: no automated use, data mining, robots or scrapers",
    ),
    KnownPlatform("gab", hosts=("gab.com",), terms="https://gab.com/about/tos"),
    KnownPlatform(
        "kick", hosts=("kick.com",),
        terms="https://kick.com/terms-of-service",
        basis="2026-08: no scraping, no robots, spiders or offline readers in any medium",
    ),
    KnownPlatform("twitcasting", hosts=("twitcasting.tv",), terms="https://twitcasting.tv/indexlicense.php"),
    KnownPlatform(
        "myspace", hosts=("myspace.com",),
        terms="https://myspace.com/pages/terms",
        basis="2026-08: no automated system to monitor, harvest, copy or distribute; no downloads",
    ),
    KnownPlatform(
        "livejournal", hosts=("livejournal.com",),
        terms="https://www.livejournal.com/legal/tos-en.bml",
        basis="2026-03: no automatic scripts (bots, crawlers) without special permission",
    ),
    KnownPlatform(
        "substack", hosts=("substack.com",), others=("substackcdn.com",),
        terms="https://substack.com/tos",
        basis="2025-09: no crawling, scraping or spidering of any page or data",
    ),
    KnownPlatform(
        "patreon", hosts=("patreon.com",), others=("patreonusercontent.com",),
        terms="https://www.patreon.com/policy/legal",
    ),
    KnownPlatform(
        "bandcamp", hosts=("bandcamp.com",), others=("bcbits.com",),
        terms="https://bandcamp.com/terms_of_use",
        basis="2026-08, acceptable use policy: no scraping, no text or data mining of content",
    ),
    KnownPlatform(
        "mixcloud", hosts=("mixcloud.com",),
        terms="https://www.mixcloud.com/terms/",
        basis="2026, by a summary, 8.2: no automated means for any purpose; no downloads",
    ),
    KnownPlatform("audiomack", hosts=("audiomack.com",), terms="https://audiomack.com/about/terms-of-service"),
    KnownPlatform(
        "newgrounds", hosts=("newgrounds.com",), others=("ungrounded.net", "ngfiles.com"),
        terms="https://www.newgrounds.com/wiki/help-information/terms-of-use",
    ),
    KnownPlatform("coub", hosts=("coub.com",), terms="https://coub.com/tos"),
    KnownPlatform("ninegag", hosts=("9gag.com",), others=("9cache.com",), terms="https://about.9gag.com/tos"),
    KnownPlatform(
        "weibo", hosts=("weibo.com", "weibo.cn"), others=("sinaimg.cn", "weibocdn.com"),
        terms="https://weibo.com/signup/v5/protocol",
        basis="2026, by a summary: robots.txt binds; no automated retrieval without permission",
    ),
    KnownPlatform(
        "zhihu", hosts=("zhihu.com",), others=("zhimg.com", "vzuu.com"),
        terms="https://www.zhihu.com/term/zhihu-terms",
        basis="2025-03, by a translation: no automated program to access, collect or process content",
    ),
    KnownPlatform(
        "iqiyi", hosts=("iqiyi.com", "iq.com", "pps.tv"), others=("qiyi.com",),
        terms="https://www.iqiyi.com/user/register/protocol.html",
    ),
    KnownPlatform(
        "naver", hosts=("tv.naver.com", "tvcast.naver.com"), others=("pstatic.net",),
        terms="https://policy.naver.com/rules/service.html",
    ),
    KnownPlatform(
        "yahoo", hosts=("yahoo.com",), others=("yimg.com",),
        terms="https://legal.yahoo.com/us/en/yahoo/terms/otos/index.html",
        basis="2025-09: no automated means (bots, robots, spiders, scrapers) without permission",
    ),
    KnownPlatform(
        "ted", hosts=("ted.com",),
        terms="https://www.ted.com/about/our-organization/our-policies-terms/ted-com-terms-of-use",
    ),
    KnownPlatform(
        "udemy", hosts=("udemy.com",), others=("udemycdn.com",),
        terms="https://www.udemy.com/terms/",
        basis="2026-07, by a summary, 7: no access by any means, automated or not, but its own search",
    ),
    KnownPlatform(
        "khanacademy", hosts=("khanacademy.org",), others=("kastatic.org",),
        terms="https://www.khanacademy.org/about/tos",
    ),
    KnownPlatform(
        "bbc", hosts=("bbc.co.uk", "bbc.com"), others=("bbci.co.uk",),
        terms="https://www.bbc.co.uk/usingthebbc/terms-of-use/",
        basis="2026-08: downloads by its own buttons alone; a licence for metadata",
    ),
    KnownPlatform(
        "cnn", hosts=("cnn.com",),
        terms="https://edition.cnn.com/terms0",
        basis="2026-03: no automated systems to inflate views or post; none that permits automated access",
    ),
    KnownPlatform(
        "foxnews", hosts=("foxnews.com", "foxbusiness.com"),
        terms="https://www.foxnews.com/terms-of-use",
        basis="2025-12: no scraping, downloads or data mining, nor use to train AI",
    ),
    KnownPlatform(
        "guardian", hosts=("theguardian.com",), others=("guim.co.uk",),
        terms="https://www.theguardian.com/help/terms-of-service",
        basis="2025-11: no robots, crawlers or scrapers; no use for machine learning",
    ),
    KnownPlatform(
        "nytimes", hosts=("nytimes.com",), others=("nyt.com",),
        terms="https://help.nytimes.com/hc/en-us/articles/115014893428-Terms-of-service",
        basis="2025-06: no robots, spiders or scripts to scrape, no access by automated means",
    ),
    KnownPlatform(
        "dailymail", hosts=("dailymail.co.uk",),
        terms="https://www.dailymail.co.uk/home/article-1388146/Terms.html",
        basis="2026-05: no scraping by hand or robot; no text and data mining, a reservation of rights",
    ),
    KnownPlatform(
        "ign", hosts=("ign.com",),
        terms="https://www.ziffdavis.com/terms-of-use",
        basis="2026-06: no robot, spider or other device to crawl, scrape, harvest or index",
    ),
    KnownPlatform(
        "pornhub", hosts=("pornhub.com", "pornhub.net", "pornhub.org", "pornhubpremium.com", "thumbzilla.com"),
        others=("phncdn.com",),
        terms="https://www.pornhub.com/information/terms",
        basis="2026-08: no robot, spider or other automatic means for any purpose",
    ),
    KnownPlatform(
        "archive", hosts=("archive.org",),
        terms="https://archive.org/about/terms.php",
        basis="its developers' page encourages bulk downloads and reuse; terms, by a summary: for research",
        restricts=False,
    ),
    KnownPlatform(
        "wikimedia", hosts=("wikimedia.org",), others=("wikipedia.org",),
        terms="https://foundation.wikimedia.org/wiki/Policy:Terms_of_Use",
        basis="2026-08: no automated uses that are abusive, disruptive or unapproved; APIs and a User-Agent policy",
        restricts=False,
    ),
    KnownPlatform(
        "freesound", hosts=("freesound.org",),
        terms="https://freesound.org/help/tos_api/",
        basis="2026-07, the API's documentation: free for non-commercial use within its limits, no mirror",
        restricts=False,
    ),
)  # fmt: skip
