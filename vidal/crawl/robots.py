"""What the owner of a host says of all its files: robots.txt, and the reservations of ``/.well-known/tdmrep.json``."""

from __future__ import annotations

import json
import re

from protego import Protego

MAX_BYTES = 500 * 1024
"""The least that RFC 9309 requires a crawler to read."""


class Robots:
    """The rules of one host for one agent, such as ``vidal``; without texts, everything is allowed."""

    def __init__(self, text: str = "", reservations: str = "", agent: str = "vidal") -> None:
        self.texts, self._agent = (text, reservations, agent), agent
        # With a byte order mark before it, the first line would be no rule, and it is mostly `User-agent`.
        self._rules = Protego.parse(text.removeprefix("\ufeff"))
        self._reserved = Protego.parse(_as_rules(reservations.removeprefix("\ufeff")))

    @property
    def crawl_delay_s(self) -> float | None:
        """Seconds between two requests that the host asks for, if any."""
        return self._rules.crawl_delay(self._agent)

    def allows(self, target: str) -> bool:
        """Whether robots.txt lets a path with its query be requested."""
        return self._rules.can_fetch(target, self._agent)

    def reserves(self, target: str) -> bool:
        """Whether the file at a path is reserved from text and data mining."""
        return not self._reserved.can_fetch(target, self._agent)


def _as_rules(reservations: str) -> str:
    """A tdmrep.json as a robots.txt, whose patterns and order of precedence it shares; anything else is empty."""
    try:
        entries = json.loads(reservations or "[]")
    except (ValueError, RecursionError):
        return ""
    lines = ["User-agent: *"]
    for entry in entries if isinstance(entries, list) else []:
        location, value = (entry.get("location"), entry.get("tdm-reservation")) if isinstance(entry, dict) else ("", 0)
        # A line end or a # in a location would let a host's file write other rules than its own.
        if isinstance(location, str) and re.fullmatch(r"[^\s#]+", location):
            lines.append(f"{'Disallow' if str(value) == '1' else 'Allow'}: {location}")
    return "\n".join(lines)
