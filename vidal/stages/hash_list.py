"""A filter by lists of hashes that the user brings, such as those of material that nobody may have."""

from __future__ import annotations

import hashlib
import re
from array import array
from itertools import accumulate
from math import comb
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, field_validator

from vidal.clip import Clip
from vidal.errors import SourceError
from vidal.stage import Stage

_HASH = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{16}")
_BLOCK = 1 << 14
"""Hashes that are compared at once: with those of 8 frames, 1 MB, which a processor's cache holds."""

Words = npt.NDArray[np.uint64]


class HashList(Stage):
    """Rejects clips whose file or any stored frame is on a list of hashes, and stores no thumbnail of them.

    A line of a list is a SHA-256 of a source file (64 hex digits) or a perceptual hash of a frame (16), as the stage
    ``fingerprints`` and ``phash`` of the ``imagehash`` package compute it; blank lines and those that begin with ``#``
    are skipped. The stage stands anywhere behind ``fetch`` if its lists have SHA-256s alone, and behind
    ``fingerprints`` otherwise, before any other filter, which would leave a thumbnail. Frames without information
    (black, flat) match nothing. In a revision (``vidal add``, ``vidal refilter``) a rejected clip keeps its media;
    ``vidal remove`` takes them out.

    PDQ hashes have 64 digits, too, and are no SHA-256: they match nothing. A chance match becomes likely in long lists:
    of a million unrelated hashes, one is within 10 bits of one of a clip's 8 frames for about every sixth clip, within
    8 bits for 6 clips in 1,000, and within 6 bits for 1 in 10,000. So ``max_bits`` follows the length of the lists by
    default: 10 up to 5,400 hashes, 8 up to 173,000, 6 up to 9 million, which leaves at most 1 clip in 1,000 to chance.
    """

    reads = ("source_sha256", "frame_hash")
    not_fingerprinted: ClassVar[tuple[str, ...]] = ("files",)
    keeps_thumbnail: ClassVar[bool] = False

    files: list[str] = Field(min_length=1)
    """Text files of hashes; their content and names count, not their folders."""
    max_bits: int | None = Field(None, ge=0, le=24)
    """Largest number of bits, of 64, in which a frame's hash may differ from a listed one to match it; by default that
    which so many hashes allow."""

    _lists: Any = PrivateAttr(None)
    _limit: int = PrivateAttr(0)

    @field_validator("files")
    @classmethod
    def _distinct(cls, files: list[str]) -> list[str]:
        # A row names a list without its folder, which differs from machine to machine.
        if len({Path(file).name for file in files}) < len(files):
            raise ValueError("two lists have the same name; rename one of them")
        return files

    def identity(self) -> dict[str, Any]:
        """Identify lists by name and content, not by location."""
        lists = [[Path(file).name, hashlib.sha256(_read(file)).hexdigest()] for file in self.files]
        return {**super().identity(), "lists": lists}

    def requires(self) -> tuple[str, ...]:
        lists = HashLists(self.files)
        of_kinds = {"source_sha256": len(lists.sha256), "frame_hash": len(lists.frames)}
        return tuple(name for name, count in of_kinds.items() if count)

    def setup(self) -> None:
        self._lists = HashLists(self.files)
        self._limit = safe_bits(len(self._lists.frames)) if self.max_bits is None else self.max_bits

    def process(self, clip: Clip) -> None:
        if clip.source_sha256 and (place := self._lists.place_of_file(clip.source_sha256)):
            clip.reject("listed", f"file: {place}")
        elif clip.frame_hash and (found := self._lists.nearest(clip.frame_hash)) and found[0] <= self._limit:
            bits, frame, place = found
            detail = f"frame {frame}: {bits} bits from {place}"
            clip.reject("listed", detail, value=float(bits), limit=float(self._limit))


