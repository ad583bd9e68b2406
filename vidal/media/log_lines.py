"""Tells FFmpeg's own log messages from logged metadata, with which the author of a file can imitate any message.

With colours forced, FFmpeg starts each of its own lines with an escape sequence, and replaces every escape character in
the text that it logs. A line without an escape sequence is text of the author or part of the metadata dump.
"""

from __future__ import annotations

import re

ENVIRONMENT = {"AV_LOG_FORCE_COLOR": "1"}

# FFmpeg writes the reset of a line's colour behind its line end, so that it begins the next line.
_OWN = re.compile(rb"(?:\x1b\[0m)*\x1b\[(?!0m)[0-9;]+m")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")

_COMPONENT = rb"^\[\S+ @ 0x[0-9a-f]+\] \[(?:error|warning)\] "

CUT_SHORT = (_COMPONENT + rb"stream \d+, offset 0x[0-9a-f]+: partial file", _COMPONENT + rb"File ended prematurely")
"""Patterns of the messages that demuxers log for a file that ends before its index or sizes say it should."""

DEMUXER_ERROR = rb"^\[in#0\S* @ 0x[0-9a-f]+\] \[(?:error|fatal)\] "


def plain(line: bytes) -> bytes:
    """Return the line without colours; a line that is not FFmpeg's own is indented, so that ``^\\[`` never matches."""
    text = _COLOUR.sub(b"", line)
    return text if _OWN.match(line) or not text else b" " + text


def find_error(log: str, pattern: str) -> re.Match[str] | None:
    """Return the first of FFmpeg's own error messages whose beginning matches ``pattern``, or None."""
    return re.search(rf"^(?:\[\S+ @ 0x[0-9a-f]+\] )*\[(?:error|fatal)\] {pattern}", log, re.M)
