"""Reads the body of a page: bounded in bytes and time, decompressed, checked against its announced length."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Callable, Iterator

from vidal.crawl.connection import Page
from vidal.crawl.reasons import FetchError

_CHUNK_BYTES = 256 * 1024


def read_body(page: Page, max_bytes: int, *, timeout_s: Callable[[], float], may_cut: bool = False) -> Iterator[bytes]:
    """The decoded chunks of a body, never more than ``max_bytes`` before or after decoding.

    ``timeout_s`` is called before each read and may raise. A longer body raises `FetchError` ``too_large``, or ends
    early where it ``may_cut``; one that is shorter than announced raises ``truncated``.
    """
    expected = page.length()
    if expected is not None and expected > max_bytes and not may_cut:
        page.drop()
        detail = f"{expected} bytes are announced, {max_bytes} are allowed"
        raise FetchError("too_large", detail, status=page.status)
    decoder, received = _Decoder(page.header("Content-Encoding"), max_bytes), 0
    try:
        while expected is None or received < expected:
            left_s = timeout_s()
            if page.connection.sock is not None:
                page.connection.sock.settimeout(left_s)
            try:
                chunk = page.response.read1(
                    _CHUNK_BYTES if expected is None else min(_CHUNK_BYTES, expected - received)
                )
            except http.client.IncompleteRead:
                detail = f"{received} bytes came, more were announced"
                raise FetchError("truncated", detail, status=page.status) from None
            if not chunk:
                break
            received += len(chunk)
            if received > max_bytes:
                if may_cut:
                    page.drop()
                    return
                raise FetchError("too_large", f"more than {max_bytes} bytes", status=page.status)
            yield from decoder.feed(chunk)
        if expected is not None and received < expected:
            raise FetchError("truncated", f"{received} of {expected} bytes came", status=page.status)
        decoder.finish()
        page.response.close()
    except BaseException:
        page.drop()
        raise


class _Decoder:
    """Decompresses, up to a number of bytes, what a server compressed although ``identity`` was asked for."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._left = max_bytes
        self._inflate = None
        encoding = encoding.strip().lower()
        self._window_bits = zlib.MAX_WBITS | (16 if "gzip" in encoding else 0)
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(self._window_bits)
        elif encoding not in ("", "identity"):
            raise FetchError("not_media", f"sent as {encoding[:40]!r}, which was not asked for")

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            yield data
            return
        while data:
            if self._inflate.eof:
                # A gzip body may be several members one after the other, with zeros after the last.
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._inflate = zlib.decompressobj(self._window_bits)
            try:
                plain = self._inflate.decompress(data, _CHUNK_BYTES)
            except zlib.error:
                raise FetchError("truncated", "the compressed body is damaged") from None
            self._left -= len(plain)
            if self._left < 0:
                raise FetchError("too_large", "more bytes than allowed once unpacked")
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if plain:
                yield plain
            elif not data:
                return

    def finish(self) -> None:
        """Raise ``truncated`` where the compressed data has not ended with the body."""
        if self._inflate is not None and not self._inflate.eof:
            raise FetchError("truncated", "the compressed body ends early")
