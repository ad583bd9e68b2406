"""Brings a candidate's file into the clip's private folder."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

import fsspec
from pydantic import Field

from vidal.clip import Clip
from vidal.errors import ClipError, StorageError, machine_error
from vidal.media.limits import MIB
from vidal.stage import Stage

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CHUNK_BYTES = MIB


class Fetch(Stage):
    """Copies a file of this machine or of an object store, hashing it on the way; nothing else may be named.

    A path is the choice of whoever wrote the list, so any is admitted, but it only ever is opened for
    reading: the copy is called ``source``, whatever the original's name.
    """

    writes: ClassVar[tuple[str, ...]] = ("source_file", "source_sha256", "source_bytes")
    whereabouts: ClassVar[tuple[str, ...]] = ("base",)

    base: str = ""
    """Folder against which relative paths are read; the engine fills in the list's own."""
    max_bytes: int = Field(512 * MIB, gt=0)
    schemes: tuple[str, ...] = ("s3", "gs", "gcs", "abfs", "memory")
    """fsspec protocols that a list may name beside plain paths and ``file://``."""

    def process(self, clip: Clip) -> None:
        if clip.work.folder is None:
            raise ValueError("fetch needs a private folder for the clip")
        target = clip.work.folder / "source"
        with self._open(clip.url) as source:
            clip.source_bytes, clip.source_sha256 = _copy(source, target, self.max_bytes)
        clip.work.source_path = target

    @contextmanager
    def _open(self, url: str) -> Iterator[IO[bytes]]:
        try:
            with self._opened(url) as file:
                yield file
        except FileNotFoundError as error:
            raise ClipError("missing", f"no such file: {url!r}") from error
        except (OSError, ValueError) as error:
            # No permission to read one file is that file's matter; a failing disk is the machine's.
            fault = None if isinstance(error, PermissionError) else machine_error(error, repr(url))
            raise fault or ClipError("unreadable", str(error)[:300]) from error

    def _opened(self, url: str) -> IO[bytes]:
        scheme = match[1].lower() if (match := _ADDRESS.match(url)) else "file"
        if scheme == "file":
            return _open_regular(os.path.join(self.base, url.removeprefix("file://")))
        if scheme not in self.schemes:
            raise ClipError("unsupported_address", f"fetch reads files and {', '.join(self.schemes)}, not {scheme}://")
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
