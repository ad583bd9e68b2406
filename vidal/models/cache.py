"""The user's cache, and its lock, by which one process of a machine makes what several need."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def root() -> Path:
    """Return the folder of the cache: ``VIDAL_CACHE``, by default ``~/.cache/vidal``."""
    return Path(os.environ.get("VIDAL_CACHE") or Path.home() / ".cache" / "vidal")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process of this machine is within such a block; raises `OSError` where there is no cache."""
    root().mkdir(mode=0o700, parents=True, exist_ok=True)
    # The folder is locked itself, so that no file for the lock stays behind.
    lock = os.open(root(), os.O_RDONLY)
    try:
        # Not every file system has locks; without one, each process makes its own.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
