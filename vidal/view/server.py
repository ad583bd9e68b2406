"""The HTTP server of the viewer: on this machine alone, for whoever has its token.

Every address begins with a random token, so that neither another user nor a page in the same browser can ask it
anything. A request for another host's name is refused, as a page could point its own name here (DNS rebinding).
What titles, captions and members say is a stranger's: it leaves as JSON or as media of a fixed type, and the page may
run no script but its own, and load nothing from elsewhere.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.resources
import json
import re
import secrets
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vidal.errors import ClipError, MachineError, UserError, VidalError
from vidal.view.api import Api, Body, Parameters

HOST = "127.0.0.1"
_OWN_NAMES = ("127.0.0.1", "localhost")
_MOST_BYTES = 64 * 1024
# 18 digits are more bytes than any file has; Python refuses to convert thousands of them.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE = importlib.resources.files("vidal.view") / "page"
_PAGE_NAMES = frozenset(file.name for file in _PAGE.iterdir())
_PAGE_TYPES = {
    "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
    "png": "image/png",
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves one dataset; `url` opens its page."""

    daemon_threads = True

    def __init__(self, api: Api, port: int = 0) -> None:
        """Listen on ``port``, or on any free one; raises `MachineError` if it is taken."""
        self.api = api
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise MachineError(f"port {port}: {error.strerror}; choose another with --port") from None

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class BadRequestError(UserError):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    # By the default of 1.0 every image of a page would take a connection of its own.
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vidal", ""
    # Seconds after which a connection that asks for nothing is closed.
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        self._respond(self._got)

    def do_HEAD(self) -> None:
        self._respond(self._got)

    def do_POST(self) -> None:
        self._respond(self._posted)

    def _respond(self, answer_of: Callable[[str, Parameters], Body]) -> None:
        try:
            path, parameters = self._admitted()
            answer = answer_of(path, parameters)
        except BadRequestError as refused:
            self._refuse(refused.status, str(refused))
        except (ClipError, VidalError) as error:
            is_mine = isinstance(error, MachineError)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR if is_mine else HTTPStatus.BAD_REQUEST, str(error))
        except FileNotFoundError as error:
            self._refuse(HTTPStatus.NOT_FOUND, f"a file of the dataset is missing: {error}")
        except ConnectionError:
            # Nobody is left to answer; `handle_error` has it.
            raise
        except Exception:
            traceback.print_exc()
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of vidal; its terminal has the details")
        else:
            self._send(answer)

    def _admitted(self) -> tuple[str, Parameters]:
        """Return path and query of a request behind the token; raises `BadRequestError`."""
        # A tunnel (ssh -L) has another port at its end, but the same name.
        if (self.headers.get("Host") or "").rpartition(":")[0] not in _OWN_NAMES:
            raise BadRequestError(HTTPStatus.FORBIDDEN, "not a name of this server")
        address = urlsplit(self.path)
        token, slash, path = address.path.removeprefix("/").partition("/")
        # In constant time, as the time of an answer would tell how much of a guessed token is right.
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise BadRequestError(HTTPStatus.FORBIDDEN, "the address lacks the token that vidal view printed")
        try:
            values = parse_qs(address.query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "the query cannot be read") from None
        return path, Parameters(values)

    def _got(self, path: str, parameters: Parameters) -> Body:
        name = path or "index.html"
        if name in _PAGE_NAMES:
            return Body.of((_PAGE / name).read_bytes(), _PAGE_TYPES[name.rpartition(".")[2]])
        answer_of = self.server.api.answers.get(path.removeprefix("api/")) if path.startswith("api/") else None
        if answer_of is None:
            raise BadRequestError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        return answer_of(parameters)

    def _posted(self, path: str, parameters: Parameters) -> Body:
        write = self.server.api.writers.get(path.removeprefix("api/")) if path.startswith("api/") else None
        if write is None:
            raise BadRequestError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        # A form of another page cannot send this type.
        if self.headers.get_content_type() != "application/json":
            raise BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length") or ""
        # `int` takes digits of other alphabets, and raises for thousands of any.
        if not (length.isascii() and length.isdecimal() and len(length) <= 9 and int(length) <= _MOST_BYTES):
            raise BadRequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send a Content-Length of at most {_MOST_BYTES} bytes"
            )
        try:
            sent = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            # The second for thousands of brackets in one another.
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "not JSON") from None
        return write(sent)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        # What it may have sent beside is not read.
        self.close_connection = True
        self._send(Body.json({"error": why}), status)

    def _send(self, answer: Body, status: HTTPStatus = HTTPStatus.OK) -> None:
        first, last = 0, answer.size - 1
        match = _RANGE.fullmatch(self.headers.get("Range") or "") if status is HTTPStatus.OK else None
        if match and any(match.groups()):
            first, last = _part(match[1], match[2], answer.size)
            status = HTTPStatus.PARTIAL_CONTENT if first <= last else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.type)
        self.send_header("Accept-Ranges", "bytes")
        if status is HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {first}-{last}/{answer.size}")
        if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_header("Content-Range", f"bytes */{answer.size}")
        self.send_header("Content-Length", str(last - first + 1))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for block in answer.blocks(first, last):
                self.wfile.write(block)
        except (VidalError, FileNotFoundError):
            # The length is promised already: an answer that breaks off is the only way to say so.
            traceback.print_exc()
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the addresses hold the token, and what a person looks at is theirs."""


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and the last position of a range; the first lies behind the last if there is no such part."""
    if not first:
        return max(0, size - int(last)), size - 1
    begin = int(first)
    end = min(int(last), size - 1) if last else size - 1
    # `size` is no position: an empty part, as of a range beyond the end.
    return (begin, end) if begin <= end else (size, size - 1)


def serve(server: Server) -> None:
    """Serve until Ctrl-C."""
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.1)
