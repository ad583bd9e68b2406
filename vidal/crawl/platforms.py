"""Platforms that yt-dlp knows: every host that belongs to one, and whether its terms restrict automated access.

budget_of("r3---sn-4g5e.googlevideo.com")     # "youtube", as of youtu.be, i.ytimg.com and m.youtube.com
budget_of("www.nbc.com")                      # "nbc.com"
budget_of("films.example.org")                # "films.example.org": a host of its own

The terms of some were read (`vidal.crawl.reviewed`); those of all others, listed in ``platforms.txt`` as yt-dlp's
extractors have them, are taken to restrict, as most sites' terms do.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

from vidal.crawl.reviewed import REVIEWED, KnownPlatform

FILE = Path(__file__).with_name("platforms.txt")
"""A platform a line: its name and hosts; written by ``python -m tools.platforms`` from yt-dlp's extractors."""
_ENDING = 6
"""Characters of ``co.uk`` and the like, one of which is the asterisk of ``amazon.*``."""
_READ = {platform.name: platform for platform in REVIEWED}


@cache
def known_platforms() -> dict[str, KnownPlatform]:
    """Every platform by its name, the reviewed ones first."""
    return _READ | {platform.name: platform for platform in _by_host().values()}


@cache
def _by_host() -> dict[str, KnownPlatform]:
    hosts: dict[str, KnownPlatform] = {}
    for line in FILE.read_text().splitlines()[1:]:
        name, *its_hosts = line.split()
        hosts |= dict.fromkeys(its_hosts, KnownPlatform(name, tuple(its_hosts), terms=""))
    return hosts | {host: one for one in REVIEWED for host in (*one.hosts, *one.others)}


def domains_of(host: str) -> list[str]:
    """Return a host's name and the domains that it is under, the most specific first."""
    # `youtube.com.` is the same host, and must not get a budget of its own.
    parts = host.lower().rstrip(".").split(".")
    return [".".join(parts[n:]) for n in range(len(parts))]


def platform_of(host: str) -> KnownPlatform | None:
    """Return the platform that a host belongs to; None for a host of no known one."""
    return _of(host)[1]


def budget_of(host: str) -> str:
    """Return the name of the budget that a request to the host is charged to.

    It is that of a reviewed platform, with its media servers; of another, whose hosts may be independent servers as
    those of PeerTube are, the listed host that this one is under; and else the host itself.
    """
    domain, platform = _of(host)
    return platform.name if platform and platform.name in _READ else domain


@lru_cache(1024)
def _of(host: str) -> tuple[str, KnownPlatform | None]:
    known = _by_host()
    domains = domains_of(host)
    for domain in domains:
        name, _, ending = domain.partition(".")
        if platform := known.get(domain) or (known.get(f"{name}.*") if len(ending) <= _ENDING else None):
            return domain, platform
    return domains[0], None
