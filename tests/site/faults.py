"""Everything a server can do wrong to one file, each with the reason that a truthful crawler gives."""

from __future__ import annotations

import gzip
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from socket import SO_LINGER, SOL_SOCKET

from tests.site.server import Exchange

Body = Callable[[], bytes]
"""The file that would come if nothing were wrong."""

_DRIP_S = 60.0
_ENDLESS_BYTES = 1 << 34


@dataclass(frozen=True, slots=True)
class Fault:
    """``reason`` is the truth; ``heals`` says whether the fault is one that goes away."""

    reason: str
    do: Callable[[Exchange, Body], None]
    heals: bool = False


def _status(status: int, words: str = "", **headers: str) -> Callable[[Exchange, Body], None]:
    return lambda exchange, body: exchange.send(status, f"<html><p>{words or status}</p></html>", **headers)


def _content(data: bytes, kind: str = "video/mp4") -> Callable[[Exchange, Body], None]:
    return lambda exchange, body: exchange.send(200, data, kind)


def _redirect(target: str, **headers: str) -> Callable[[Exchange, Body], None]:
    return lambda exchange, body: exchange.send(302, "", Location=target, **headers)


def _loop_of_two(exchange: Exchange, body: Body) -> None:
    here, there = ("a", "b") if exchange.query.get("at") == "b" else ("b", "a")
    exchange.send(302, "", Location=f"{exchange.path}?at={here}&not={there}")


def _many_hops(exchange: Exchange, body: Body) -> None:
    exchange.send(302, "", Location=f"{exchange.path}?n={int(exchange.query.get('n', '0')) + 1}")


