"""``.removal.json``: what a removal that has begun is to do, so that the same command finishes it after a kill.

It lies in the dataset's folder, hidden from readers, until everything is removed. It has the addresses of the clips,
which their rows lose; what was asked for must outlive the rows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from vidal.dataset.storage import Storage
from vidal.errors import OutputError
from vidal.removal.reposts import Repost
from vidal.removal.scan import Scan

NAME = ".removal.json"


@dataclass(slots=True, kw_only=True)
class RemovedClip:
    """A clip to remove, as the rows of any dataset knew it."""

    addresses: list[str] = field(default_factory=list)
    source_sha256: str | None = None
    repost_of: str | None = None
    """The listed clip that this one repeats; None for a listed one."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True, kw_only=True)
class Journal:
    """The content of the file."""

    began_at: str = field(default_factory=now)
    clips: dict[str, RemovedClip] = field(default_factory=dict)
    """By clip id."""
    members: list[str] = field(default_factory=list)
    """SHA-256 of the members of the clips, those of ``json`` left out."""
    reposts: list[Repost] = field(default_factory=list)
    before: dict[str, Scan] = field(default_factory=dict)
    """What each place held, by its address."""

    @classmethod
    def read(cls, storage: Storage) -> Journal | None:
        """Return the journal of a removal that was not finished; None if there is none. Raises `OutputError`."""
        try:
            return TypeAdapter(cls).validate_json(storage.read(NAME))
        except FileNotFoundError:
            return None
        except ValidationError:
            raise OutputError(
                f"{storage.address}/{NAME}: cannot be read; it holds what a removal that was not finished was to do: "
                f"delete it, and remove the clips again, in all places"
            ) from None

    def write(self, storage: Storage) -> None:
        storage.write(NAME, (json.dumps(asdict(self), indent=1) + "\n").encode())
