"""`ahead`: an iterator that is worked on while its last value is used."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.2


def _never(since_s: float) -> bool:
    return False


def ahead(values: Iterator[T], is_to_end: Callable[[float], bool] = _never) -> Iterator[T]:
    """The same values, made in a thread, one finished and one under way; what it raises is raised in its place.

    While a value is waited for, ``is_to_end`` is asked several times a second, with the time (`time.monotonic`) at
    which the wait began: True ends the values, and what it raises is raised.
    """
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
    return _taken(made, stopped, thread, is_to_end)


def _taken(
    made: queue.Queue[tuple[T | None, BaseException | None]], stopped: threading.Event, thread: threading.Thread,
    is_to_end: Callable[[float], bool],
) -> Iterator[T]:  # fmt: skip
    since_s = time.monotonic()
    try:
        while True:
            try:
                value, error = made.get(timeout=_POLL_S)
            except queue.Empty:
                if is_to_end(since_s):
                    return
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value  # type: ignore[misc]
            since_s = time.monotonic()
    finally:
        stopped.set()
        thread.join(timeout=10)
