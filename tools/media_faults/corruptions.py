"""Seeded ways to corrupt the bytes of a media file."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from vidal.media import checksums

_BOXES_OF_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf")
_LENGTHS = {b"mvhd": 16, b"mdhd": 16, b"tkhd": 20, b"stts": 12}
"""Boxes that state durations, and the offset of the duration in their content."""
_SEGMENT, _INFO, _DURATION, _CLUSTER = 0x18538067, 0x1549A966, 0x4489, 0x1F43B675
_IS_MASTER = (_SEGMENT, _INFO, _CLUSTER, 0x1654AE6B, 0xAE, 0xE0, 0x1C53BB6B, 0xBB, 0xB7, 0xA0)

Part = tuple[bytes | int, int, int, int]
"""Name, begin, content and end of a box or an element."""
Corruption = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, dice: random.Random) -> None:
    """Flip bits anywhere."""
    for _ in range(dice.choice((1, 3, 30))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def flip_payload(data: bytearray, dice: random.Random) -> None:
    """Flip bits of packets."""
    begin, end = _packets(data)
    for _ in range(dice.choice((1, 1, 3))):
        data[dice.randrange(begin, end)] ^= 1 << dice.randrange(8)


def zero(data: bytearray, dice: random.Random) -> None:
    """Zero a run of bytes."""
    start = dice.randrange(len(data))
    length = dice.choice((16, 400, 4000))
    data[start : start + length] = bytes(len(data[start : start + length]))


def swap(data: bytearray, dice: random.Random) -> None:
    """Swap two blocks."""
    size = dice.choice((64, 512, 4096))
    one, other = sorted(size * k for k in dice.sample(range(len(data) // size), 2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def cut_head(data: bytearray, dice: random.Random) -> None:
    """Lose the beginning."""
    del data[: dice.choice((1, 40, dice.randrange(1, len(data))))]


def cut_middle(data: bytearray, dice: random.Random) -> None:
    """Lose a piece of the packets."""
    begin, end = _packets(data)
    start = dice.randrange(begin, end)
    del data[start : min(end, start + dice.choice((1, 100, 4000)))]


def cut_tail(data: bytearray, dice: random.Random) -> None:
    """Lose the end."""
    del data[-dice.choice((1, 40, dice.randrange(1, len(data)))) :]


def break_index(data: bytearray, dice: random.Random) -> None:
    """Overwrite bytes of the header or of the index."""
    begin, end = _packets(data)
    places = [k for k in range(32, len(data)) if not begin <= k < end]
    start = dice.choice(places[:-8])
    data[start : start + 8] = dice.randbytes(8)


def state_other_duration(data: bytearray, dice: random.Random) -> None:
    """State another duration, for the file, a track or each frame."""
    if data[4:8] == b"ftyp":
        *_, content, _ = part = dice.choice([part for part in parts(data) if part[0] in _LENGTHS])
        at = content + _LENGTHS[bytes(part[0])]
        (length,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, min(0xFFFFFFFF, int(length * dice.choice((0, 0.3, 3, 1000)))))
    else:
        at = next(content for name, _, content, _ in parts(data) if name == _DURATION)
        (length_ms,) = struct.unpack_from(">d", data, at)
        struct.pack_into(">d", data, at, length_ms * dice.choice((0, 0.3, 3, 1000)))


def resize(data: bytearray, dice: random.Random) -> None:
    """Change the stated size of a box or an element."""
    _, begin, content, end = dice.choice(list(parts(data)))
    if data[4:8] == b"ftyp":
        size = max(0, end - begin + dice.choice((-8, -1, 1, 8, 4000, -(end - begin))))
        struct.pack_into(">I", data, begin, size)
    else:
        data[content - 1] = (data[content - 1] + dice.choice((-8, -1, 1, 8))) % 256


def parts(data: bytearray) -> Iterator[Part]:
    """Yield all boxes of an MP4 or MOV file, or all elements of a Matroska or WebM file, each before what it holds."""
    return _boxes(data, 0, len(data)) if data[4:8] == b"ftyp" else _elements(data, 0, len(data))


def _boxes(data: bytearray, begin: int, end: int) -> Iterator[Part]:
    while begin + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, begin)
        yield name, begin, begin + 8, begin + size
        if name in _BOXES_OF_BOXES:
            yield from _boxes(data, begin + 8, begin + size)
        begin += size


def _elements(data: bytearray, begin: int, end: int) -> Iterator[Part]:
    for element in checksums.elements(data, begin, end):
        yield element
        if element.id in _IS_MASTER:
            yield from _elements(data, element.content, element.end)


def _packets(data: bytearray) -> tuple[int, int]:
    """Return where the packets begin and end."""
    held = [part for part in parts(data) if part[0] in (b"mdat", _CLUSTER)]
    return held[0][2], held[-1][3]
