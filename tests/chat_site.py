"""A real HTTP server on the loopback that answers like an OpenAI-compatible one: from a script, or by a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
Answer = Callable[[dict[str, Any]], str]


class Site:
    """An HTTP server that keeps the requests, and gives scripted answers in turn or what ``answer`` makes of each.

    With ``wait_for`` each of the first so many requests is answered only when all of them are there. ``status`` gives
    the status of each request by its number; only where that is 200 is an answer made.
    """

    def __init__(
        self, answer: Answer | None = None, wait_for: int = 1, status: Callable[[int], int] = lambda number: 200
    ) -> None:
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = self._at_once = 0
        self._lock, self._gate = threading.Lock(), threading.Barrier(wait_for)
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with site._lock:
                    site.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
                    number = len(site.requests)
                    is_early = number <= wait_for
                    site._at_once += 1
                    site.most_at_once = max(site.most_at_once, site._at_once)
                if is_early:
                    site._gate.wait(timeout=30)
                made = (200, {}, reply(answer(body), USAGE)) if answer else None
                if (failure := status(number)) != 200:
                    made = (failure, {}, "no")
                with site._lock:
                    code, headers, text = made or site.answers.pop(0)
                    site._at_once -= 1
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def says(self, content: str, usage: Any = None) -> None:
        self.answers.append((200, {}, reply(content, usage)))

    def fails(self, status: int, **headers: str) -> None:
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, "no"))


def reply(content: str, usage: Any = None) -> str:
    """What an OpenAI-compatible server sends."""
    body = {"choices": [{"message": {"content": content}}]}
    return json.dumps(body if usage is None else {**body, "usage": usage})


@contextmanager
def running_site(
    answer: Answer | None = None, wait_for: int = 1, status: Callable[[int], int] = lambda number: 200
) -> Iterator[Site]:
    site = Site(answer, wait_for, status)
    thread = threading.Thread(target=site.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.http.shutdown()
        thread.join()
        site.http.server_close()
