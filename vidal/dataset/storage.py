"""`Storage`: a folder on a local disk or in an object store, with atomic writes.

On a local disk a file is written under a temporary name, synced and renamed, and the folder is synced.
In an object store a put is atomic already. Names are relative to the folder and use ``/``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from vidal import extras
from vidal.errors import OutputError, StorageError, machine_error

TEMPORARY_SUFFIX = ".tmp"

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; and AWS_ENDPOINT_URL for a store not on AWS"
)

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""The errors of a file system without hard links."""


class Storage:
    """A folder at any address that fsspec supports: ``data/out``, ``s3://bucket/out``, ``memory://out``.

    Its methods raise `FileNotFoundError` for a missing file, and `StorageError` for every other failure.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") or "/"
        # Opened at the first use: an address is passed on by many that never look.
        self._fs: Any = None
        self._root = ""

    def __reduce__(self) -> tuple[object, ...]:
        # A file system holds connections and locks; the other process opens its own.
        return Storage, (self.address,)

    @property
    def fs(self) -> Any:
        if self._fs is None:
            try:
                self._fs, self._root = fsspec.core.url_to_fs(self.address)
            except (ValueError, ImportError) as error:
                if isinstance(error, ImportError) and (lack := extras.explained(error, self.address)):
                    raise lack from None
                raise OutputError(f"{self.address}: not an address that can be opened ({error})") from error
        return self._fs

    @property
    def is_local(self) -> bool:
        # fsspec gives a name or several: the local file system is `file` and `local`.
        protocol = self.fs.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def path(self, name: str = "") -> str:
        """Return the path of a name within the file system."""
        _ = self.fs
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def local_path(self, name: str = "") -> Path:
        """Return the path of a name on the local disk; only if `is_local`."""
        return Path(self.path(name))

    def place(self, name: str) -> tuple[Storage, str]:
        """Return the storage and the name within it, for a name, an absolute path or a whole address."""
        return (_elsewhere(name), "") if name.startswith("/") or "://" in name else (self, name)

    def child(self, name: str) -> Storage:
        return Storage(f"{self.address}/{name}")

    def exists(self, name: str = "") -> bool:
        with self._errors(name):
            return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Return the sorted base names in a folder, without temporary files; empty if there is no such folder."""
        with self._errors(folder):
            try:
                # s3fs caches listings, in which another process's commits would be missing.
                entries = self.fs.ls(self.path(folder), detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted(n for n in names if n and not n.startswith(".") and not n.endswith(TEMPORARY_SUFFIX))

    def read(self, name: str) -> bytes:
        with self._errors(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; raises `StorageError` if the file is shorter."""
        with self._errors(name):
            data = bytes(self.fs.cat_file(self.path(name), start=offset, end=offset + size))
        if len(data) != size:
            raise StorageError(f"{self.path(name)}: {len(data)} bytes at {offset} instead of {size}")
        return data

    def size(self, name: str) -> int:
        with self._errors(name):
            return int(self.fs.size(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file atomically: readers see either the old one or the new one."""
        if not self.is_local:
            with self._errors(name, writing=True):
                self.fs.pipe_file(self.path(name), data)
            return
        temporary = self.temporary(name)
        with self._errors(name, writing=True):
            try:
                with open(temporary, "wb") as handle:
                    handle.write(data)
                    # Synced before the rename: after a power cut, a renamed file could be empty otherwise.
                    handle.flush()
                    os.fsync(handle.fileno())
                self.rename_temporary(temporary, name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def temporary(self, name: str) -> Path:
        """Return a path beside the final one that readers ignore and no other process uses; creates the folder."""
        final = self.local_path(name)
        with self._errors(name, writing=True):
            final.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, as a rename is atomic within one file system only; two hosts may share the folder.
        return final.parent / f".{final.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY_SUFFIX}"

    def rename_temporary(self, temporary: Path, name: str) -> None:
        """Rename a synced temporary file to its final name, durably."""
        with self._errors(name, writing=True):
            final = self.local_path(name)
            os.replace(temporary, final)
            # The name itself is an entry of the folder, which is written back on its own.
            sync_folder(final.parent)

    def upload(self, local: Path, name: str) -> None:
        """Upload a local file to the object store."""
        with self._errors(name, writing=True):
            self.fs.put_file(str(local), self.path(name))

    def create_exclusively(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists; returns whether it was written."""
        with self._errors(name, writing=True), contextlib.suppress(FileExistsError):
            if not self.is_local:
                # On S3 a put with If-None-Match: the store itself refuses the second writer.
                self.fs.pipe_file(self.path(name), data, mode="create")
                return True
            temporary = self.temporary(name)
            try:
                temporary.write_bytes(data)
                # A hard link has its content from the start: no reader sees an empty file.
                os.link(temporary, self.local_path(name))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with open(self.local_path(name), "xb") as handle:
                    handle.write(data)
            finally:
                temporary.unlink(missing_ok=True)
            return True
        return False

    def remove(self, name: str) -> None:
        """Delete a file, or a folder with its contents, if it exists."""
        with self._errors(name), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)
            if self.is_local:
                sync_folder(self.local_path(name).parent)

    def remove_temporaries(self) -> None:
        """Delete the temporary files of a killed run; only for the run that holds the lock."""
        if self.is_local and self.local_path().is_dir():
            for leftover in self.local_path().rglob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Return the free space on the local disk; None for an object store."""
        if not self.is_local:
            return None
        folder = self.local_path()
        # An output folder is made only when its run begins.
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    @contextlib.contextmanager
    def _errors(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Convert errors into a `StorageError` with the place; a reader still gets `FileNotFoundError`."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)) and not writing:
                raise FileNotFoundError(*error.args) from error
            place = f"{self.address}/{name}" if name else self.address
            raise machine_error(error, place) or StorageError(f"{place}: {error}") from error
        except Exception as error:
            # By name, as the libraries of an object store need not be installed.
            if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "s3fs")):
                raise
            if "Credentials" in type(error).__name__:
                raise StorageError(f"{self.address}: {error}; {_CREDENTIALS}") from error
            raise StorageError(f"{self.address}/{name}: {type(error).__name__}: {error}") from error


_elsewhere = functools.lru_cache(maxsize=1024)(Storage)


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk: a rename in it is only durable afterwards."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
