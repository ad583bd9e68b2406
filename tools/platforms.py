"""Writes ``vidal/crawl/platforms.txt``: each platform that the installed yt-dlp reads, with its hosts.

    python -m tools.platforms             write it; run it whenever the pinned yt-dlp changes
    python -m tools.platforms --check     say whether it would be the same

A platform is a module of yt-dlp's extractors, unless one of its hosts belongs to a platform of `vidal.crawl.reviewed`.
Its hosts are those that the modules' patterns spell out, which are enumerated; a pattern that leaves the domain open,
such as ``amazon.…``, has those of the extractor's own examples.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from importlib.metadata import version
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any
from urllib.parse import urlsplit

from vidal.crawl.platforms import FILE, domains_of
from vidal.crawl.reviewed import REVIEWED

EXCEPTIONS = {
    "commonmistakes": "answers typing errors",
    "commonprotocols": "rtmp, mms and view-source at any host",
    "genericembeds": "players on pages of any host",
    "generic": "any page",
    "mediasite": "software that runs at any host",
    "sibnet": "a player on pages of other hosts",
    "testurl": "runs a test",
    "anvato": "no address of the web: the player of sites that have extractors of their own",
    "arcpublishing": "no address of the web: the player of sites that have extractors of their own",
    "camtasia": "a player on pages of any host",
    "detik": "a player on pages of other hosts",
    "elementorembed": "a player on pages of any host",
    "googlesearch": "no address: a search, whose results are other extractors'",
    "jstream": "no address of the web: the player of sites that have extractors of their own",
    "ninecninemedia": "no address of the web: the player of sites that have extractors of their own",
    "plyr": "a player on pages of any host",
    "viously": "a player on pages of any host",
    "wordpress": "players on pages of any host",
}
"""Modules of yt-dlp's extractors that have no host of their own."""
_REFUSED = "unsupported"
"""yt-dlp's list of sites that it refuses; each is a platform."""
_ANY = "*"
_HOST = re.compile(r"[a-z?*]*:?//([^/?#:]*)")
_PATH = re.compile(r"(?<=[^/:])/.*|[?#].*", re.DOTALL)
_DOMAIN = re.compile(r"([a-z0-9-]+\.)+([a-z][a-z0-9-]+|\*)")
_LISTED = 6
"""A class of more characters is open."""


def table() -> dict[str, list[str]]:
    """The hosts of each platform as the installed yt-dlp's extractors have them, but for those that were reviewed."""
    # Its short list of extractors has no examples.
    os.environ["YTDLP_NO_LAZY_EXTRACTORS"] = "1"
    from yt_dlp.extractor import gen_extractor_classes

    found = defaultdict[str, set[str]](set)
    for extractor in gen_extractor_classes():
        module = extractor.__module__.split(".")[2]
        found[module] |= _hosts(extractor) if module not in EXCEPTIONS else set()
    if missing := [module for module, hosts in found.items() if not hosts and module not in EXCEPTIONS]:
        raise SystemExit(f"{', '.join(missing)}: no host can be told, and EXCEPTIONS does not say why")
    owners = {host: platform.name for platform in REVIEWED for host in (*platform.hosts, *platform.others)}
    reviewed = {platform.name for platform in REVIEWED}
    names = {
        module: next((name for host in sorted(hosts) if (name := _owner(host, owners))), module)
        for module, hosts in found.items()
    }
    platforms = defaultdict[str, list[str]](list)
    # A host that is under another platform's belongs to that, so the shorter come first.
    pairs = ((host.count("."), host, module) for module, hosts in found.items() for host in hosts)
    for _, host, module in sorted(pairs):
        if _owner(host, owners) is None:
            # What was read are the platform's terms, not those of other owners whose hosts its extractors read.
            name = f"{names[module]}-others" if names[module] in reviewed else names[module]
            owners[host] = host.split(".")[-2] if module == _REFUSED else name
            platforms[owners[host]].append(host)
    return {name: sorted(platforms[name]) for name in sorted(platforms)}


def _owner(host: str, owners: dict[str, str]) -> str | None:
    return next((owners[domain] for domain in domains_of(host) if domain in owners), None)


def _hosts(extractor: Any) -> set[str]:
    """The hosts that an extractor reads, without ``www``."""
    patterns = extractor._VALID_URL or ()
    urls = set[str]().union(
        *(_texts(parser.parse(one)) for one in ([patterns] * isinstance(patterns, str) or patterns))
    )
    domains = {_domain(match[1]) for url in urls if (match := _HOST.match(url))}
    if "" in domains:
        examples = (case["url"] for case in extractor.get_testcases(include_onlymatching=True))
        domains |= {urlsplit(url).hostname or "" for url in examples if _HOST.match(url) and extractor.suitable(url)}
    return {
        name for domain in domains if _DOMAIN.fullmatch(name := domain.removeprefix("www.")) and name[-6:] != ".onion"
    }


def _domain(host: str) -> str:
    """The domain that a host of a pattern ends in, ``amazon.*`` where its own ending is open; empty for none."""
    # At the end it stands for the path, or for the ending.
    host = host.rstrip(_ANY)
    before, _, after = host.rpartition(_ANY)
    domain = after.partition(".")[2] if before or host != after else host
    if domain.endswith("."):
        return domain[:-1].rpartition(".")[2] + "." + _ANY
    return domain if _DOMAIN.fullmatch(domain) else ""


def _texts(tokens: Any) -> set[str]:
    """The beginnings of the texts that a parsed pattern matches, up to the end of the host; `_ANY` is what is open."""
    texts = {""}
    for kind, value in tokens:
        if not (growing := {text for text in texts if not _PATH.search(text)}):
            break
        tails = _texts_of(kind, value)
        texts = (texts - growing) | {_PATH.sub("/", text + tail) for text in growing for tail in tails}
    return texts


def _texts_of(kind: Any, value: Any) -> set[str]:
    if kind is kinds.LITERAL:
        return {chr(value).lower()}
    if kind is kinds.ANY:
        # Mostly a dot that nobody escaped.
        return {"."}
    if kind is kinds.IN:
        is_listed = all(each is kinds.LITERAL for each, _ in value)
        return {chr(code).lower() for _, code in value} if is_listed and len(value) <= _LISTED else {_ANY}
    if kind is kinds.BRANCH:
        return set[str]().union(*map(_texts, value[1]))
    if kind is kinds.SUBPATTERN:
        return _texts(value[-1])
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        least, most, repeated = value
        texts = _texts(repeated)
        if most != 1:
            texts = {_ANY if len(text) == 1 else _ANY + text for text in texts} | (texts if least <= 1 else set())
        return texts | ({""} if least == 0 else set())
    # Conditions are of no length; references repeat something.
    return {_ANY} if kind in (kinds.NOT_LITERAL, kinds.GROUPREF) else {""}


def main(arguments: list[str]) -> int:
    lines = [f"# yt-dlp {version('yt-dlp')}, by python -m tools.platforms"]
    lines += [" ".join((name, *hosts)) for name, hosts in table().items()]
    if arguments != ["--check"]:
        FILE.write_text("\n".join(lines) + "\n")
    elif differing := sorted(set(FILE.read_text().splitlines()) ^ set(lines)):
        print(f"{FILE.name} differs by {len(differing)} lines; run python -m tools.platforms: {differing[0][:200]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
