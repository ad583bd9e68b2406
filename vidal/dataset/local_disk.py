"""Files of a local disk below `Storage`, as `conditional` for S3: created once, taken away if unchanged, and durable.

A token is made of a file's number, time and size.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""The errors of a file system without hard links."""


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which is synced at the end: a renamed one could be empty after a power cut otherwise."""
    with open(path, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def token(path: Path) -> str:
    """Return the token of a file; raises `FileNotFoundError`."""
    status = path.stat()
    # The number of a deleted file is soon another's; that has another time.
    return f"{status.st_ino}.{status.st_mtime_ns}.{status.st_size}"


def create(temporary: Path, final: Path) -> str | None:
    """Give a synced temporary file its final name unless that exists, and return its token; None if it does."""
    try:
        # A hard link has its content from the start: no reader sees an empty file.
        os.link(temporary, final)
    except FileExistsError:
        # On NFS, a link whose answer was lost is made again by the client, and refused because it had succeeded.
        if not (temporary.exists() and os.path.samefile(temporary, final)):
            return None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with open(final, "xb") as handle:
                handle.write(temporary.read_bytes())
        except FileExistsError:
            return None
    sync_folder(final.parent)
    return token(final)


def take_away(final: Path, aside: Path, expected: str) -> bool:
    """Delete a file if its token is the expected one: take it aside, look, and put another one back."""
    try:
        os.rename(final, aside)
    except FileNotFoundError:
        return False
    is_expected = token(aside) == expected
    if not is_expected:
        with contextlib.suppress(FileExistsError):
            os.link(aside, final)
    aside.unlink(missing_ok=True)
    sync_folder(final.parent)
    return is_expected


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk: a rename in it is only durable afterwards."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_all(folder: Path, pattern: str) -> None:
    """Delete the files and folders anywhere in a folder whose names match."""
    for path in list(folder.rglob(pattern)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_of_the_dead(files: Iterable[Path], beginning: str) -> None:
    """Delete files whose names are ``beginning`` and the id of a process of this host that is dead."""
    for file in files:
        pid = file.stem.removeprefix(beginning)
        if file.name.startswith(beginning) and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)
