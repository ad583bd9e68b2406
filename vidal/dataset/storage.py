"""`Storage`: one folder on a local disk or in an object store, with writes that are whole or not there.

On a local disk a file is written under a temporary name, synced and renamed, and the folder is synced.
On an object store a put is already atomic. Names are relative to the root and use ``/``.
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
"""What a file system without hard links answers."""


class Storage:
    """A folder named by any address that fsspec knows: ``data/out``, ``s3://bucket/out``, ``memory://out``."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") or "/"
        self._fs: Any = None
        self._root = ""

    def __getstate__(self) -> str:
        return self.address

    def __setstate__(self, address: str) -> None:
        self.__init__(address)  # type: ignore[misc]

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
        return "file" in _protocols(self.fs)

    def path(self, name: str = "") -> str:
        """The file system's own path of a name."""
        _ = self.fs
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def local_path(self, name: str = "") -> Path:
        """The path on this disk; only where `is_local`."""
        return Path(self.path(name))

    def place(self, name: str) -> tuple[Storage, str]:
        """The storage and name of a name, which may be a whole address or an absolute path of another place."""
        return (_elsewhere(name), "") if name.startswith("/") or "://" in name else (self, name)

    def child(self, name: str) -> Storage:
        return Storage(f"{self.address}/{name}")

    def exists(self, name: str = "") -> bool:
        with self._errors(name):
            return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """The base names in a folder, sorted, temporary ones left out; empty where there is no folder."""
        with self._errors(folder):
            try:
                entries = self.fs.ls(self.path(folder), detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted(n for n in names if n and not n.startswith(".") and not n.endswith(TEMPORARY_SUFFIX))

    def read(self, name: str) -> bytes:
        with self._errors(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; a short answer is an error, never a short value."""
        with self._errors(name):
            data = bytes(self.fs.cat_file(self.path(name), start=offset, end=offset + size))
        if len(data) != size:
            raise StorageError(f"{self.path(name)}: {len(data)} bytes at {offset} where {size} were promised")
        return data

    def size(self, name: str) -> int:
        with self._errors(name):
            return int(self.fs.size(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file; readers see the old one or the new one."""
        if not self.is_local:
            with self._errors(name, writing=True):
                self.fs.pipe_file(self.path(name), data)
            return
        temporary = self.temporary(name)
        with self._errors(name, writing=True):
            try:
                with open(temporary, "wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
                self.rename_temporary(temporary, name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def temporary(self, name: str) -> Path:
        """A path beside the final one that no reader looks at and no other process uses; makes the folder."""
        final = self.local_path(name)
        with self._errors(name, writing=True):
            final.parent.mkdir(parents=True, exist_ok=True)
        return final.parent / f".{final.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY_SUFFIX}"

    def rename_temporary(self, temporary: Path, name: str) -> None:
        """Give a synced temporary file its final name, durably."""
        with self._errors(name, writing=True):
            final = self.local_path(name)
            os.replace(temporary, final)
            _sync_folder(final.parent)

    def upload(self, local: Path, name: str) -> None:
        """Put a local file into the object store."""
        with self._errors(name, writing=True):
            self.fs.put_file(str(local), self.path(name))

    def create_exclusively(self, name: str, data: bytes) -> bool:
        """Write a small file if it is not there; False if it is."""
        with self._errors(name, writing=True):
            if self.is_local:
                return self._link_exclusively(name, data)
            try:
                self.fs.pipe_file(self.path(name), data, mode="create")
            except FileExistsError:
                return False
            return True

    def _link_exclusively(self, name: str, data: bytes) -> bool:
        """A link comes into being with its content, so that no reader ever sees an empty file."""
        temporary = self.temporary(name)
        try:
            temporary.write_bytes(data)
            os.link(temporary, self.local_path(name))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_in_place(name, data)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_in_place(self, name: str, data: bytes) -> bool:
        try:
            with open(self.local_path(name), "xb") as handle:
                handle.write(data)
        except FileExistsError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens where there is none."""
        with self._errors(name), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)
            if self.is_local:
                _sync_folder(self.local_path(name).parent)

    def remove_temporaries(self) -> None:
        """Sweep what a killed run left; only for the run that holds the lock."""
        if self.is_local and self.local_path().is_dir():
            for leftover in self.local_path().rglob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Free space, where that is known."""
        if not self.is_local:
            return None
        folder = self.local_path()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    @contextlib.contextmanager
    def _errors(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Turn what storage refuses into one line with the place; a reader still meets `FileNotFoundError`."""
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
            if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "s3fs")):
                raise
            if "Credentials" in type(error).__name__:
                raise StorageError(f"{self.address}: {error}; {_CREDENTIALS}") from error
            raise StorageError(f"{self.address}/{name}: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=1024)
def _elsewhere(address: str) -> Storage:
    return Storage(address)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
