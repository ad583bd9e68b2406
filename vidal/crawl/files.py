"""Copies local files and objects of a store into a clip's private folder, and hashes them on the way."""

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
    """Copy a file or object of at most ``max_bytes``; returns size and SHA-256. Raises `ClipError`.

    `Fetch.schemes` limits which addresses a list may contain; in any case they are only opened for reading.
    """
    try:
        is_file = scheme_of(url) == "file"
        source = _open_regular(os.path.join(base, path_of(url))) if is_file else fsspec.open(url, "rb").open()
        with source:
            return _copy(source, target, max_bytes)
    except FileNotFoundError as error:
        raise ClipError("missing", f"no such file: {url!r}") from error
    except (OSError, ValueError) as error:
        # A file without read permission is the clip's failure; a failing disk is the machine's.
        fault = None if isinstance(error, PermissionError) else machine_error(error, repr(url))
        raise fault or ClipError("unreadable", str(error)[:300]) from error


def path_of(url: str) -> str:
    """Return the path of a plain path or a percent-encoded ``file:`` address; raises `ClipError` for another host's.

    ``file:a%20b.mp4``, without slashes, is the relative path ``a b.mp4``. Such addresses can name files whose names are
    not UTF-8.
    """
    address = _FILE.fullmatch(url)
    if address is None:
        return url
    if (address[1] or "localhost").lower() != "localhost":
        raise ClipError(
            "unsupported_address", f"file://{address[1]}/… is a file of another machine; write file:///PATH or a path"
        )
    return os.fsdecode(unquote_to_bytes(address[2]))


def _open_regular(path: str) -> IO[bytes]:
    """Open a regular file. Does not block on a FIFO, and checks the open file, which no later rename can change."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ClipError("not_a_file", "only regular files are read")
    return os.fdopen(descriptor, "rb")


def _copy(source: IO[bytes], target: Path, max_bytes: int) -> tuple[int, str]:
    """Copy at most ``max_bytes``; returns size and SHA-256."""
    total, sha256 = 0, hashlib.sha256()
    with _storage_errors(target):
        file = target.open("wb")
    with file:
        while chunk := source.read(_CHUNK_BYTES):
            # Counted on the way, as a stated size may be wrong: files of /proc state 0.
            total += len(chunk)
            if total > max_bytes:
                raise ClipError("too_many_bytes", f"more than {max_bytes} bytes")
            sha256.update(chunk)
            with _storage_errors(target):
                file.write(chunk)
                # Within the block: a full disk that shows only at the closing would count as the clip's failure.
                file.flush()
    return total, sha256.hexdigest()


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    """Convert errors of writing the copy into a `StorageError`: they are never the clip's failure."""
    try:
        yield
    except OSError as error:
        raise machine_error(error, str(target.parent)) or StorageError(f"{target.parent}: {error}") from error
