"""Files of this machine and of object stores, copied into a clip's private folder and hashed on the way."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote_to_bytes

import fsspec

from vidal.addresses import scheme_of
from vidal.errors import ClipError, StorageError, machine_error
from vidal.media.limits import MIB

_FILE = re.compile(r"file:(?://([^/]*))?(.*)", re.IGNORECASE | re.DOTALL)
_CHUNK_BYTES = MIB


def copy(url: str, target: Path, *, base: str, max_bytes: int) -> tuple[int, str]:
    """Copy at most ``max_bytes``; gives the size and the SHA-256. Raises `ClipError`.

    What a list may name is for `Fetch.schemes` to say; whatever it is, it only ever is opened for reading.
    """
    try:
        with _opened(url, base) as source:
            return _copy(source, target, max_bytes)
    except FileNotFoundError as error:
        raise ClipError("missing", f"no such file: {url!r}") from error
    except (OSError, ValueError) as error:
        # No permission to read one file is that file's matter; a failing disk is the machine's.
        fault = None if isinstance(error, PermissionError) else machine_error(error, repr(url))
        raise fault or ClipError("unreadable", str(error)[:300]) from error


def path_of(url: str) -> str:
    """The path of a plain path or of a ``file:`` address, which is percent-encoded; raises `ClipError`.

    ``file:a%20b.mp4``, without slashes, is relative as the path ``a b.mp4`` is: it can name what is no UTF-8.
    """
    address = _FILE.fullmatch(url)
    if address is None:
        return url
    if (address[1] or "localhost").lower() != "localhost":
        raise ClipError(
            "unsupported_address", f"file://{address[1]}/… is a file of another machine; write file:///PATH or a path"
        )
    return os.fsdecode(unquote_to_bytes(address[2]))


def _opened(url: str, base: str) -> IO[bytes]:
    if scheme_of(url) == "file":
        return _open_regular(os.path.join(base, path_of(url)))
    opened: IO[bytes] = fsspec.open(url, "rb").open()
    return opened


def _open_regular(path: str) -> IO[bytes]:
    """Open without waiting for a FIFO's writer, and ask what was opened rather than what the name stood for before."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ClipError("not_a_file", "only regular files are read")
    return os.fdopen(descriptor, "rb")


def _copy(source: IO[bytes], target: Path, max_bytes: int) -> tuple[int, str]:
    """Copy at most ``max_bytes``; gives the size and the SHA-256."""
    total, sha256 = 0, hashlib.sha256()
    with _blaming_storage(target):
        file = target.open("wb")
    with file:
        while chunk := source.read(_CHUNK_BYTES):
            total += len(chunk)
            if total > max_bytes:
                raise ClipError("too_many_bytes", f"more than {max_bytes} bytes")
            sha256.update(chunk)
            with _blaming_storage(target):
                file.write(chunk)
                file.flush()
    return total, sha256.hexdigest()


@contextmanager
def _blaming_storage(target: Path) -> Iterator[None]:
    """An error in writing the copy is the machine's, never the clip's."""
    try:
        yield
    except OSError as error:
        raise machine_error(error, str(target.parent)) or StorageError(f"{target.parent}: {error}") from error
