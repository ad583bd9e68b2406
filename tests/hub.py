"""A hub of models on loopback, as far as its documented interface is needed to fetch a folder's files."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves one folder as the repository ``model_id``, at its only commit; ``asked`` are the files it gave."""

    def __init__(self, model_id: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model_id, self.folder = model_id, folder
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path, model_id = unquote(urlsplit(self.path).path), self.server.model_id
        if path.startswith(f"/api/models/{model_id}/tree/"):
            self._send(json.dumps([_entry(file) for file in sorted(self.server.folder.iterdir())]).encode(), {})
        elif path.startswith(f"/api/models/{model_id}"):
            self._send(json.dumps({"id": model_id, "sha": COMMIT, "siblings": []}).encode(), {})
        elif path.startswith(f"/{model_id}/resolve/"):
            file = self.server.folder / path.rsplit("/", 1)[-1]
            if with_body:
                self.server.asked.append(file.name)
            headers = {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": COMMIT}
            self._send(file.read_bytes(), headers, with_body=with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _entry(file: Path) -> dict[str, object]:
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _oid(file)}


@contextmanager
def hub(model_id: str, folder: Path) -> Iterator[Hub]:
    with Hub(model_id, folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def silent_hub() -> Iterator[str]:
    """A hub that accepts every connection and never answers; gives its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
