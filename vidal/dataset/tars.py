"""Deterministic USTAR archives, with the offset of every member.

The bytes depend only on the members and their order: the times are 0, owner and mode are fixed.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

from vidal.clip import MemberRecord

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""Keys become file names when a tar is unpacked, and USTAR limits a name with its suffix to 100 characters."""

BEFORE_SUFFIX = r"^(?:.*/)?[^.]*\."
"""Matches folder and key of a member's name; the suffix starts after the first dot of the base name."""

_SUFFIX_PATTERN = re.compile(r"[a-z0-9]+(\.[a-z0-9]+){0,3}")


class TarWriter:
    """Appends members to the tar of a layer and shard."""

    def __init__(self, handle: BinaryIO, layer: str) -> None:
        # A USTAR header is one block; PAX and GNU would put further ones before a member with a long name.
        self._tar = tarfile.open(fileobj=handle, mode="w:", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._layer = layer
        self._names: set[str] = set()

    def add(self, key: str, suffix: str, data: bytes) -> MemberRecord:
        """Append ``<key>.<suffix>``; raises `ValueError` for a name that is unsafe or already in the tar."""
        name = f"{key}.{suffix}"
        if not KEY_PATTERN.fullmatch(key) or not _SUFFIX_PATTERN.fullmatch(suffix):
            raise ValueError(f"{name!r} is not a member name")
        if name in self._names:
            raise ValueError(f"{name!r} is already in the tar")
        self._names.add(name)
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(header, io.BytesIO(data))
        # It would keep a header of every member in memory.
        self._tar.getmembers().clear()
        return MemberRecord(
            layer=self._layer, name=name, offset=offset, size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    def close(self) -> None:
        """Write the end of the archive, two zero blocks padded to a record; the handle stays open."""
        self._tar.close()


def suffix_of(name: str) -> str:
    """Return ``frame.0.jpg`` for ``KEY.frame.0.jpg``."""
    return re.sub(BEFORE_SUFFIX, "", name)


def member_order(suffixes: Iterable[str]) -> list[str]:
    """Return suffixes in the order of members within a key: media first, images by number, ``json`` last."""

    def rank(suffix: str) -> tuple[bool, list[tuple[bool, int, str]]]:
        parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in suffix.split(".")]
        return (suffix == "json", [(False, 0, ""), *parts] if suffix == "mp4" else parts)

    return sorted(suffixes, key=rank)
