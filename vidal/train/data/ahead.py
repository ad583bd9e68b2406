"""`ahead`: an iterator that runs in a thread, one value ahead of its consumer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.2


def ahead(values: Iterator[T], should_end: Callable[[float], bool] = lambda since_s: False) -> Iterator[T]:
    """Yield the same values, computed in a thread: one is ready while the next is being computed.

    An exception of the iterator is raised in its place. While the consumer waits for a value, ``should_end`` is called
    every 0.2 s with the time (`time.monotonic`, in s) at which the wait began; if it returns True, the iteration ends.
    """
    results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(value: T | None, error: BaseException | None) -> None:
        # With a timeout: the consumer may have left, and nobody would ever empty the queue.
        while not stopped.is_set():
            try:
                return results.put((value, error), timeout=_POLL_S)
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

    # Started here, not at the first `next`: the first value is computed while the consumer prepares.
    # A daemon: one that waits for a stalled worker must not keep the process alive.
    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()

    def consume() -> Iterator[T]:
        since_s = time.monotonic()
        try:
            while True:
                try:
                    value, error = results.get(timeout=_POLL_S)
                except queue.Empty:
                    if should_end(since_s):
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

    return consume()
