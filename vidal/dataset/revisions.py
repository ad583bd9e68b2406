"""Revisions of a dataset: what `vidal add`, `vidal refilter` and `vidal grow` make of it, in place.

    data/vidal/
      dataset.json  plan.parquet  manifest/  video/  …     revision 0: what was built
      revisions/
        1/  dataset.json  plan.parquet  manifest/  depth/  a manifest of every shard, and the tars that are new
        2/  dataset.json  plan.parquet  manifest/
        current.json                                       {"revision": 2}

A revision writes what is new and shares everything else, byte for byte: its ``dataset.json`` says in which folder the
tars of each layer and shard are. It becomes current when ``current.json`` is replaced, in one step, and not before it
is whole; earlier ones stay readable as ``DIR@1`` or ``DIR@0`` until they are dropped.
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
_CURRENT = f"{FOLDER}/current.json"
_ADDRESS = re.compile(r"(?P<root>.+)@(?P<number>\d{1,6})")


class TarFolder(BaseModel):
    """Where the tars of a layer are, from a shard on."""

    model_config = ConfigDict(extra="forbid")

    first_shard: int
    folder: str
    """Folder within the dataset that holds the layer's own: ``""`` for the dataset itself, or ``revisions/1``.

    One named ``…/grown`` is a dataset by itself, whose first tar is that of ``first_shard``.
    """


def folder_of(number: int) -> str:
    """``revisions/2``; revision 0 is the dataset as it was built, in no folder of its own."""
    return f"{FOLDER}/{number}" if number else ""


def parse(address: str) -> tuple[str, int | None]:
    """The dataset's folder and the revision that an address names: ``data/vidal@2``, or the current one (None)."""
    match = _ADDRESS.fullmatch(address.rstrip("/"))
    if match is None or ((storage := Storage(address)).is_local and storage.exists()):
        return address, None
    return match["root"], int(match["number"])


def current(storage: Storage) -> int:
    """The number of the current revision; 0 where there is none but the dataset as it was built."""
    try:
        raw = storage.read(_CURRENT)
    except FileNotFoundError:
        return 0
    try:
        return int(json.loads(raw)["revision"])
    except (ValueError, KeyError, TypeError):
        raise OutputError(
            f'{storage.address}/{_CURRENT}: does not name a revision; write {{"revision": N}} with the number of '
            f"the one to read, or remove the file to read the dataset as it was built"
        ) from None


def make_current(storage: Storage, number: int) -> None:
    """Let readers see a revision from now on: the one step that commits it."""
    storage.write(_CURRENT, (json.dumps({"revision": number}) + "\n").encode())


def numbers(storage: Storage) -> list[int]:
    """Every revision that has been begun, whole or not, in order; 0 is not among them."""
    begun = sorted(int(name) for name in storage.names(FOLDER) if name.isdecimal())
    return [number for number in begun if storage.exists(f"{folder_of(number)}/{INFO_NAME}")]


def tar_place(folders: Sequence[TarFolder], shard: int, own: str) -> tuple[str, int]:
    """The folder in which a layer's tar of this shard is, and its number there; ``own`` is the revision's folder."""
    chosen = [place for place in folders if place.first_shard <= shard]
    return (chosen[-1].folder, shard - chosen[-1].first_shard) if chosen else (own, shard)
