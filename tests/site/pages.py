"""Pages with players in them, in the ways that pages have, and pages that mean harm."""

from __future__ import annotations

import html
import json

HOSTILE_TITLES = (
    "../../etc/passwd", "..\\..\\windows\\system32", "/absolute/path", "~/.ssh/authorized_keys", "$(touch pwned)",
    "`touch pwned`", "; rm -rf x", "| touch pwned", "&& touch pwned", "-o pwned", "--exec touch pwned",
    "%(id)s.%(ext)s", "%(title)s/../../x", "%s%s%s%n", "{0.__class__}", "nul\0byte", "line\nbreak", "tab\tand\rreturn",
    "\u202egpj.exe", "\u200bzero\u200bwidth", "a" * 5000, "é" * 300, "\U0001f3ac" * 200, "con", "NUL.mp4", "aux",
    "file:///etc/passwd", "http://127.0.0.1/", "....//....//x", "%2e%2e%2fx", ".", "..", "", " ", "*", "?", "<b>bold</b>",
    "'; DROP TABLE clips; --", "\"quoted\"", "\ufeffbom", "\ufffd\ufffe", "Привет мир", "ที่นี่", "#!/bin/sh",
)  # fmt: skip


def with_video(title: str, source: str) -> str:
    return _page(title, f'<video controls src="{html.escape(source)}"></video>')


def with_tracks(title: str, source: str, tracks: dict[str, str], image: str) -> str:
    subtitles = "".join(
        f'<track kind="subtitles" srclang="{html.escape(language)}" src="{html.escape(url)}">'
        for language, url in tracks.items()
    )
    return _page(title, f'<video poster="{html.escape(image)}" src="{html.escape(source)}">{subtitles}</video>')


def with_meta(title: str, source: str, name: str, content: str) -> str:
    head = f'<meta name="{html.escape(name)}" content="{html.escape(content)}">'
    return _page(title, f'<video controls src="{html.escape(source)}"></video>', head)


def with_open_graph(title: str, source: str) -> str:
    head = f'<meta property="og:title" content="{html.escape(title)}"><meta property="og:type" content="video.other">'
    head += (
        f'<meta property="og:video" content="{html.escape(source)}"><meta property="og:video:type" content="video/mp4">'
    )
    return _page(title, "<p>A player made by a script.</p>", head)


def with_json_ld(title: str, source: str) -> str:
    about = {
        "@context": "https://schema.org", "@type": "VideoObject", "name": title, "description": "Told by #JSON-LD",
        "contentUrl": source, "uploadDate": "2026-01-31T12:00:00Z", "duration": "PT9S", "author": "A. Uthor",
        "interactionStatistic": {
            "@type": "InteractionCounter", "interactionType": "http://schema.org/WatchAction", "userInteractionCount": 41,
        },
    }  # fmt: skip
    text = json.dumps(about).replace("</", "<\\/")
    return _page(title, "<p>A player made by a script.</p>", f'<script type="application/ld+json">{text}</script>')


def with_playlist(title: str, sources: list[str]) -> str:
    players = "".join(f'<video src="{html.escape(source)}"></video>' for source in sources)
    return _page(title, players)


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>{head}</head>'
        f"<body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )
