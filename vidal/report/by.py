"""`By`: what the clips of a crawl are counted by; apart from the counting, as the command line is to load fast."""

from __future__ import annotations

from enum import StrEnum


class By(StrEnum):
    """The name that a clip counts for; the host is that of its address, without the port."""

    platform = "platform"
    """The platform of the host, as vidal or else yt-dlp names it; a host that belongs to none is its own."""
    host = "host"
    term = "term"
    """The search term, channel or playlist that found the clip."""
