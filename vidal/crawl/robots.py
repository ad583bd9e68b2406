"""What the owner of a host says of all its files: robots.txt, and the reservations of ``/.well-known/tdmrep.json``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

MAX_BYTES = 500 * 1024
"""The least that RFC 9309 requires a crawler to read."""


class Robots:
    """The rules of one host for one agent, such as ``vidal``; without texts, everything is allowed."""

    def __init__(self, text: str = "", reservations: str = "", agent: str = "vidal") -> None:
        self.texts = (text, reservations, agent)
        self._rules = _parse(text.removeprefix("\ufeff"), agent)
        self._reserved = _parse(_as_rules(reservations.removeprefix("\ufeff")), agent)

    @property
    def crawl_delay_s(self) -> float | None:
        """Seconds between two requests that the host asks for, if any."""
        return self._rules.crawl_delay_s

    def allows(self, target: str) -> bool:
        """Whether robots.txt lets a path with its query be requested."""
        return self._rules.allows(target)

    def reserves(self, target: str) -> bool:
        """Whether the file at a path is reserved from text and data mining."""
        return not self._reserved.allows(target)


def _as_rules(reservations: str) -> str:
    """A tdmrep.json as a robots.txt, whose patterns and order of precedence it shares; anything else is empty."""
    try:
        entries = json.loads(reservations or "[]")
    except (ValueError, RecursionError):
        return ""
    lines = ["User-agent: *"]
    for entry in entries if isinstance(entries, list) else []:
        location, value = (entry.get("location"), entry.get("tdm-reservation")) if isinstance(entry, dict) else ("", 0)
        if isinstance(location, str) and re.fullmatch(r"[^\s#]+", location):
            lines.append(f"{'Disallow' if str(value) == '1' else 'Allow'}: {location}")
    return "\n".join(lines)


@dataclass(slots=True)
class _AgentRules:
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


def _parse(text: str, agent: str) -> _AgentRules:
    """The rules for ``agent``, such as ``vidal``: of all groups that name it, or else of all for ``*``."""
    groups: dict[str, _AgentRules] = {}
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
            groups.setdefault(value.lower(), _AgentRules())
            continue
        is_open = False
        for group in [groups[name] for name in names]:
            if key in ("allow", "disallow") and value:
                group.rules.append((key == "allow", _normalised(value)))
            elif key == "crawl-delay" and re.fullmatch(r"\d{1,6}(?:\.\d+)?", value):
                group.crawl_delay_s = float(value)
    return groups.get(agent.lower()) or groups.get("*") or _AgentRules()


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