def _truncated(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.head(200, Content_Length=str(len(data)))
    exchange.connection.sendall(data[: len(data) // 2])
    exchange.close()


def _truncated_without_length(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.head(200, Connection="close")
    exchange.connection.sendall(data[: len(data) // 2])
    exchange.close()


def _truncated_chunked(exchange: Exchange, body: Body) -> None:
    data = body()
    half = data[: len(data) // 2]
    exchange.head(200, Transfer_Encoding="chunked")
    exchange.connection.sendall(b"%x\r\n%s\r\n" % (len(half), half))
    exchange.close()


def reset(exchange: Exchange, body: Body) -> None:
    exchange.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    exchange.connection.close()
    exchange.close()


def _stall(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.head(200, Content_Length=str(len(data)))
    exchange.connection.sendall(data[:2000])
    _wait(exchange)


def _drip(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.head(200, Content_Length=str(len(data)))
    until = time.monotonic() + _DRIP_S
    for n in range(len(data)):
        if time.monotonic() > until:
            break
        exchange.connection.sendall(data[n : n + 1])
        time.sleep(1)
    exchange.close()


def _drip_head(exchange: Exchange, body: Body) -> None:
    until = time.monotonic() + _DRIP_S
    while time.monotonic() < until:
        exchange.connection.sendall(b"H")
        time.sleep(1)
    exchange.close()


def _wait(exchange: Exchange) -> None:
    """Until the other side gives up."""
    exchange.connection.settimeout(_DRIP_S)
    exchange.connection.recv(1)
    exchange.close()


def _endless(exchange: Exchange, body: Body) -> None:
    exchange.head(200, Connection="close")
    exchange.connection.sendall(body())
    for _ in range(_ENDLESS_BYTES >> 16):
        exchange.connection.sendall(bytes(1 << 16))
    exchange.close()


def _huge(exchange: Exchange, body: Body) -> None:
    exchange.head(200, Content_Length=str(_ENDLESS_BYTES))
    exchange.connection.sendall(body())
    _wait(exchange)


def _gzip_bomb(exchange: Exchange, body: Body) -> None:
    exchange.send(200, bomb(body()), "video/mp4", Content_Encoding="gzip")


_BOMB_BYTES = 1 << 30


def bomb(head: bytes) -> bytes:
    """The head of a film, then a gigabyte of nothing: one block of a deflate stream, again and again."""
    start, block = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16), zlib.compressobj(9, zlib.DEFLATED, -15)
    nothing = block.compress(bytes(1 << 20)) + block.flush(zlib.Z_FULL_FLUSH)
    return start.compress(head[:4096]) + start.flush(zlib.Z_FULL_FLUSH) + nothing * (_BOMB_BYTES >> 20)


def _two_lengths(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.head(200, Content_Length="50\r\nContent-Length: " + str(len(data)))
    exchange.connection.sendall(data)
    exchange.close()


def _gzip_cut(exchange: Exchange, body: Body) -> None:
    data = gzip.compress(body(), 1)
    exchange.send(200, data[: len(data) // 2], "video/mp4", Content_Encoding="gzip")


def _gzip_damaged(exchange: Exchange, body: Body) -> None:
    """The second of two members has other bytes than were compressed."""
    data = body()
    first, second = gzip.compress(data[:20_000], 1), bytearray(gzip.compress(data[20_000:], 1))
    second[len(second) // 2 : len(second) // 2 + 64] = bytes(64)
    exchange.send(200, first + second, "video/mp4", Content_Encoding="gzip")


def _half(exchange: Exchange, body: Body) -> None:
    """The server has half a file, and says so."""
    data = body()
    exchange.send(200, data[: len(data) // 2], "video/mp4")


def _gzip_cut_audio(exchange: Exchange, body: Body) -> None:
    """Half of a compressed file whose format has no lengths of its own."""
    data = gzip.compress(b"ID3" + body(), 1)
    exchange.send(200, data[: len(data) // 2], "audio/mpeg", Content_Encoding="gzip")


def _part(exchange: Exchange, body: Body) -> None:
    data = body()
    exchange.send(206, data[:5000], "video/mp4", Content_Range=f"bytes 0-4999/{len(data)}")


def _said(**headers: str) -> Callable[[Exchange, Body], None]:
    return lambda exchange, body: exchange.send(200, body(), "video/mp4", **headers)


_PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
_HTML = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not here</body></html>" + b" " * 2000

FAULTS: dict[str, Fault] = {
    "gone": Fault("gone", _status(404)),
    "gone_410": Fault("gone", _status(410)),
    "login": Fault("login_required", _status(401, "Please log in")),
    "private": Fault("private", _status(403, "This video is private")),
    "geo": Fault("geo", _status(451)),
    "geo_403": Fault("geo", _status(403, "This video is not available in your country")),
    "html": Fault("not_media", _content(_HTML)),
    "text": Fault("not_media", _content(b"no such file\n")),
    "json": Fault("not_media", _content(b'{"error": "no"}')),
    "text_free": Fault("not_media", _content(b"The free and open film is not here any more.\n" * 40)),
    "text_utf16": Fault("not_media", _content(("No such film. " * 100).encode("utf-16"))),
    "image": Fault("not_media", _content(_PNG)),
    "empty": Fault("not_media", _content(b"")),
    "loop": Fault("redirect_loop", lambda exchange, body: exchange.send(302, "", Location=exchange.target)),
    "loop_of_two": Fault("redirect_loop", _loop_of_two),
    "many_hops": Fault("redirect_loop", _many_hops),
    "to_metadata": Fault("ssrf", _redirect("http://169.254.169.254/latest/meta-data/")),
    "to_private": Fault("ssrf", _redirect("http://10.0.0.1/router.mp4")),
    "to_file": Fault("ssrf", _redirect("file:///etc/passwd")),
    "huge": Fault("too_large", _huge),
    "endless": Fault("too_large", _endless),
    "gzip_bomb": Fault("too_large", _gzip_bomb),
    "noai": Fault("noai", _said(X_Robots_Tag="noindex, noai")),
    "noai_on_the_way": Fault("noai", _redirect("/clip/bunny-wake.mp4", X_Robots_Tag="noai")),
    "reserved": Fault("noai", _said(tdm_reservation="1")),
    "reserved_elsewhere": Fault("noai", _redirect("/reserved/bunny-wake.mp4")),
    "content_usage": Fault("noai", _said(Content_Usage="search=y, train-ai=n")),
    "to_disallowed": Fault("robots", _redirect("/disallowed/bunny-wake.mp4")),
    "brotli": Fault("not_media", _said(Content_Encoding="br")),
    "forbidden": Fault("blocked", _status(403), heals=True),
    "captcha": Fault("blocked", _status(403, "Please solve the captcha"), heals=True),
    "rate_limited": Fault("rate_limited", _status(429, Retry_After="1"), heals=True),
    "rate_limited_date": Fault(
        "rate_limited",
        lambda exchange, body: exchange.send(429, "", Retry_After=formatdate(time.time() + 2, usegmt=True)),
        heals=True,
    ),
    "leave_alone": Fault("rate_limited", _status(429, Retry_After="86400"), heals=True),
    "error": Fault("server_error", _status(500), heals=True),
    "unavailable": Fault("server_error", _status(503), heals=True),
    "two_lengths": Fault("server_error", _two_lengths, heals=True),
    "half": Fault("truncated", _half, heals=True),
    "junk": Fault("truncated", _content(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"junk" * 5000), heals=True),
    "gzip_damaged": Fault("truncated", _gzip_damaged, heals=True),
    "gzip_cut": Fault("truncated", _gzip_cut, heals=True),
    "gzip_cut_audio": Fault("truncated", _gzip_cut_audio, heals=True),
    "truncated": Fault("truncated", _truncated, heals=True),
    "truncated_without_length": Fault("truncated", _truncated_without_length, heals=True),
    "truncated_chunked": Fault("truncated", _truncated_chunked, heals=True),
    "part": Fault("truncated", _part, heals=True),
    "reset": Fault("network", reset, heals=True),
    "stall": Fault("timeout", _stall, heals=True),
    "drip": Fault("timeout", _drip, heals=True),
    "drip_head": Fault("timeout", _drip_head, heals=True),
}

SLOW = ("stall", "drip", "drip_head", "endless", "gzip_bomb", "huge")
"""Faults that cost a crawler its whole time limit, or this site much work."""
