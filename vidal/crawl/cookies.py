"""The cookies file of a crawl: read, kept in memory, never written back."""

from __future__ import annotations

import http.cookiejar
import os

_jars: dict[tuple[str, int], http.cookiejar.MozillaCookieJar] = {}
"""By path and time of the last change."""


def read_cookies(path: str) -> http.cookiejar.MozillaCookieJar | None:
    """The cookies of a Netscape cookies file, None without a path; the file is read again when it has changed.

    Raises `OSError` or `http.cookiejar.LoadError` for a file that cannot be read.
    """
    if not path:
        return None
    key = (path, os.stat(path).st_mtime_ns)
    if key not in _jars:
        jar = http.cookiejar.MozillaCookieJar(path)
        jar.load(ignore_discard=True, ignore_expires=True)
        for cookie in jar:
            # Browsers write 0 for a session cookie.
            cookie.expires, cookie.discard = cookie.expires or None, not cookie.expires
        _jars.clear()
        _jars[key] = jar
    return _jars[key]


def cookie_values(path: str) -> tuple[str, ...]:
    """The values of the cookies, which no answer may contain."""
    return tuple(cookie.value for cookie in read_cookies(path) or () if cookie.value)
