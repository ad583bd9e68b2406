"""Every exception that vidal raises; a class that one part alone raises is defined there.

VidalError
├── UserError          the caller can mend it: exit code 2
│   ├── RecipeError    a recipe or a setting is wrong
│   ├── SourceError    the list, folder or dataset of candidates is wrong
│   │   ├── CellError   one cell of a list cannot be read: it becomes a fault in the report (vidal.sources.cells)
│   │   └── NothingNewError  every candidate of the source is in the dataset that is to grow
│   └── OutputError    the output folder belongs to another recipe or another run
├── MachineError       this machine cannot do the work: exit code 1, the run stops at once
│   ├── StorageError   disk full, read-only, no permission, storage service away
│   ├── ToolError      ffmpeg missing or too old
│   ├── ModelError     a model cannot be loaded
│   └── DivergedError  a training's numbers are lost, on every rank
├── InterruptedRunError  the user ended a run that goes on by another command: exit code 130
└── ClipError          one clip cannot be processed: it becomes that clip's `failed` row
    ├── FetchError     one address could not be fetched (vidal.crawl.reasons)
    ├── RefusedError   the guard allows no such address, connection or act (vidal.crawl.guard)
    ├── MalformedReplyError  a server's reply is not what the schema asks for (vidal.models.openai_server)
    └── BrokenSampleError    a sample's bytes are not there (vidal.reader.ranges)

VidalWarning           something that the user should know and that does not stop the run
"""

from __future__ import annotations

import errno


class VidalError(Exception):
    """Root of the tree; its text is one line that says what, where and how to mend it."""

    exit_code = 1


class UserError(VidalError):
    """The caller's mistake."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe or a setting is wrong."""


class SourceError(UserError):
    """The candidates cannot be read."""


class NothingNewError(SourceError):
    """Every candidate is in the dataset that is to grow."""


class OutputError(UserError):
    """The output folder cannot be used."""


class MachineError(VidalError):
    """Broken infrastructure: never blamed on a clip."""


class StorageError(MachineError):
    """Storage refused to read or write."""


class ToolError(MachineError):
    """An external program is missing or unfit."""


class ModelError(MachineError):
    """A model cannot be loaded."""


class DivergedError(MachineError):
    """A training's loss or gradient is no number any more; every rank raises it."""


class InterruptedRunError(VidalError):
    """A run ended at the user's wish; the text says how it goes on."""

    exit_code = 130


class ClipError(VidalError):
    """One clip cannot be processed.

    ``reason`` is one word of the manifest (``undecodable``, ``no_video``, ``timeout``); a transient
    reason may go away by itself and is what ``vidal retry`` is for.
    """

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    def __reduce__(self) -> tuple[object, ...]:
        return (_clip_error, (self.reason, self.detail, self.transient))


def _clip_error(reason: str, detail: str, transient: bool) -> ClipError:
    return ClipError(reason, detail, transient=transient)


class VidalWarning(UserWarning):
    """Something the user should know that does not stop the run."""


_MACHINE_ERRNOS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another --out",
    errno.EACCES: "permission denied; mend the permissions or choose another --out",
    errno.EPERM: "permission denied; mend the permissions or choose another --out",
    errno.EIO: "the device reports an input/output error; check the disk",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files",
}


def machine_error(error: BaseException, where: str) -> MachineError | None:
    """The `MachineError` that an operating-system error stands for, or None if it is none of the machine's."""
    if isinstance(error, MachineError):
        return error
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        return StorageError(f"{where}: {_MACHINE_ERRNOS[error.errno]} ({error})")
    return None