def safe_bits(hashes: int) -> int:
    """Return the most bits, 10 at most, within which so many unrelated hashes match at most 1 clip in 1,000 by chance.

    Half of a pHash's 64 bits are set: two unrelated ones differ in ``2 * n`` bits with the chance
    ``comb(32, n) ** 2 / comb(64, 32)``. A clip is taken to have 8 frames.
    """
    within = list(accumulate(comb(32, n) ** 2 / comb(64, 32) for n in range(6)))
    return max((2 * n for n, chance in enumerate(within) if 8 * hashes * chance <= 1e-3), default=0)


class HashLists:
    """The hashes of several files, by kind, each with its place."""

    def __init__(self, files: list[str]) -> None:
        """Read the files; raises `SourceError` for one that cannot be read, a line that is no hash, and no hash."""
        self._files = files
        raw: dict[int, tuple[bytearray, array[int]]] = {size: (bytearray(), array("q")) for size in (8, 32)}
        for number, file in enumerate(files):
            before = sum(len(places) for _, places in raw.values())
            for line, text in enumerate(_read(file).decode("utf-8-sig", "replace").splitlines(), 1):
                if not (text := text.strip()) or text.startswith("#"):
                    continue
                if not _HASH.fullmatch(text):
                    # Not quoted: a log is no place for what such a list may hold.
                    raise SourceError(
                        f"{file}: line {line} is no hash; write the 64 hex digits of a file's SHA-256 or the 16 of a "
                        "frame's perceptual hash, one a line"
                    )
                digits = bytes.fromhex(text)
                hashes, places = raw[len(digits)]
                hashes += digits
                # Line and file in one integer, as a list may have millions of lines.
                places.append(line * len(files) + number)
            if sum(len(places) for _, places in raw.values()) == before:
                raise SourceError(f"{file}: no line of it is a hash; an empty list would let everything pass")
        self.sha256: Words = np.frombuffer(bytes(raw[32][0]), ">u8").astype(np.uint64).reshape(-1, 4)
        self.frames: Words = np.frombuffer(bytes(raw[8][0]), ">u8").astype(np.uint64)
        self._sha256_places, self._frame_places = (np.array(raw[size][1], np.int64) for size in (32, 8))
        order = np.argsort(self.sha256[:, 0], kind="stable")
        self.sha256, self._sha256_places = self.sha256[order], self._sha256_places[order]
        # That of no information, which would match every black frame.
        informative = self.frames != 0
        self.frames, self._frame_places = self.frames[informative], self._frame_places[informative]

    def place_of_file(self, sha256: str) -> str | None:
        """Return the list and line of a file's SHA-256; None for one that is not listed."""
        words = np.frombuffer(bytes.fromhex(sha256), ">u8").astype(np.uint64)
        # By the first 64 bits, which hardly two files share; where two do, the rest decides.
        first, last = (np.searchsorted(self.sha256[:, 0], words[0], side) for side in ("left", "right"))
        same = np.flatnonzero((self.sha256[first:last] == words).all(axis=1))
        return self._place(self._sha256_places[first + same[0]]) if len(same) else None

    def nearest(self, frame_hash: str) -> tuple[int, int, str] | None:
        """Return the fewest bits between a frame and a listed hash, the frame's number and the list and line."""
        own = np.frombuffer(bytes.fromhex(frame_hash), ">u8").astype(np.uint64)
        numbers = np.flatnonzero(own)
        best: tuple[int, int, int] | None = None
        for begin in range(0, len(self.frames), _BLOCK) if len(numbers) else ():
            bits = np.bitwise_count(own[numbers, None] ^ self.frames[begin : begin + _BLOCK])
            frame, column = np.unravel_index(bits.argmin(), bits.shape)
            if best is None or bits[frame, column] < best[0]:
                best = int(bits[frame, column]), int(numbers[frame]), begin + int(column)
        return best and (best[0], best[1], self._place(self._frame_places[best[2]]))

    def _place(self, packed: int) -> str:
        line, number = divmod(int(packed), len(self._files))
        return f"{Path(self._files[number]).name}, line {line}"


def _read(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise SourceError(f"{file}: cannot be read as a list of hashes: {error.strerror}") from None
