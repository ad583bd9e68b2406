"""What the owner of a host says of all its files: robots.txt, and the reservations of ``/.well-known/tdmrep.json``.

In robots.txt, ``Content-Usage`` and ``Content-Signal`` say, after an optional pattern of paths, what files may be
used for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from protego import Protego

from vidal.crawl.opt_out import allows_training

MAX_BYTES = 500 * 1024
"""The least that RFC 9309 requires a crawler to read."""


class Robots:
    """The rules of one host for one agent, such as ``vidal``; without texts, everything is allowed."""

    def __init__(self, text: str = "", reservations: str = "", agent: str = "vidal") -> None:
        self.texts, self._agent = (text, reservations, agent), agent
        # With a byte order mark before it, the first line would be no rule, and it is mostly `User-agent`.
        text = text.removeprefix("\ufeff")
        self._rules = Protego.parse(text)
        self._usage = [Protego.parse(rules) for rules in _usage_of(text)]
        self._reservations = list(_rules_of(reservations.removeprefix("\ufeff")))

    @property
    def crawl_delay_s(self) -> float | None:
        """Seconds between two requests that the host asks for, if any."""
        return self._rules.crawl_delay(self._agent)

    def allows(self, target: str) -> bool:
        """Whether robots.txt lets a path with its query be requested."""
        return self._rules.can_fetch(target, self._agent)

    def forbids_training(self, target: str) -> bool:
        """Whether robots.txt says of a path that no model may be trained on its file."""
        return any(rules.can_fetch(target, self._agent) for rules in self._usage)

    def reserves(self, target: str) -> bool:
        """Whether the file at a path is reserved from text and data mining."""
        # Where several rules match, TDMRep takes the first in the file, not the longest, as robots.txt does.
        return next((is_reserved for rule, is_reserved in self._reservations if not rule.can_fetch(target, "*")), False)


def _usage_of(text: str) -> Iterator[str]:
    """The lines on training as a robots.txt each, those before any group and those of groups; none without such lines.

    In it ``Allow`` means that training is forbidden, as that wins over a ``Disallow`` of the same length.
    """
    rest = "Disallow: /"
    alone, grouped, is_alone, says = ["User-agent: *", rest], ["User-agent: *", rest], True, False
    for line in text.splitlines():
        name, colon, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        name = name.title()
        if not colon or name in ("Sitemap", "Host"):
            continue
        # Protego, too, takes it with a space, or without the hyphen.
        if re.fullmatch(r"User.?Agent", name):
            is_alone = False
            grouped.append(f"User-agent: {value}")
            continue
        # A group without such lines says nothing, and any other line ends its list of agents.
        rules = [rest]
        if name in ("Content-Usage", "Content-Signal"):
            path, value = [*value.split(None, 1), ""][:2] if value.startswith(("/", "*")) else ("/", value)
            allowed = allows_training(name, value)
            rules += [f"{'Disallow' if allowed else 'Allow'}: {path}"] if allowed is not None else []
            says = says or allowed is not None
        (alone if is_alone else grouped).extend(rules)
    if says:
        yield from ("\n".join(lines) for lines in (alone, [*grouped, rest]))


def _rules_of(reservations: str) -> Iterator[tuple[Protego, bool]]:
    """The rules of a tdmrep.json in order: the pattern, which is one of robots.txt, and whether it reserves.

    Anything else states nothing; so does a rule whose value is neither 0 nor 1, by TDMRep an error.
    """
    try:
        entries = json.loads(reservations or "[]")
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else []:
        location, value = (entry.get("location"), entry.get("tdm-reservation")) if isinstance(entry, dict) else ("", 0)
        # A line end or a # in a location would let a host's file write other rules than its own.
        if isinstance(location, str) and re.fullmatch(r"[^\s#]+", location) and value in (0, 1, "0", "1"):
            yield Protego.parse(f"User-agent: *\nDisallow: {location}"), value in (1, "1")
