"""What an address may begin with: a file of this machine, an object of a store, a page of the web."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "memory")
WEB_SCHEMES = ("http", "https")
ALL_SCHEMES = ("file", *OBJECT_STORES, *WEB_SCHEMES)
"""A ``file`` is a path, too."""


def scheme_of(url: str) -> str:
    """``file`` for a plain path."""
    return match[1].lower() if (match := _ADDRESS.match(url)) else "file"
