"""Reading S3: a connection that breaks costs what was still to come, and a first refusal a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest

from vidal.dataset import s3
from vidal.dataset.storage import Storage
from vidal.errors import StorageError

OLD, NEW = (np.random.default_rng(seed).bytes(300_000) for seed in range(2))
Answer = tuple[int, bytes, float]
"""Status, object, and the share of what was asked for that is sent before the connection breaks."""


class Store:
    """An object, of which each answer says what becomes of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.at_s: list[float] = []
        self.answer: Callable[[int], Answer] = lambda number: (206, OLD, 1)


@pytest.fixture(scope="module")
def address() -> Iterator[type]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        store: Store

        def do_GET(self) -> None:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            status, content, share = self.store.answer(len(self.store.asked))
            self.store.asked.append((first, last + 1))
            self.store.at_s.append(time.monotonic())
            data = content[first : last + 1]
            self.send_response(status)
            self.send_header("ETag", f'"{hash(content)}"')
            self.send_header("Content-Length", str(len(data) if status == 206 else 0))
            self.end_headers()
            if status == 206:
                self.wfile.write(data[: int(len(data) * share)])
                self.close_connection = share < 1

        def log_message(self, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield Handler
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(address: type, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(s3, "_SOON_S", 0.01)
    address.store = Store()
    return address.store


def read() -> bytes:
    return Storage("s3://bucket/set").read_range("a.tar", 1000, 200_000)


@pytest.mark.parametrize(
    ("answers", "expected", "asked"),
    [
        ([(206, OLD, 1)], OLD, [1000]),
        ([(206, OLD, 0.5), (206, OLD, 1)], OLD, [1000, 101_000]),
        ([(206, OLD, 0.5), (206, OLD, 0.5), (503, OLD, 0), (206, OLD, 1)], OLD, [1000, 101_000, 151_000, 151_000]),
        ([(206, OLD, 0), (206, OLD, 1)], OLD, [1000, 1000]),
        ([(206, OLD, 0.5), (206, NEW, 1), (206, NEW, 1)], NEW, [1000, 101_000, 1000]),
    ],
    ids=["whole", "cut", "cut twice and refused", "cut at once", "another object meanwhile"],
)
def test_a_range_goes_on_where_its_connection_broke(
    store: Store, answers: list[Answer], expected: bytes, asked: list[int]
) -> None:
    store.answer = lambda number: answers[number]
    assert read() == expected[1000:201_000]
    assert store.asked == [(first, 201_000) for first in asked]


def test_a_range_that_never_comes_is_an_error_of_the_store(store: Store) -> None:
    store.answer = lambda number: (206, OLD, 0)
    with pytest.raises(StorageError, match=r"bucket/set"):
        read()
    assert len(store.asked) == s3._TRIES


def test_a_first_refusal_is_tried_again_at_once(store: Store) -> None:
    store.answer = lambda number: (503, OLD, 0) if number % 2 == 0 else (206, OLD, 1)
    for _ in range(3):
        read()
    waits = np.diff(store.at_s)[::2]
    # botocore's own waits are drawn from 0 to 1 s.
    assert len(waits) == 3 and waits.max() < 0.4
