"""`MemberReader`: reads byte ranges of tars.

Local tars are read with ``pread`` through a few open descriptors; those in an object store by range requests, through a
cache on the local disk. A reader can be copied to other processes at any time: each opens its own files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import struct
import tempfile
import time
import zlib
from collections import OrderedDict
from pathlib import Path

from vidal.dataset.storage import Storage
from vidal.errors import ClipError, StorageError, machine_error

CACHE_BYTES = 8 << 30
# Every worker has its own, far from the usual limit of 1,024 descriptors.
_OPEN_FILES = 64
_SWEEPS_PER_FILL = 16
"""A process checks the size of the cache after writing this fraction of its limit."""
_DIGEST_BYTES = 32
_PAGE_BYTES = 16 * 1024
"""Unit of the checksums of a block: as large as a small image, of which more would be read in vain."""
_USED_EVERY_S = 10.0
"""How often the cache is told that an open block is in use."""


class BrokenSampleError(ClipError):
    """The bytes of a sample are missing or damaged; it is reported and left out, never replaced."""

    def __init__(self, clip_id: str, layer: str, why: str) -> None:
        super().__init__("broken_sample", f"{clip_id}: {layer}: {why}")
        self.clip_id, self.layer, self.why = clip_id, layer, why

    def __reduce__(self) -> tuple[object, ...]:
        return (BrokenSampleError, (self.clip_id, self.layer, self.why))


class MemberReader:
    """Reads ranges of the tars of one dataset."""

    def __init__(self, storage: Storage, *, cache: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self._storage = storage
        folder = cache or Path(os.environ.get("VIDAL_CACHE", Path.home() / ".cache" / "vidal"))
        self.cache = RangeCache(folder / "ranges", cache_bytes)
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        # Neither descriptors nor a store's client can be copied to another process.
        return {"_storage": self._storage, "cache": self.cache}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, tar: str, offset: int, size: int, content: bytes = b"") -> bytes:
        """Return ``size`` bytes of a tar, given by name or address.

        ``content`` identifies the bytes in the cache, which may hold those of an earlier tar at the same place. Raises
        `OSError` if the tar is missing, `EOFError` if it is too short, and `StorageError` if storage itself fails.
        """
        if self._pid != os.getpid():
            # A fork shares descriptors with its parent, which may close them.
            self._forget()
        storage, name = self._storage.place(tar)
        if storage.is_local:
            path = storage.path(name)
            try:
                # Taken out and put back, so that the first descriptor is always the least recently used.
                descriptor = self._files.pop(path, None)
                if descriptor is None:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._files[path] = descriptor
                if len(self._files) > _OPEN_FILES:
                    os.close(self._files.popitem(last=False)[1])
                data = os.pread(descriptor, size, offset)
            except OSError as error:
                raise machine_error(error, path) or error from None
        else:
            data = self._ranged(storage, name, tar, offset, size, content)
        if len(data) != size:
            raise EOFError(f"{tar} ends {size - len(data)} bytes too early")
        return data

    def close(self) -> None:
        if self._pid == os.getpid():
            for descriptor in self._files.values():
                os.close(descriptor)
        self._forget()

    def _forget(self) -> None:
        self._files: OrderedDict[str, int] = OrderedDict()
        self._pid = os.getpid()

    def _ranged(self, storage: Storage, name: str, tar: str, offset: int, size: int, content: bytes) -> bytes:
        key = f"{storage.address}/{tar}@{offset}+{size}#{content.hex()}"
        data = self.cache.get(key)
        if data is not None:
            return data
        try:
            data = storage.read_range(name, offset, size)
        except StorageError as error:
            # A store rejects a range beyond the end of an object like any other bad request.
            if storage.size(name) < offset + size:
                raise EOFError(f"{tar} ends too early") from error
            raise
        self.cache.put(key, data)
        return data


class Pages:
    """A block in the cache that stays open: its name, size and checksums are looked up once, not for each part."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` or `struct.error` if there is no such block."""
        self._file = path.open("rb", buffering=0)
        (self._length,) = struct.unpack("<Q", self._file.read(8))
        count = -(-self._length // _PAGE_BYTES)
        self._sums = self._file.read(4 * count)
        self._start = 8 + 4 * count
        self._used_s = -math.inf

    def part(self, offset: int, size: int) -> bytes | None:
        """Return a part, whose pages alone are read; None if they are damaged."""
        first, last = offset // _PAGE_BYTES, -(-(offset + size) // _PAGE_BYTES)
        with contextlib.suppress(OSError, struct.error):
            start, end = first * _PAGE_BYTES, min(last * _PAGE_BYTES, self._length)
            data = memoryview(os.pread(self._file.fileno(), end - start, self._start + start))
            sums = struct.unpack_from(f"<{last - first}I", self._sums, 4 * first)
            pages = (data[at : at + _PAGE_BYTES] for at in range(0, len(data), _PAGE_BYTES))
            if tuple(map(zlib.crc32, pages)) == sums:
                now_s = time.monotonic()
                if now_s > self._used_s + _USED_EVERY_S:
                    os.utime(self._file.fileno())
                    self._used_s = now_s
                return bytes(data[offset - start : offset - start + size])
        return None


class RangeCache:
    """Byte ranges in a local folder that processes share; the least recently used are evicted first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self.limit_bytes = folder, limit_bytes
        self._unswept: int | None = None
        """Bytes written since this process last checked the size; None before its first check."""

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        digest, data = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        # After a power failure a file may exist without its bytes.
        if hashlib.sha256(data).digest() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store a range; a cache that cannot be written is no error."""
        self._write(key, hashlib.sha256(data).digest(), data)

    def put_pages(self, key: str, data: bytes) -> bool:
        """Store a block of which parts are read from `open_pages`; returns whether it is stored."""
        pages = memoryview(data)
        sums = [zlib.crc32(pages[start : start + _PAGE_BYTES]) for start in range(0, len(data), _PAGE_BYTES)]
        return self._write(key, struct.pack(f"<Q{len(sums)}I", len(data), *sums), data)

    def open_pages(self, key: str) -> Pages | None:
        """Open a block to read parts of it; None if it is not there."""
        try:
            return Pages(self._path(key))
        except (OSError, struct.error):
            return None

    def has(self, key: str) -> bool:
        return self._path(key).exists()

    def open_lock(self) -> int:
        """Open the file whose bytes processes lock while they fetch a block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / ".fetching", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _write(self, key: str, head: bytes, data: bytes) -> bool:
        if len(data) > self.limit_bytes:
            return False
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when it is complete: other processes read the cache at the same time.
            file, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with open(file, "wb") as handle:
                    handle.writelines((head, data))
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            if self._unswept is None or self._unswept > self.limit_bytes // _SWEEPS_PER_FILL:
                self._sweep()
                self._unswept = 0
            self._unswept += len(data)
            return True
        return False

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name

    def _sweep(self) -> None:
        """Evict the least recently used files until there is some room, unless another process is doing so."""
        with (self._folder / ".sweep").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            files = []
            for file in self._folder.glob("??/*"):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    files.append((status.st_mtime_ns, status.st_size, file))
            # Down to somewhat less than the limit, so that the next write does not sweep again.
            room = self.limit_bytes * (_SWEEPS_PER_FILL - 1) // _SWEEPS_PER_FILL
            excess = sum(size for _, size, _ in files) - room
            for _, size, file in sorted(files):
                if excess <= 0:
                    return
                with contextlib.suppress(OSError):
                    file.unlink()
                    excess -= size
