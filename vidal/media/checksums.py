"""Verifies the CRC-32 that a Matroska file may hold of each of its parts: FFmpeg writes, but does not check it."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SEGMENT, _CRC32 = 0x18538067, 0xBF
_CRC32_BYTES = 6  # id, size and four bytes of checksum


class Element(NamedTuple):
    """One element of a Matroska file; offsets are in bytes from the start of the file."""

    id: int
    begin: int
    """Offset of the identifier."""
    content: int
    end: int


def failed_checksums(path: Path) -> int:
    """Count the top-level elements (clusters of packets, headers, index) of a Matroska file that fail their CRC-32.

    Elements without one are not counted, nor those behind an element whose size is unknown or exceeds the file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        segment = next((element for element in elements(data, 0, len(data)) if element.id == _SEGMENT), None)
        if segment is None:
            return 0
        return sum(_fails(data, element) for element in elements(data, segment.content, segment.end))


def elements(data: bytes | bytearray | mmap.mmap, begin: int, end: int) -> Iterator[Element]:
    """Yield the elements of one level that lie between two offsets, up to the first that does not fit."""
    while begin + 2 <= end:
        # The zero bits before the first one tell how many bytes an identifier or a size has.
        id_bytes, size_bytes = 9 - data[begin].bit_length(), 0
        if id_bytes <= 4 and begin + id_bytes < end:
            size_bytes = 9 - data[begin + id_bytes].bit_length()
        content = begin + id_bytes + size_bytes
        if not 1 <= size_bytes <= 8 or content > end:
            return
        all_ones = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(data[begin + id_bytes : content], "big") & all_ones
        # All ones is a size that was unknown when the header was written, as in a live stream: up to the end.
        stop = end if size == all_ones else content + size
        if stop > end:
            return
        yield Element(int.from_bytes(data[begin : begin + id_bytes], "big"), begin, content, stop)
        begin = stop


def _fails(data: mmap.mmap, element: Element) -> bool:
    # The checksum is the first child, and covers the others.
    # In it 0x84 is the size: four bytes.
    covered = element.content + _CRC32_BYTES
    if covered > element.end or data[element.content : element.content + 2] != bytes([_CRC32, 0x84]):
        return False
    with memoryview(data) as view:
        return zlib.crc32(view[covered : element.end]) != int.from_bytes(data[covered - 4 : covered], "little")
