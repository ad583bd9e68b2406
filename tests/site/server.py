"""The least of an HTTP/1.1 server: threads, kept connections, and the bare socket for those who want to misbehave."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_HEAD_BYTES = 64 * 1024
_WORDS = {200: "OK", 206: "Partial Content", 302: "Found", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Hit:
    """One request: the address it came to, the path with its query, and when."""

    host: str
    path: str
    at: float


class Closed(Exception):
    """The connection is over."""


@dataclass(slots=True)
class Exchange:
    """One request and the means to answer it, well or badly."""

    connection: socket.socket
    host: str
    port: int
    target: str
    headers: dict[str, str]
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.target)
        self.path = unquote(parts.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"

    def send(self, status: int, body: bytes | str = b"", kind: str = "text/html", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.head(status, kind, Content_Length=str(len(data)), **headers)
        self.connection.sendall(data)

    def head(self, status: int, kind: str = "video/mp4", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {_WORDS.get(status, 'Status')}", f"Content-Type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8"))

    def send_file(self, path: Path, kind: str = "video/mp4", **headers: str) -> None:
        size = path.stat().st_size
        self.head(200, kind, Content_Length=str(size), **headers)
        with path.open("rb") as file:
            self.connection.sendfile(file)

    def close(self) -> None:
        raise Closed


Answerer = Callable[[Exchange], None]


class Server:
    """Listens on one port of several addresses; ``hits`` is its log."""

    def __init__(self, addresses: tuple[str, ...], answer: Answerer, port: int = 0, log: Path | None = None) -> None:
        self.hits: list[Hit] = []
        self._answer = answer
        self._log = log.open("a", buffering=1) if log else None
        self._is_open = True
        self._connections: set[socket.socket] = set()
        self._listeners = _listen(addresses, port)
        self.port = self._listeners[0].getsockname()[1]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        self._is_open = False
        for one in (*self._listeners, *list(self._connections)):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket) -> None:
        while self._is_open:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._connections.add(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = connection.getsockname()[0]
        rest = b""
        try:
            while True:
                head, rest = _read_head(connection, rest)
                target, headers = _parse(head)
                hit = Hit(host, target, time.monotonic())
                self.hits.append(hit)
                if self._log:
                    self._log.write(f"{hit.at:.6f} {host} {target}\n")
                self._answer(Exchange(connection, host, self.port, target, headers))
        except (Closed, OSError, ValueError):
            pass
        finally:
            self._connections.discard(connection)
            connection.close()


def _listen(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    """The same port on each address, which may take a few tries to find."""
    for _ in range(50):
        listeners: list[socket.socket] = []
        try:
            for address in addresses:
                listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                listeners.append(listener)
                if ":" in address:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port or (listeners[0].getsockname()[1] if len(listeners) > 1 else 0)))
                listener.listen(256)
            return listeners
        except OSError:
            for listener in listeners:
                listener.close()
            if port:
                raise
    raise OSError(f"no port is free on all of {addresses}; is it a machine without 127.0.0.2? ({os.uname().sysname})")


def _read_head(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in data:
        more = connection.recv(16384)
        if not more or len(data) > _HEAD_BYTES:
            raise Closed
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    _, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return target, {name.strip().lower(): value.strip() for name, _, value in pairs}
