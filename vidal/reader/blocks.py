"""`BlockReader`: reads the tars of an object store in blocks, ahead of time, into the cache on the local disk.

A request to an object store costs tens of milliseconds, whatever its size, and a connection has a limited bandwidth. So
where the tars fit into the cache, they are read in blocks that hold many members, several at once. The processes of a
machine share the blocks: each block is fetched by one of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vidal.errors import StorageError
from vidal.reader.ranges import MemberReader, Pages, RangeCache

BLOCK_BYTES = 4 << 20
"""Takes 0.2 s on a connection of 20 MB/s, several times the latency of a store."""
_THREADS = 16
"""Requests of a process at once, half of the connections that it has."""
_OPEN_BLOCKS = 256
"""With those of the tars far from the usual limit of 1,024 descriptors."""
_POLL_S = 0.01


class Tar(NamedTuple):
    """A tar as the manifest has it."""

    size: int
    """End of its last member."""
    content: bytes
    """Identifies its members."""


class BlockReader(MemberReader):
    """Reads ranges of some tars by blocks, and of others as `MemberReader` does."""

    _tars: dict[str, Tar]

    def __init__(self, reader: MemberReader, tars: Mapping[str, Tar]) -> None:
        self.__setstate__({**reader.__getstate__(), "_tars": dict(tars)})

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_tars": self._tars}

    def _forget(self) -> None:
        super()._forget()
        self._is_off = False
        """Whether the cache cannot be written: blocks would be fetched again for each of their members."""
        self._threads: list[threading.Thread] = []
        self._started: set[tuple[str, int]] = set()
        self._wanted: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._claims = _Claims(self.cache)
        self._pages: OrderedDict[tuple[str, int], Pages] = OrderedDict()

    def read(self, tar: str, offset: int, size: int, content: bytes = b"") -> bytes:
        if self._pid != os.getpid():
            self._forget()
        if tar not in self._tars or self._is_off or offset + size > self._tars[tar].size:
            return super().read(tar, offset, size, content)
        try:
            return b"".join(
                self._part(tar, block, max(offset - start, 0), min(offset + size - start, BLOCK_BYTES))
                for block, start in _blocks(offset, size)
            )
        except StorageError:
            store, name = self._storage.place(tar)
            if store.size(name) >= self._tars[tar].size:
                raise
            # The tar was cut short: only the samples behind the cut are lost.
            return super().read(tar, offset, size, content)

    def start(self, tar: str, offset: int, size: int) -> None:
        """Begin to read what `read` will be asked for; an error is left for `read` to meet."""
        if self._pid != os.getpid():
            self._forget()
        if tar not in self._tars or self._is_off:
            return
        for block, _ in _blocks(offset, size):
            if (tar, block) not in self._started:
                self._started.add((tar, block))
                self._wanted.put((tar, block))
        while len(self._threads) < min(_THREADS, len(self._started)):
            # A daemon, so that a process that ends does not wait for blocks that nobody needs any more.
            thread = threading.Thread(target=self._fetch_ahead, args=(self._wanted,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Fetch nothing ahead any more."""
        if self._pid == os.getpid():
            with contextlib.suppress(queue.Empty):
                while True:
                    self._wanted.get_nowait()
            for _ in self._threads:
                self._wanted.put(None)
            self._threads, self._started = [], set()

    def _part(self, tar: str, block: int, first: int, last: int) -> bytes:
        key = self._key(tar, block)
        while True:
            data = self._opened(tar, block, key, first, last)
            if data is not None:
                return data
            with self._claims.claim(key) as is_mine:
                if is_mine:
                    # Another may have fetched it just before.
                    data = self._opened(tar, block, key, first, last)
                    return self._fetch(tar, block, key)[first:last] if data is None else data
            # Whoever fetches it may be another process, which cannot wake this one.
            time.sleep(_POLL_S)

    def _opened(self, tar: str, block: int, key: str, first: int, last: int) -> bytes | None:
        """A part of a block, which is kept open, if the cache has it."""
        # Taken out and put back, so that the first block is always the least recently used.
        pages = self._pages.pop((tar, block), None) or self.cache.open_pages(key)
        data = pages.part(first, last - first) if pages is not None else None
        if pages is not None and data is not None:
            self._pages[tar, block] = pages
            if len(self._pages) > _OPEN_BLOCKS:
                self._pages.popitem(last=False)
        return data

    def _fetch(self, tar: str, block: int, key: str) -> bytes:
        store, name = self._storage.place(tar)
        start = block * BLOCK_BYTES
        data = store.read_range(name, start, min(BLOCK_BYTES, self._tars[tar].size - start))
        self._is_off |= not self.cache.put_pages(key, data)
        return data

    def _fetch_ahead(self, wanted: queue.SimpleQueue[tuple[str, int] | None]) -> None:
        # Of the queue that it was started with, as a fork gets another one.
        while (tar_and_block := wanted.get()) is not None:
            key = self._key(*tar_and_block)
            with self._claims.claim(key) as is_mine, contextlib.suppress(OSError, StorageError):
                if is_mine and not self._is_off and not self.cache.has(key):
                    self._fetch(*tar_and_block, key)

    def _key(self, tar: str, block: int) -> str:
        return f"{self._storage.address}/{tar}/{BLOCK_BYTES}*{block}#{self._tars[tar].content.hex()}"


def _blocks(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """The number and the start of each block that a range touches."""
    for block in range(offset // BLOCK_BYTES, -(-(offset + size) // BLOCK_BYTES)):
        yield block, block * BLOCK_BYTES


class _Claims:
    """Which thread of which process is fetching a block; a process that dies gives up its claims."""

    def __init__(self, cache: RangeCache) -> None:
        self._cache = cache
        self._own: set[str] = set()
        self._lock = threading.Lock()
        self._file: int | None = None

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim a block for the duration of the context; false if another has claimed it."""
        with self._lock:
            is_mine = key not in self._own and self._locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_mine:
                self._own.add(key)
        try:
            yield is_mine
        finally:
            if is_mine:
                with self._lock:
                    self._own.discard(key)
                    self._locked(key, fcntl.LOCK_UN)

    def _locked(self, key: str, how: int) -> bool:
        """Lock or unlock one byte of a file, whose place stands for the block; processes exclude each other by it."""
        try:
            if self._file is None:
                self._file = self._cache.open_lock()
            fcntl.lockf(self._file, how, 1, int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
        except OSError as error:
            # Without a lock a block may be fetched twice, which is no error.
            return not isinstance(error, BlockingIOError)
        return True
