"""Which of YouTube's clients the installed yt-dlp asks, and what their formats need, as its own tables have it."""

from __future__ import annotations

from collections.abc import Sequence


def clients_line(asked: Sequence[str], *, has_cookies: bool, has_javascript: bool) -> str:
    """Return the clients by name with what their formats need: ``guest: tv (JavaScript), web (JavaScript, PO token)``.

    ``asked`` are the values of yt-dlp's ``player_client``. Cookies count as those of somebody signed in to YouTube,
    without Premium; yt-dlp looks at what they are when it asks.
    """
    # Here, as the extractor takes a while to import.
    from yt_dlp.extractor.youtube import YoutubeIE
    from yt_dlp.extractor.youtube._base import INNERTUBE_CLIENTS

    guest = YoutubeIE._DEFAULT_CLIENTS if has_javascript else YoutubeIE._DEFAULT_JSLESS_CLIENTS
    default = YoutubeIE._DEFAULT_AUTHED_CLIENTS if has_cookies else guest
    # Those that yt-dlp lets a user name, in its order of preference.
    public = sorted((n for n in INNERTUBE_CLIENTS if n[0] != "_"), key=lambda n: -INNERTUBE_CLIENTS[n]["priority"])
    groups = {"default": default, "all": public, **{name: [name] for name in public}}
    chosen = [name for value in asked for name in groups.get(value, [])] or default
    described = []
    for name in dict.fromkeys(chosen):
        client = INNERTUBE_CLIENTS[name]
        if f"-{name}" in asked or (has_cookies and not client["SUPPORTS_COOKIES"]):
            continue
        needs = ["JavaScript"] if client["REQUIRE_JS_PLAYER"] else []
        policies = client["GVS_PO_TOKEN_POLICY"]
        protocols = [protocol.value for protocol, policy in policies.items() if policy.required]
        needs += [f"PO token for {'/'.join(protocols)}"] if protocols else []
        described.append(f"{name} ({', '.join(needs) or 'needs nothing'})")
    return f"{'signed in' if has_cookies else 'guest'}: {', '.join(described) or 'no client is left to ask'}"
