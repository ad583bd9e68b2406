"""robots.txt by RFC 9309: the group of our name, or of ``*``, and in it the longest matching rule."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

MAX_BYTES = 500 * 1024
"""The least that RFC 9309 requires a crawler to read."""


@dataclass(slots=True)
class Robots:
    """The rules of one host for one agent."""

    rules: list[tuple[bool, str]] = field(default_factory=list)
    """Whether each rule allows, and the pattern of its path."""
    crawl_delay_s: float | None = None

    def allows(self, target: str) -> bool:
        """Whether a path with its query may be requested."""
        if target == "/robots.txt":
            return True
        target = _normalised(target)
        matching = [(len(pattern), allow) for allow, pattern in self.rules if _matches(pattern, target)]
        return max(matching)[1] if matching else True


def parse(text: str, agent: str) -> Robots:
    """The rules for ``agent``, such as ``vidal``: of all groups that name it, or else of all for ``*``."""
    groups: dict[str, Robots] = {}
    names: list[str] = []
    is_open = False
    for line in text.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            names = [*names, value.lower()] if is_open else [value.lower()]
            is_open = True
            groups.setdefault(value.lower(), Robots())
            continue
        is_open = False
        for group in [groups[name] for name in names]:
            if key in ("allow", "disallow") and value:
                group.rules.append((key == "allow", _normalised(value)))
            elif key == "crawl-delay" and re.fullmatch(r"\d{1,6}(?:\.\d+)?", value):
                group.crawl_delay_s = float(value)
    return groups.get(agent.lower()) or groups.get("*") or Robots()


def _normalised(path: str) -> str:
    return quote(unquote(path), safe="/*$?&=;:@!+,~()'%")


def _matches(pattern: str, target: str) -> bool:
    """``*`` matches any text, a final ``$`` the end; matched piece by piece, so that no pattern takes long."""
    is_whole = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not target.startswith(first):
        return False
    position = len(first)
    for piece in rest:
        position = target.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return not is_whole or position == len(target) or (bool(rest) and target.endswith(rest[-1]))
