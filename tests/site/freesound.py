"""An API in the shape that Freesound's documentation gives (apiv2): search with filters and pages, sounds, previews."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.site import media
from tests.site.server import Exchange

TOKEN = "test-token-7d1f"
_LICENCES = (
    "http://creativecommons.org/publicdomain/zero/1.0/",
    "https://creativecommons.org/licenses/by/4.0/",
    "https://creativecommons.org/licenses/by-nc/4.0/",
)
_WORDS = ("rain", "dog", "bark", "thunder", "street", "piano", "glass", "wind", "river", "door")
COUNT = 60
PREFERENCES = ("no-additional-preferences", "open-source-models", "no-additional-preferences", "no-gen-ai")
_NAMES_OF_LICENCES = dict(
    zip(_LICENCES, ("Creative Commons 0", "Attribution", "Attribution NonCommercial"), strict=True)
)
_FILTERS = {"tag": "tags"} | {
    name: name
    for name in ("id", "username", "license", "duration", "num_downloads", "avg_rating", "num_ratings", "num_comments",
                 "gen_ai_preference", "channels", "type")
}  # fmt: skip
"""The field of a sound that each filter reads; tags are called tag in filters."""
_FILTER = re.compile(r"""(\w+):(\[([\d.]+|\*) TO ([\d.]+|\*)\]|\(([^)]+)\)|"([^"]+)"|(\S+))(?:\s+|$)""")


def sound(number: int, base: str) -> dict[str, Any]:
    first, second = _WORDS[number % 10], _WORDS[number * 7 % 10]
    address = f"{base}/data/previews/{number}"
    return {
        "id": number,
        "url": f"{base}/people/user{number % 7}/sounds/{number}/",
        "name": f"{first} {second} {number}.wav",
        "tags": [first, second, "field-recording"],
        "description": f"The sound of {first} and {second}.",
        "created": "2021-03-04T05:06:07",
        "license": _LICENCES[number % 3],
        "gen_ai_preference": PREFERENCES[number // 10 % 4],
        "type": "wav",
        "channels": 2,
        "filesize": 100_000 + number,
        "bitrate": 1411,
        "bitdepth": 16,
        "duration": 2.0 + number % 3,
        "samplerate": 44100.0,
        "username": f"user{number % 7}",
        "previews": {
            "preview-hq-mp3": f"{address}-hq.mp3",
            "preview-hq-ogg": f"{address}-hq.ogg",
            "preview-lq-mp3": f"{address}-lq.mp3",
            "preview-lq-ogg": f"{address}-lq.ogg",
        },
        "num_downloads": number * 13 % 500,
        "avg_rating": (number * 7 % 50) / 10,
        "num_ratings": number % 9,
        "num_comments": number % 4,
    }


def answer(exchange: Exchange, cache: Path) -> None:
    """``/apiv2/…`` and ``/data/previews/…``."""
    if exchange.path.startswith("/data/previews/"):
        name, _, ending = exchange.path.rpartition("/")[2].partition(".")
        path = media.sound(cache, int(name.partition("-")[0]), ending)
        exchange.send_file(path, "audio/mpeg" if ending == "mp3" else "audio/ogg")
        return
    given = exchange.query.get("token") or exchange.headers.get("authorization", "").removeprefix("Token ")
    if given != TOKEN:
        _json(exchange, 401, {"detail": "Invalid token."})
    elif exchange.path == "/apiv2/search/text/":
        # The documentation of November 2025: deprecated, and redirected.
        exchange.send(301, "", Location=exchange.target.replace("/search/text/", "/search/"))
    elif exchange.path == "/apiv2/search/":
        _search(exchange)
    elif exchange.path.startswith("/apiv2/sounds/") and exchange.path.split("/")[3].isdigit():
        _one(exchange, int(exchange.path.split("/")[3]))
    else:
        _json(exchange, 404, {"detail": "Not found."})


def _one(exchange: Exchange, number: int) -> None:
    if 0 < number <= COUNT:
        _json(exchange, 200, sound(number, exchange.base))
    else:
        _json(exchange, 404, {"detail": "Not found."})


def _search(exchange: Exchange) -> None:
    given = exchange.query.get("query", "").lower().split()
    words = [word.lstrip("+") for word in given if not word.startswith("-")]
    prohibited = [word[1:] for word in given if word.startswith("-")]
    page, size = int(exchange.query.get("page", "1")), min(int(exchange.query.get("page_size", "15")), 150)
    found = [sound(number, exchange.base) for number in range(1, COUNT + 1)]
    try:
        found = [one for one in found if passes(one, exchange.query.get("filter", ""))]
    except ValueError as error:
        _json(exchange, 400, {"detail": str(error)})
        return
    texts = {one["id"]: f"{one['name']} {' '.join(one['tags'])} {one['description']}".lower() for one in found}
    found = [one for one in found if all(word in texts[one["id"]] for word in words)]
    found = [one for one in found if not any(word in texts[one["id"]] for word in prohibited)]
    pages = max(1, -(-len(found) // size))
    if not 1 <= page <= pages:
        _json(exchange, 404, {"detail": "Invalid page."})
        return
    fields = exchange.query.get("fields", "id,name,tags,license,username").split(",")
    shown = [{name: one[name] for name in fields if name in one} for one in found[(page - 1) * size : page * size]]
    _json(
        exchange, 200,
        {
            "count": len(found),
            "previous": _page(exchange, page - 1) if page > 1 else None,
            "next": _page(exchange, page + 1) if page < pages else None,
            "results": shown,
        },
    )  # fmt: skip


def passes(sound: dict[str, Any], text: str) -> bool:
    """Whether a sound passes ``name:[1 TO *] name:"value" name:("a" OR "b")``; raises `ValueError` for anything else."""
    rest = text
    is_passed = True
    while rest:
        match = _FILTER.match(rest)
        if match is None or match[1] not in _FILTERS:
            raise ValueError(f"Invalid filter at {rest!r}.")
        value = sound[_FILTERS[match[1]]]
        if match[3] is not None:
            least, most = (None if end == "*" else float(end) for end in match.group(3, 4))
            is_passed &= (least is None or value >= least) and (most is None or value <= most)
        else:
            wanted = {word.strip(' "') for word in (match[5] or match[6] or match[7]).split(" OR ")}
            values = value if isinstance(value, list) else [_NAMES_OF_LICENCES.get(value, str(value))]
            is_passed &= bool({word.lower() for word in wanted} & {word.lower() for word in values})
        rest = rest[match.end() :]
    return is_passed


def _page(exchange: Exchange, page: int) -> str:
    """The documented addresses of other pages carry no token."""
    query = {name: value for name, value in exchange.query.items() if name != "token"} | {"page": str(page)}
    return f"{exchange.base}{exchange.path}?{urlencode(query)}"


def _json(exchange: Exchange, status: int, value: Any) -> None:
    import json

    exchange.send(status, json.dumps(value), "application/json")
