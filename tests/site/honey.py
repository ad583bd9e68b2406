"""A server that nobody has any business with: a single hit is a failure of the guard."""

from __future__ import annotations

import contextlib
import socket
from types import TracebackType
from typing import Self

from tests.site.server import Exchange, Hit, Server


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Honey:
    """Listens on every address of this machine."""

    def __init__(self) -> None:
        self._server = Server(("0.0.0.0", "::") if _has_ipv6() else ("0.0.0.0",), self._answer)
        self.port = self._server.port

    @property
    def hits(self) -> list[Hit]:
        return self._server.hits

    def url(self, host: str = "127.0.0.1", path: str = "/secret.mp4") -> str:
        return f"http://{host}:{self.port}{path}"

    @staticmethod
    def _answer(exchange: Exchange) -> None:
        exchange.send(200, b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08moov" + b"\0" * 2000, "video/mp4")

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
