"""What the owner of a file says in its headers, or in the page around it, against use for training.

The words of X-Robots-Tag and ``<meta name="robots">`` that count are ``WebSettings.noai``; unless it is empty, a
reservation by TDMRep, a ``Content-Usage: train-ai=n`` and a ``Content-Signal: ai-train=no`` count, too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from vidal.crawl.reasons import FetchError
from vidal.crawl.settings import WebSettings

_META = re.compile(r"<meta\b[^<>]{1,2000}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""\b(name|content)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_TRAINING = {
    "Content-Usage": re.compile(r"(?:^|,)\s*train-ai\s*=\s*(?:(n)|y)\s*(?:$|(?=[,;]))"),
    "Content-Signal": re.compile(r"(?:^|[,;])\s*ai-train\s*=\s*(?:(no)|yes)\s*(?:$|(?=[,;]))"),
}
"""By header, or rule of robots.txt: what says whether training is allowed."""


def check_headers(headers: Mapping[str, str], settings: WebSettings) -> None:
    """Raise `FetchError` ``noai`` where the headers of a response opt out."""
    check_directives(headers.get("X-Robots-Tag") or "", settings)
    _check_reservation(headers.get("tdm-reservation") or "", settings)
    for name in _TRAINING if settings.noai else ():
        if allows_training(name, headers.get(name) or "") is False:
            raise FetchError("noai", f"{name}: {headers[name][:100]}")


def allows_training(name: str, value: str) -> bool | None:
    """Whether a ``Content-Usage`` or ``Content-Signal`` lets models be trained; None where it does not say."""
    stated = _TRAINING[name].findall(value.lower())
    return not any(stated) if stated else None


def check_page(page: str, settings: WebSettings) -> None:
    """Raise `FetchError` ``noai`` where the ``<meta>`` elements of a page opt out."""
    for tag in _META.findall(page):
        named = {name.lower(): html.unescape(a or b or c) for name, a, b, c in _ATTRIBUTE.findall(tag)}
        name, content = named.get("name", "").strip().lower(), named.get("content", "")
        if name in ("robots", _own_name(settings)):
            check_directives(content, settings, "meta robots")
        elif name == "tdm-reservation":
            _check_reservation(content, settings)


def check_directives(words: str, settings: WebSettings, where: str = "X-Robots-Tag") -> None:
    """Raise `FetchError` ``noai`` for a directive in ``settings.noai``, for all agents or for ours."""
    name = ""
    for part in words.lower().split(","):
        head, colon, rest = part.partition(":")
        # The colon of these two belongs to the directive and names no agent.
        if colon and re.fullmatch(r"\s*[\w.*-]+\s*", head) and head.strip() not in ("unavailable_after", "max-snippet"):
            name, part = head.strip(), rest
        if part.strip() in settings.noai and name in ("", "*", _own_name(settings)):
            raise FetchError("noai", f"{where}: {part.strip()}")


def _check_reservation(value: str, settings: WebSettings) -> None:
    # A field that both a server and the cache before it add reads `1, 1`; where they disagree, the reservation counts.
    if settings.noai and "1" in map(str.strip, value.split(",")):
        raise FetchError("noai", "tdm-reservation: 1")


def _own_name(settings: WebSettings) -> str:
    return settings.agent().partition("/")[0].lower()
