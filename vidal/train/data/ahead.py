"""`ahead`: an iterator that is worked on while its last value is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.2


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The same values, made in a thread, one finished and one under way; what it raises is raised in its place."""
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(value: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return made.put((value, error), timeout=_POLL_S)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for value in values:
                put(value, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    return _taken(made, stopped, thread)


def _taken(
    made: queue.Queue[tuple[T | None, BaseException | None]], stopped: threading.Event, thread: threading.Thread
) -> Iterator[T]:
    try:
        while True:
            value, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(timeout=10)
