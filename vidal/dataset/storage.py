"""`Storage`: a folder on a local disk or in an object store, with atomic writes.

On a local disk a file is written under a temporary name, synced and renamed, and the folder is synced.
In an object store a put is atomic already. Names are relative to the folder and use ``/``.

A storage with a `Fence` is written only while its owner holds the lock of `vidal.dataset.lock`. On a local disk each
write first makes its temporary file, then asks the fence, then renames; whoever takes the lock over deletes all
temporary files before anything else, so a rename of the earlier owner fails however late it comes. On S3 each write
depends on the token that the file had before the fence was asked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec
import fsspec.asyn
from fsspec.implementations.local import LocalFileSystem

from vidal import extras
from vidal.dataset import conditional, local_disk, s3
from vidal.errors import OutputError, StorageError, machine_error

TEMPORARY_SUFFIX = ".tmp"

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; and AWS_ENDPOINT_URL for a store not on AWS"
)
_MOST_TRIES = 5


class Fence(Protocol):
    """Says whether its owner may still write; travels to the owner's workers with the storage."""

    def check(self) -> None:
        """Raise `MachineError` if the lock is another owner's by now."""


class Storage:
    """A folder at any address that fsspec supports: ``data/out``, ``s3://bucket/out``, ``memory://out``.

    Its methods raise `FileNotFoundError` for a missing file, and `StorageError` for every other failure.
    """

    def __init__(self, address: str, fence: Fence | None = None) -> None:
        self.address = address.rstrip("/") or "/"
        self.fence = fence
        """Asked before every write; None for what nobody else writes."""
        # Opened at the first use: an address is passed on by many that never look. By process, as a store's client does
        # not survive a fork; the parent's is kept, since its end would wait for a thread that the fork does not have.
        self._fs: dict[int, Any] = {}
        self._root = ""
        self._leftovers: dict[Path, list[Path]] = {}
        """Temporary files by folder, that were there when it was first written to."""

    def __reduce__(self) -> tuple[object, ...]:
        # A file system holds connections and locks; the other process opens its own.
        return Storage, (self.address, self.fence)

    @property
    def fs(self) -> Any:
        """The fsspec file system, one for each process; raises `OutputError` if the address cannot be opened."""
        if os.getpid() not in self._fs:
            try:
                options = s3.options() if s3.is_address(self.address) else {}
                self._fs[os.getpid()], self._root = fsspec.core.url_to_fs(self.address, **options)
            except (ValueError, ImportError) as error:
                if isinstance(error, ImportError) and (lack := extras.explained(error, self.address)):
                    raise lack from None
                raise OutputError(f"{self.address}: not an address that can be opened ({error})") from error
        return self._fs[os.getpid()]

    @property
    def is_local(self) -> bool:
        """Whether the storage is a folder on a disk of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str = "") -> str:
        """Return the path of a name within the file system."""
        # Opened first, as that sets the root.
        _ = self.fs
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def local_path(self, name: str = "") -> Path:
        """Return the path of a name on the local disk; only if `is_local`."""
        return Path(self.path(name))

    def place(self, name: str) -> tuple[Storage, str]:
        """Return the storage and the name within it, for a name, an absolute path or a whole address."""
        return (_elsewhere(name), "") if name.startswith("/") or "://" in name else (self, name)

    def child(self, name: str) -> Storage:
        """Return the storage of a folder within this one, under the same fence."""
        return Storage(f"{self.address}/{name}", self.fence)

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or folder of this name; raises `StorageError`."""
        with self.errors(name):
            return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Return the sorted base names in a folder, without temporary files; empty if there is no such folder."""
        return list(self.listed(folder))

    def listed(self, folder: str, *, min_bytes: int = 0) -> dict[str, str | None]:
        """Return the same names with the `token` of each; None where a listing has none, as on a local disk.

        With ``min_bytes``, names of smaller files are left out, which on a local disk takes a look at each file.
        """
        with_details = min_bytes > 0 or not self.is_local
        with self.errors(folder):
            try:
                # s3fs caches listings, in which another process's commits would be missing.
                entries = self.fs.ls(self.path(folder), detail=with_details, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        tokens = {
            str(entry["name"]): entry.get("ETag") for entry in entries if not min_bytes or entry["size"] >= min_bytes
        } if with_details else dict.fromkeys(map(str, entries))  # fmt: skip
        names = {path.rstrip("/").rsplit("/", 1)[-1]: token for path, token in tokens.items()}
        return {n: names[n] for n in sorted(names) if n and not n.startswith(".") and not n.endswith(TEMPORARY_SUFFIX)}

    def read(self, name: str) -> bytes:
        """Return the bytes of a whole file; raises `FileNotFoundError` and `StorageError`."""
        with self.errors(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; raises `StorageError` if the file is shorter."""
        with self.errors(name):
            place, end = self.path(name), offset + size
            if s3.is_address(self.address) and size:
                data: bytes = fsspec.asyn.sync(self.fs.loop, s3.read_range, self.fs, place, offset, end)
            else:
                data = bytes(self.fs.cat_file(place, start=offset, end=end))
        if len(data) != size:
            raise StorageError(f"{self.path(name)}: {len(data)} bytes at {offset} instead of {size}")
        return data

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; raises `FileNotFoundError` and `StorageError`."""
        with self.errors(name):
            return int(self.fs.size(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file atomically: readers see either the old one or the new one."""
        if self.is_local:
            with self.writer(name) as handle:
                handle.write(data)
        elif self.fence is None:
            with self.errors(name, writing=True):
                self.fs.pipe_file(self.path(name), data)
        else:
            self._put_over(name, lambda expected: self._swap(name, data, expected))

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to write in parts, which becomes the whole file at the end, atomically as in `write`."""
        with self.errors(name, writing=True), contextlib.ExitStack() as stack:
            if self.is_local:
                path = self.temporary(name)
                stack.callback(path.unlink, missing_ok=True)
            else:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidal-")), "file")
            with local_disk.synced(path) as handle:
                yield handle
            if self.is_local:
                self.rename_temporary(path, name)
            else:
                # In one put, whose fence is that of `write`.
                self.write(name, path.read_bytes())

    @contextlib.contextmanager
    def _as_temporary(self, name: str, data: bytes) -> Iterator[Path]:
        """Give a synced temporary file, which is deleted unless it was renamed."""
        temporary = self.temporary(name)
        try:
            with local_disk.synced(temporary) as handle:
                handle.write(data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def temporary(self, name: str) -> Path:
        """Return a path beside the final one that readers ignore and no other process uses; creates the folder."""
        final = self.local_path(name)
        with self.errors(name, writing=True):
            final.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, as a rename is atomic within one file system only; two hosts may share the folder.
        beginning = f".{final.name}.{socket.gethostname()}."
        if self.fence is None:
            # Under a lock, its owner has deleted them all. Looked for once, as a folder has many files.
            if final.parent not in self._leftovers:
                self._leftovers[final.parent] = list(final.parent.glob(f"*{TEMPORARY_SUFFIX}"))
            local_disk.remove_of_the_dead(self._leftovers[final.parent], beginning)
        return final.parent / f"{beginning}{os.getpid()}{TEMPORARY_SUFFIX}"

    def rename_temporary(self, temporary: Path, name: str) -> None:
        """Rename a synced temporary file to its final name, durably."""
        self._ask_fence()
        with self.errors(name, writing=True):
            final = self.local_path(name)
            try:
                os.replace(temporary, final)
            except FileNotFoundError:
                # Whoever took the lock over since the fence was asked has deleted it.
                self._ask_fence()
                raise
            # The name itself is an entry of the folder, which is written back on its own.
            local_disk.sync_folder(final.parent)

    def upload(self, local: Path, name: str) -> None:
        """Upload a local file to the object store."""

        def put(expected: str | None) -> bool:
            if expected is not None and not conditional.delete(self.fs, self.path(name), expected):
                return False
            return conditional.put_file(self.fs, local, self.path(name))

        if self.fence is not None and conditional.is_s3(self.fs):
            self._put_over(name, put)
            return
        self._ask_fence()
        with self.errors(name, writing=True):
            self.fs.put_file(str(local), self.path(name))

    def _put_over(self, name: str, put: Callable[[str | None], object]) -> None:
        """Write over what is there by a function that takes its token, and is refused once another one has written."""
        for _ in range(_MOST_TRIES):
            expected = self.token(name)
            # Between the two: what a later owner writes from here on has another token, and the put is refused.
            self._ask_fence()
            with self.errors(name, writing=True):
                if put(expected):
                    return
        raise StorageError(f"{self.address}/{name}: another process writes it at the same time")

    def token(self, name: str) -> str | None:
        """Return what is another after every write of a file; None if there is no such file."""
        try:
            with self.errors(name):
                if self.is_local:
                    return local_disk.token(self.local_path(name))
                if conditional.is_s3(self.fs):
                    return conditional.token(self.fs, self.path(name))
                return str(self.fs.ukey(self.path(name)))
        except FileNotFoundError:
            return None

    def create(self, name: str, data: bytes) -> str | None:
        """Write a small file unless it exists, and return its token; None if it does: of several, one creates it."""
        with self.errors(name, writing=True):
            if not self.is_local:
                self._ask_fence()
                return self._swap(name, data, None)
            with self._as_temporary(name, data) as temporary:
                self._ask_fence()
                try:
                    return local_disk.create(temporary, self.local_path(name))
                except FileNotFoundError:
                    # The temporary file: deleted by whoever has taken the lock.
                    self._ask_fence()
                    return None

    def swap(self, name: str, data: bytes | None, expected: str) -> str | None:
        """Replace a file, or delete it (``data`` is None), if its token is the ``expected`` one.

        Returns the new token, or of a deleted file the old one; None if the file is another one by now. Exact on S3,
        and for a deletion on a local disk; a local replacement looks at the token just before it renames.
        """
        with self.errors(name, writing=True):
            if not self.is_local:
                self._ask_fence()
                return self._swap(name, data, expected)
            if data is None:
                self._ask_fence()
                is_gone = local_disk.take_away(self.local_path(name), self.temporary(name), expected)
                return expected if is_gone else None
            with self._as_temporary(name, data) as temporary:
                if self.token(name) != expected:
                    return None
                self.rename_temporary(temporary, name)
            return local_disk.token(self.local_path(name))

    def _swap(self, name: str, data: bytes | None, expected: str | None) -> str | None:
        """Compare and swap in the object store; one without conditional puts is asked first, and then written."""
        path = self.path(name)
        if conditional.is_s3(self.fs):
            if data is not None:
                return conditional.put(self.fs, path, data, expected)
            return expected if expected and conditional.delete(self.fs, path, expected) else None
        if expected is not None and self.token(name) != expected:
            return None
        if data is None:
            self.fs.rm_file(path)
            return expected
        try:
            self.fs.pipe_file(path, data, mode="overwrite" if expected else "create")
        except FileExistsError:
            return None
        return self.token(name)

    def _ask_fence(self) -> None:
        if self.fence is not None:
            self.fence.check()

    def remove(self, name: str) -> None:
        """Delete a file, or a folder with its contents, if it exists."""
        self._ask_fence()
        with self.errors(name), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)
            if self.is_local:
                local_disk.sync_folder(self.local_path(name).parent)

    def remove_temporaries(self) -> None:
        """Delete the temporary files and folders of a killed run; only for the run that holds the lock."""
        if self.is_local:
            local_disk.remove_all(self.local_path(), f".*{TEMPORARY_SUFFIX}")

    @contextlib.contextmanager
    def errors(self, name: str, *, writing: bool = False) -> Iterator[None]:
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


# One for each foreign tar: it is asked for with every member, and a file system takes time to open.
_elsewhere = functools.lru_cache(maxsize=1024)(Storage)
