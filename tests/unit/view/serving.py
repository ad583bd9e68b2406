"""A viewer that is served to a client which sends exactly what it is told."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from vidal.dataset.dataset import Dataset
from vidal.view.api import Api
from vidal.view.server import Server, serve

EVIL = "<script>alert(1)</script>"
TITLES = [EVIL, "a dog barks", "The Dog sleeps", "no", "x", "mute", "it's; drop table clip --", "rain on a window"]
JSON = "application/json; charset=utf-8"


@dataclass
class Client:
    """A browser that sends exactly what it is told."""

    server: Server

    def send(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask for a path behind the token."""
        return self.raw(f"/{self.server.token}/{path}", method, body, **headers)

    def raw(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.server.server_address[:2], timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def ask(self, answer: str, **parameters: Any) -> Any:
        """The JSON of an answer, whatever its status."""
        response, data = self.send(f"api/{answer}?{urlencode(parameters, doseq=True)}")
        assert response.headers["Content-Type"] == JSON, data
        return json.loads(data)

    def flag(self, **sent: Any) -> tuple[int, Any]:
        return self.post("flags", **sent)

    def post(self, answer: str, **sent: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer to JSON."""
        response, data = self.send(f"api/{answer}", "POST", json.dumps(sent).encode(), Content_Type="application/json")
        return response.status, json.loads(data)


def serving(out: Path | str) -> Iterator[Client]:
    server = Server(Api(Dataset.open(str(out))))
    thread = threading.Thread(target=serve, args=[server])
    thread.start()
    yield Client(server)
    server.shutdown()
    thread.join()


def clip_with(client: Client, title: str) -> dict[str, Any]:
    (row,) = [row for row in client.ask("clips")["rows"] if row["title"] == title]
    clip: dict[str, Any] = client.ask("clip", clip=row["clip_id"], shard=row["shard"])
    return clip
