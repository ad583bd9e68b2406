"""Revisions of a dataset, which `vidal add`, `vidal refilter` and `vidal grow` write inside its folder.

    data/vidal/
      dataset.json  plan.parquet  manifest/  video/  …     revision 0: as built
      revisions/
        1/  dataset.json  plan.parquet  manifest/  depth/  all manifests, and the new tars
        2/  dataset.json  plan.parquet  manifest/
        current.json                                       {"revision": 2}

A revision writes only what is new and shares all other files: its ``dataset.json`` says in which folder the tars of
each layer and shard are. Once it is complete, it becomes current by the atomic replacement of ``current.json``; earlier
revisions stay readable as ``DIR@1`` or ``DIR@0`` until they are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from vidal.dataset.storage import Storage
from vidal.errors import OutputError

FOLDER = "revisions"
INFO_NAME = "dataset.json"
GROWN = "grown"
"""The folder, within a revision, of the dataset that it grew by."""
_CURRENT = f"{FOLDER}/current.json"
_ADDRESS = re.compile(r"(?P<root>.+)@(?P<number>\d{1,6})")


class TarFolder(BaseModel):
    """The folder of a layer's tars, from a certain shard on."""

    model_config = ConfigDict(extra="forbid")

    first_shard: int
    folder: str
    """Folder within the dataset that contains the layer's: ``""`` for the dataset itself, or ``revisions/1``.

    A folder named ``…/grown`` is a dataset of its own, whose first tar is that of ``first_shard``.
    """


def folder_of(number: int) -> str:
    """Return ``revisions/2``; ``""`` for revision 0, the dataset as it was built, which has no folder of its own."""
    return f"{FOLDER}/{number}" if number else ""


def parse(address: str) -> tuple[str, int | None]:
    """Split an address into the dataset's folder and the revision: ``data/vidal@2``; None means the current one."""
    match = _ADDRESS.fullmatch(address.rstrip("/"))
    # A folder may really be called `data@2`.
    if match is None or ((storage := Storage(address)).is_local and storage.exists()):
        return address, None
    return match["root"], int(match["number"])


def current(storage: Storage) -> int:
    """Return the number of the current revision; 0 for a dataset without revisions. Raises `OutputError`."""
    try:
        raw = storage.read(_CURRENT)
    except FileNotFoundError:
        return 0
    try:
        return int(json.loads(raw)["revision"])
    except (ValueError, KeyError, TypeError):
        raise OutputError(
            f'{storage.address}/{_CURRENT}: does not name a revision; write {{"revision": N}} with the number of '
            f"the revision to read, or delete the file to read the dataset as it was built"
        ) from None


def make_current(storage: Storage, number: int) -> None:
    """Make a revision the one that readers open: the atomic step that commits it."""
    storage.write(_CURRENT, (json.dumps({"revision": number}) + "\n").encode())


def numbers(storage: Storage) -> list[int]:
    """Return the numbers of all revisions after 0 in order, complete or not."""
    begun = sorted(int(name) for name in storage.names(FOLDER) if name.isdecimal())
    # `dataset.json` is written last and deleted first: a folder without it belongs to no revision.
    return [number for number in begun if storage.exists(f"{folder_of(number)}/{INFO_NAME}")]


def refuse(storage: Storage, command: str) -> None:
    """Raise `OutputError` if there are revisions: a command that rewrites the tars that they share would break them."""
    if known := numbers(storage):
        raise OutputError(
            f"{storage.address}: has revisions {', '.join(map(str, known))}, which {command} would leave behind; drop "
            f"them first: vidal revisions {storage.address} --drop {known[0]}"
        )


def tar_place(folders: Sequence[TarFolder], shard: int, own: str) -> tuple[str, int]:
    """Return the folder of a layer's tar of a shard, and its number there; ``own`` is the revision's folder."""
    chosen = [place for place in folders if place.first_shard <= shard]
    return (chosen[-1].folder, shard - chosen[-1].first_shard) if chosen else (own, shard)
