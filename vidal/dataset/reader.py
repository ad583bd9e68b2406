"""`MemberReader`: bytes of tars, by place.

Local tars are read with ``pread`` through a few open descriptors; those of an object store by range, through a cache
on the local disk. A reader may be copied into other processes at any time: what is open is each process' own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections import OrderedDict
from pathlib import Path

from vidal.dataset.storage import Storage
from vidal.errors import ClipError, StorageError

_OPEN_FILES = 64
_SWEEP_EVERY_WRITES = 200


class BrokenSample(ClipError):
    """A sample whose bytes are not there; it is named and left out, never replaced."""

    def __init__(self, clip_id: str, layer: str, why: str) -> None:
        super().__init__("broken_sample", f"{clip_id}: {layer}: {why}")
        self.clip_id, self.layer, self.why = clip_id, layer, why

    def __reduce__(self) -> tuple[object, ...]:
        return (BrokenSample, (self.clip_id, self.layer, self.why))


class MemberReader:
    """Reads ranges of the tars of one data set."""

    def __init__(self, storage: Storage, *, cache: Path | None = None, cache_bytes: int = 8 << 30) -> None:
        self._storage = storage
        self._cache = cache or Path(os.environ.get("VIDAL_CACHE", Path.home() / ".cache" / "vidal")) / "ranges"
        self._cache_bytes = cache_bytes
        self._files: OrderedDict[str, int] = OrderedDict()
        self._pid = os.getpid()
        self._writes = 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": OrderedDict(), "_pid": 0}

    def read(self, tar: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a tar, by name or address; `OSError` where it is missing, `EOFError` where too short."""
        storage, name = self._storage.place(tar)
        local = storage.is_local
        data = self._pread(storage.path(name), offset, size) if local else self._cached(storage, name, offset, size)
        if len(data) != size:
            raise EOFError(f"{tar} ends {size - len(data)} bytes too early")
        return data

    def close(self) -> None:
        if self._pid == os.getpid():
            for descriptor in self._files.values():
                os.close(descriptor)
        self._files.clear()

    def _pread(self, path: str, offset: int, size: int) -> bytes:
        if self._pid != os.getpid():
            # After a fork the descriptors are shared with the parent, which may close them.
            self._files, self._pid = OrderedDict(), os.getpid()
        descriptor = self._files.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files[path] = descriptor
        if len(self._files) > _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        return os.pread(descriptor, size, offset)

    def _cached(self, storage: Storage, tar: str, offset: int, size: int) -> bytes:
        name = hashlib.sha256(f"{storage.address}/{tar}@{offset}+{size}".encode()).hexdigest()
        path = self._cache / name[:2] / name
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if len(data) == size:
                os.utime(path)
                return data
        try:
            data = storage.read_range(tar, offset, size)
        except StorageError as error:
            raise EOFError(str(error)) from error
        if self._cache_bytes:
            self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        """A cache that cannot be written is no error."""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            os.replace(file.name, path)
            self._writes += 1
            if self._writes % _SWEEP_EVERY_WRITES == 0:
                self._sweep()

    def _sweep(self) -> None:
        """Remove what was used longest ago, down to the limit."""
        found = []
        for file in self._cache.rglob("*"):
            with contextlib.suppress(OSError):
                if file.is_file():
                    about = file.stat()
                    found.append((about.st_mtime, about.st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._cache_bytes:
                return
            with contextlib.suppress(OSError):
                file.unlink()
                total -= size
