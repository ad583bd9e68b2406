"""The tree of all exceptions that vidal raises; a class that only one module raises is defined there.

VidalError
├── UserError          usage error, which the caller can fix: exit code 2
│   ├── RecipeError    a recipe or a setting is wrong
│   ├── SourceError    the list, folder or dataset of candidates is wrong
│   │   ├── CellError   one cell of a list cannot be read: it becomes a fault in the report (vidal.sources.cells)
│   │   ├── NothingSelectedError  a condition selects no sample (vidal.reader.samples)
│   │   └── NothingNewError  every candidate of the source is in the dataset already
│   ├── BadRequestError  the viewer's server does not answer a request (vidal.view.server)
│   └── OutputError    the output folder belongs to a different recipe or another run
├── MachineError       environment error: exit code 1, the run stops at once
│   ├── StorageError   disk full, read-only, no permission, storage service unavailable
│   │   └── UncommittedError  a shard has no manifest, or none any more (vidal.dataset.dataset)
│   ├── ToolError      ffmpeg missing or too old
│   ├── ModelError     a model cannot be loaded
│   ├── LostLockError  another run has taken the lock over (vidal.dataset.lock)
│   ├── OpenShardsError  shards stay open for another run (vidal.engine.driver)
│   └── DivergedError  a training has diverged, on every rank
├── NotNowError        a stage cannot build a shard now: the shard stays open, and the run goes on
├── InterruptedRunError  the user interrupted a run that can be resumed: exit code 130
└── ClipError          one clip cannot be processed: it becomes that clip's `failed` row
    ├── FetchError     one address could not be fetched (vidal.crawl.reasons)
    ├── RefusedError   the guard forbids an address, a connection or a system call (vidal.crawl.guard)
    ├── MalformedReplyError  a server's reply does not match the schema (vidal.models.openai_server)
    └── BrokenSampleError    a sample's bytes are missing or damaged (vidal.reader.ranges)

VidalWarning           something that the user should know; the run continues
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


class VidalError(Exception):
    """Root of the tree. The message is one line: what is wrong, where, and how to fix it."""

    exit_code = 1


class UserError(VidalError):
    """A usage error, which the caller can fix."""

    # The exit code of Click for a wrong command line.
    exit_code = 2


class RecipeError(UserError):
    """A recipe or a setting is wrong."""


class SourceError(UserError):
    """The candidates cannot be read."""


class NothingNewError(SourceError):
    """Every candidate of the source is in the dataset already."""


class OutputError(UserError):
    """The output folder cannot be used."""


class MachineError(VidalError):
    """An environment error, such as a full disk: never recorded as a clip's failure."""


class StorageError(MachineError):
    """Reading from or writing to storage failed."""


class ToolError(MachineError):
    """An external program is missing or unsuitable."""


class ModelError(MachineError):
    """A model cannot be loaded."""


class DivergedError(MachineError):
    """The loss or the gradient of a training is not finite; raised on every rank."""


class NotNowError(VidalError):
    """A shard cannot be built now: raised by a stage, it leaves the shard open for another run, and no clip fails.

    ``what`` is in the way, such as a host; ``reason`` is a code of the manifest; it may be tried again ``at``, in
    seconds since the epoch.
    """

    def __init__(self, what: str, reason: str, at: float) -> None:
        super().__init__(what, reason, at)
        self.what = what
        self.reason = reason
        self.at = at

    def __str__(self) -> str:
        return f"{self.what} ({self.reason}) until {time.strftime('%F %T UTC', time.gmtime(math.ceil(self.at)))}"


class InterruptedRunError(VidalError):
    """The user interrupted a run; the message says how to resume it."""

    # 128 + SIGINT, as a shell reports it.
    exit_code = 130


class ClipError(VidalError):
    """One clip cannot be processed.

    ``reason`` is a code of the manifest (``undecodable``, ``no_video``, ``timeout``). A ``transient`` failure may not
    recur: ``vidal retry`` retries it.
    """

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is unpickled from its positional arguments alone, and `transient` is none of them.
        return (partial(ClipError, transient=self.transient), (self.reason, self.detail))


class VidalWarning(UserWarning):
    """Something that the user should know; the run continues."""


def one_line(error: BaseException, most: int = 120) -> str:
    """Return an error's message in one line: those of libraries may be pages."""
    return " ".join(str(error).split())[:most]


# What every further clip would meet as well, so that it is no clip's failure.
_MACHINE_ERRNOS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another --out",
    errno.EACCES: "permission denied; fix the permissions or choose another --out",
    errno.EPERM: "permission denied; fix the permissions or choose another --out",
    errno.EIO: "the device reports an input/output error; check the disk",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files",
}


def machine_error(error: BaseException, where: str) -> MachineError | None:
    """Return the `MachineError` for an error of the operating system; None if it is no environment error."""
    if isinstance(error, MachineError):
        return error
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        return StorageError(f"{where}: {_MACHINE_ERRNOS[error.errno]} ({error})")
    return None


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Raise `StorageError`, with the place, for an error of the operating system within the block."""
    try:
        yield
    except OSError as error:
        raise machine_error(error, place) or StorageError(f"{place}: {error}") from error
