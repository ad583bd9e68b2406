"""`MemberReader`: bytes of tars, by place.

Local tars are read with ``pread`` through a few open descriptors; those of an object store by range, through a cache
on the local disk. A reader may be copied into other processes at any time: what is open is each process' own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from vidal.dataset.storage import Storage
from vidal.errors import ClipError, StorageError, machine_error

CACHE_BYTES = 8 << 30
_OPEN_FILES = 64
_SWEEPS_PER_FILL = 16
"""A process looks at the cache's size when it has written this part of what the cache may hold."""
_DIGEST_BYTES = 32


class BrokenSampleError(ClipError):
    """A sample whose bytes are not there; it is named and left out, never replaced."""

    def __init__(self, clip_id: str, layer: str, why: str) -> None:
        super().__init__("broken_sample", f"{clip_id}: {layer}: {why}")
        self.clip_id, self.layer, self.why = clip_id, layer, why

    def __reduce__(self) -> tuple[object, ...]:
        return (BrokenSampleError, (self.clip_id, self.layer, self.why))


class MemberReader:
    """Reads ranges of the tars of one data set."""

    def __init__(self, storage: Storage, *, cache: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self._storage = storage
        folder = cache or Path(os.environ.get("VIDAL_CACHE", Path.home() / ".cache" / "vidal"))
        self._cache = RangeCache(folder / "ranges", cache_bytes)
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        return {"_storage": self._storage, "_cache": self._cache}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, tar: str, offset: int, size: int, content: bytes = b"") -> bytes:
        """``size`` bytes of a tar, by name or address; ``content`` tells other bytes at the same place apart.

        Raises `OSError` where the tar is missing, `EOFError` where it is too short, and `StorageError` where storage
        itself is at fault.
        """
        if self._pid != os.getpid():
            # A fork shares descriptors with the parent, which may close them; and no object store's client outlives it.
            self._forget()
        storage, name = self._storage.place(tar)
        if storage.is_local:
            data = self._pread(storage.path(name), offset, size)
        else:
            data = self._ranged(storage, tar, offset, size, content)
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
        self._stores: dict[str, Storage] = {}
        self._pid = os.getpid()

    def _pread(self, path: str, offset: int, size: int) -> bytes:
        try:
            descriptor = self._files.pop(path, None)
            if descriptor is None:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._files[path] = descriptor
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            return os.pread(descriptor, size, offset)
        except OSError as error:
            raise machine_error(error, path) or error from None

    def _ranged(self, storage: Storage, tar: str, offset: int, size: int, content: bytes) -> bytes:
        key = f"{storage.address}/{tar}@{offset}+{size}#{content.hex()}"
        data = self._cache.get(key)
        if data is not None:
            return data
        mine = self._stores.setdefault(storage.address, Storage(storage.address))
        name = tar if storage is self._storage else ""
        try:
            data = mine.read_range(name, offset, size)
        except StorageError as error:
            if mine.size(name) < offset + size:
                raise EOFError(f"{tar} ends too early") from error
            raise
        self._cache.put(key, data)
        return data


class RangeCache:
    """Byte ranges in a local folder, which processes share; what was used longest ago goes first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._unswept: int | None = None
        """Bytes written since this process last looked at the size; None before its first look."""

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        digest, data = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        # A machine that lost power may have kept a file's name and not its bytes.
        if hashlib.sha256(data).digest() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep a range; a cache that cannot be written is no error."""
        if len(data) > self._limit:
            return
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_beside(path) as file:
                os.write(file, hashlib.sha256(data).digest())
                with open(file, "wb", closefd=False) as handle:
                    handle.write(data)
            if self._unswept is None or self._unswept > self._limit // _SWEEPS_PER_FILL:
                self._sweep()
                self._unswept = 0
            self._unswept += len(data)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name

    def _sweep(self) -> None:
        """Remove what was used longest ago until some room is left, unless another process is at it."""
        with (self._folder / ".sweep").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            found = []
            for file in self._folder.glob("??/*"):
                with contextlib.suppress(OSError):
                    about = file.stat()
                    found.append((about.st_mtime_ns, about.st_size, file))
            too_much = sum(size for _, size, _ in found) - self._limit * (_SWEEPS_PER_FILL - 1) // _SWEEPS_PER_FILL
            for _, size, file in sorted(found):
                if too_much <= 0:
                    return
                with contextlib.suppress(OSError):
                    file.unlink()
                    too_much -= size


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[int]:
    """A descriptor of a file that takes the path's place once it is whole."""
    file, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        try:
            yield file
        finally:
            os.close(file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
