"""Which lines of FFmpeg's log are its own words: what a file's author wrote is logged too, and may imitate any line.

With colours forced, FFmpeg begins each line of its own with an escape sequence, and it replaces every escape character
in a text that it logs. A line without one is the author's, or belongs to the dump of metadata that has no colour.
"""

from __future__ import annotations

import re

ENVIRONMENT = {"AV_LOG_FORCE_COLOR": "1"}

_OWN = re.compile(rb"(?:\x1b\[0m)*\x1b\[(?!0m)[0-9;]+m")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")

_COMPONENT = rb"^\[\S+ @ 0x[0-9a-f]+\] \[(?:error|warning)\] "

CUT_SHORT = (
    _COMPONENT + rb"stream \d+, offset 0x[0-9a-f]+: partial file",
    _COMPONENT + rb"File ended prematurely",
)
"""Marks of what demuxers log when a file ends before its own index or its own sizes say it should."""


def plain(line: bytes) -> bytes:
    """The line without colours; one that FFmpeg did not begin itself is indented, so no ``^\\[`` matches it."""
    text = _COLOUR.sub(b"", line)
    return text if _OWN.match(line) or not text else b" " + text


def says(log: str, pattern: str) -> re.Match[str] | None:
    """The first line that FFmpeg itself logged as an error and whose text, from its beginning, matches ``pattern``."""
    return re.search(rf"^(?:\[\S+ @ 0x[0-9a-f]+\] )*\[(?:error|fatal)\] {pattern}", log, re.M)
