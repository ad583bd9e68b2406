"""Responses of hosts: whether a compressed body is whole, how long to wait, what an error stands for."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from urllib3.exceptions import DecodeError, HTTPError, InvalidHeader
from urllib3.response import GzipDecoder, GzipDecoderState, MultiDecoder

from vidal.crawl.reasons import FetchError, chain, from_error

ENCODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
"""What servers send although ``identity`` is asked for, and urllib3 decodes."""


@dataclass(slots=True)
class Page:
    """The response to one request, its body not read yet."""

    response: urllib3.BaseHTTPResponse
    url: str
    hops: int = 0
    """How many redirects led here."""

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        """The values of a header, joined by commas; empty where there is none."""
        return self.response.headers.get(name) or ""

    def limit_s(self, seconds: float) -> None:
        """Set the time limit of the next socket operation."""
        sock = getattr(self.response.connection, "sock", None)
        if sock is not None:
            sock.settimeout(seconds)


def is_cut(decoder: Any) -> bool:
    """Whether a decoder of urllib3's, None for none, was not given all of its data, about which it may be silent.

    Zeros after the data are none.
    """
    if decoder is None:
        return False
    if isinstance(decoder, MultiDecoder):
        return any(map(is_cut, decoder._decoders))
    if isinstance(decoder, GzipDecoder) and decoder._state == GzipDecoderState.SWALLOW_DATA:
        return False
    # Brotli's have the one, all others the other.
    is_finished = getattr(decoder._obj, "is_finished", None)
    return not (is_finished() if is_finished else decoder._obj.eof)


def retry_after_s(header: str, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or as a date; None where it is neither.

    ``now`` is in seconds since the epoch, by default the present.
    """
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return max(0.0, at.timestamp() - (time.time() if now is None else now))


_BY_TYPE: tuple[tuple[type[HTTPError], str], ...] = (
    (DecodeError, "truncated"), (InvalidHeader, "server_error"), (HTTPError, "network"),
)  # fmt: skip


def reason_of(error: BaseException) -> FetchError:
    """The `FetchError` that an error of a direct download stands for; its text is the same in every run."""
    for cause in chain(error):
        if isinstance(cause, FetchError):
            return cause
        if (reason := from_error(cause)) is not None:
            # Without addresses in memory.
            return FetchError(reason, f"{type(cause).__name__}: {re.sub(r'0x[0-9a-f]+', '…', str(cause))}"[:300])
    reason = next((reason for kind, reason in _BY_TYPE if isinstance(error, kind)), "fetcher_died")
    return FetchError(reason, f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]+', '…', str(error))}"[:300])
