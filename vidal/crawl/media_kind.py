"""Tells the format of a file from its first bytes, and whether it ends before its container says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

HEAD_BYTES = 1024

MEDIA = frozenset((
    "mp4", "matroska", "avi", "wav", "flv", "mpegts", "mpegps", "ogg", "flac", "mp3", "aac", "asf", "aiff", "amr",
    "caf", "ac3", "realmedia", "mxf",
))  # fmt: skip
IMAGES = frozenset(["jpeg", "png", "gif", "webp", "avif", "heic", "bmp", "tiff"])

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "matroska"), (b"FLV\x01", "flv"), (b"OggS", "ogg"), (b"fLaC", "flac"), (b"ID3", "mp3"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"), (b"\x00\x00\x01\xba", "mpegps"), (b"\x00\x00\x01\xb3", "mpegps"),
    (b"#!AMR", "amr"), (b"caff", "caf"), (b"\x0b\x77", "ac3"), (b".RMF", "realmedia"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"), (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\x00", "tiff"), (b"MM\x00*", "tiff"), (b"#EXTM3U", "playlist"),
    (b"%PDF", "pdf"), (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"),
)  # fmt: skip
_RIFF = {b"AVI ": "avi", b"WAVE": "wav", b"WEBP": "webp"}
# Files of QuickTime's early days have no `ftyp`, and begin with any of these boxes.
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot", b"styp")
_IMAGE_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}
_TEXTS = (
    (re.compile(rb"<!doctype html|<html|<head|<body|<script|<title", re.I), "html"),
    (re.compile(rb"^\s*<\?xml|^\s*<MPD", re.I), "xml"),
    (re.compile(rb"^\s*[\[{]"), "json"),
)


def kind_of(head: bytes) -> str:
    """The format of a file by its first bytes: a container, an image format, or a word such as ``html`` or ``empty``.

    ``head`` is the first `HEAD_BYTES` bytes. Bytes that show nothing are ``unknown``.
    """
    if not head:
        return "empty"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12], "unknown")
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return "aiff"
    if _is_utf16(head):
        return "text"
    if head[4:8] in _QUICKTIME and not _is_plain(head):
        return _IMAGE_BRANDS.get(head[8:12], "mp4") if head[4:8] == b"ftyp" else "mp4"
    if _is_transport_stream(head):
        return "mpegts"
    return _mpeg_audio(head) or _text(head) or "unknown"


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes, or of 192 with a time stamp before each."""
    return any(
        len(head) > offset + 2 * size and all(head[offset + n * size] == 0x47 for n in range(3))
        for offset, size in ((0, 188), (4, 192))
    )


def _mpeg_audio(head: bytes) -> str | None:
    if len(head) < 4 or head[0] != 0xFF:
        return None
    # ADTS: its sync word, and layer 0, which no MPEG audio has.
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    # A frame whose version, layer, bit rate and sample rate are none of the values that the standard reserves.
    is_frame = head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[1] & 0x06 and head[2] & 0xF0 != 0xF0
    return "mp3" if is_frame and head[2] & 0x0C != 0x0C else None


def _text(head: bytes) -> str | None:
    for pattern, kind in _TEXTS:
        if pattern.search(head):
            return kind
    return "text" if _is_plain(head) else None


def _is_plain(head: bytes) -> bool:
    """Whether every byte can be one of a text, whose second word may be ``free``, like the name of a box."""
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)


def _is_utf16(head: bytes) -> bool:
    """Whether it is UTF-16 text; its byte order mark looks like the start of an MPEG frame."""
    if head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return False
    try:
        text = head[: len(head) // 2 * 2].decode("utf-16")
    except UnicodeDecodeError as error:
        # A surrogate pair may be cut at the end of the head.
        return error.start >= len(head) - 4
    return _is_plain(text.encode())


def is_cut_off(path: Path) -> bool | None:
    """Whether the container announces more bytes than the file has; None where it does not say."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind = kind_of(file.read(HEAD_BYTES))
        file.seek(0)
        if kind == "mp4":
            return _mp4_is_cut_off(file, size)
        if kind == "matroska":
            return _matroska_is_cut_off(file, size)
        if kind in ("avi", "wav"):
            head = file.read(8)
            stated = int.from_bytes(head[4:8], "little")
            # Both are left by encoders that could not seek back to fill it in; a last pad byte is often missing.
            return None if stated in (0, 0xFFFFFFFF) else stated + 8 > size + 1
        if kind == "ogg":
            return _ogg_is_cut_off(file, size)
        return None


def _mp4_is_cut_off(file: IO[bytes], size: int) -> bool:
    """Whether the top-level boxes end after the file does, or lack the index (``moov``)."""
    position, names = 0, set()
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return True
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        names.add(name)
        # 1: the length follows, in 64 bits; 0: the box goes on to the end of the file.
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            # Trailing garbage is common and does not mean that anything is missing.
            return b"moov" not in names
        position += length
    return position > size or b"moov" not in names


def _matroska_is_cut_off(file: IO[bytes], size: int) -> bool | None:
    """Reads the header and then one segment, whose length may be unknown in a live recording."""
    position = 0
    # Bounded: a stranger's file may hold small elements without end.
    for _ in range(8):
        file.seek(position)
        head = file.read(12)
        if len(head) < 2:
            return True
        # In EBML the zero bits before the first one tell how many bytes an identifier or a length has.
        id_length = 9 - head[0].bit_length()
        rest = head[id_length:]
        if id_length > 4 or not rest or not rest[0]:
            return None
        length_length = 9 - rest[0].bit_length()
        value = int.from_bytes(rest[:length_length], "big") & ((1 << 7 * length_length) - 1)
        if value == (1 << 7 * length_length) - 1:
            return None
        position += id_length + length_length + value
        if head[:4] == b"\x18\x53\x80\x67":
            return position > size
    return None


def _ogg_is_cut_off(file: IO[bytes], size: int) -> bool | None:
    """Whether the last page ends after the file does, or its last packet after the page.

    A whole page without the end-of-stream flag says nothing (None): recorders of streams leave it out, and RFC 3533
    tells no other end.
    """
    # A page of Ogg has at most 65,307 bytes.
    file.seek(max(0, size - 65536))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return True
    segments = tail[start + 26]
    table = tail[start + 27 : start + 27 + segments]
    end = start + 27 + segments + sum(table)
    if len(table) < segments or end > len(tail):
        return True
    if tail[start + 5] & 4:
        return False
    # A packet goes on after a segment of 255 bytes; the rest may be the start of one more page.
    is_cut = table[-1:] == b"\xff" or (end < len(tail) and b"OggS".startswith(tail[end:]))
    return True if is_cut else None
