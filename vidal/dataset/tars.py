"""Deterministic USTAR archives, and the place of every member in them.

The bytes are a function of the members alone: time 0, fixed owner and mode, the order of the calls.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

from vidal.clip import MemberRecord

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""Keys become file names wherever a tar is unpacked, and USTAR holds 100 characters with the suffix."""

BEFORE_SUFFIX = r"^(?:.*/)?[^.]*\."
"""Folder and key of a member's name: what is behind the first dot of its last part is the suffix."""

_SUFFIX_PATTERN = re.compile(r"[a-z0-9]+(\.[a-z0-9]+){0,3}")
_HEADER_BYTES = 512


class TarWriter:
    """Appends members to one layer's tar of one shard."""

    def __init__(self, handle: BinaryIO, layer: str) -> None:
        self._handle = handle
        self._layer = layer
        self._position = 0
        self._names: set[str] = set()

    def add(self, key: str, suffix: str, data: bytes) -> MemberRecord:
        """Append ``<key>.<suffix>``; refuses names that are unsafe or already there."""
        name = f"{key}.{suffix}"
        if not KEY_PATTERN.fullmatch(key) or not _SUFFIX_PATTERN.fullmatch(suffix):
            raise ValueError(f"{name!r} is not a member name")
        if name in self._names:
            raise ValueError(f"{name!r} is already in the tar")
        self._names.add(name)
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        offset = self._position + _HEADER_BYTES
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return MemberRecord(
            layer=self._layer, name=name, offset=offset, size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    def close(self) -> None:
        """Write the end of the archive, two empty blocks filled up to a record; the handle stays open."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._position % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self._handle.write(data)
        self._position += len(data)


def suffix_of(name: str) -> str:
    """``frame.0.jpg`` of ``KEY.frame.0.jpg``."""
    return re.sub(BEFORE_SUFFIX, "", name)


def member_order(suffixes: Iterable[str]) -> list[str]:
    """Media first, numbered pictures by number, ``json`` last: the order of members within a key."""

    def rank(suffix: str) -> tuple[bool, list[tuple[bool, int, str]]]:
        parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in suffix.split(".")]
        return (suffix == "json", [(False, 0, ""), *parts] if suffix == "mp4" else parts)

    return sorted(suffixes, key=rank)
