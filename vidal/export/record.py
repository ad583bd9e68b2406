"""``export.json``: which dataset an export is of, and which of its shards are written.

It claims the place of an export before anything else is written there, so that two datasets never mix in one folder,
and tells the same export done again what is left to do.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection

from pydantic import BaseModel, Field, ValidationError

import vidal
from vidal.dataset.dataset import Dataset
from vidal.dataset.revisions import INFO_NAME
from vidal.dataset.storage import Storage
from vidal.errors import OutputError

NAME = "export.json"
_SAVE_EVERY_S = 10.0


class ExportedShard(BaseModel):
    """One shard as it was written."""

    source: str
    """Hash of the shard's manifest and of the clips that were selected: another one is written anew."""
    clips: int
    left_out: int = 0
    """Selected clips that have no place in the format."""


class ExportRecord(BaseModel):
    """What ``export.json`` holds."""

    format: str
    dataset: str
    fingerprint: str
    """Of the recipe that the dataset was built by."""
    where: str | None
    schema_version: int
    shards_of_dataset: int
    created_by: str
    shards: dict[str, ExportedShard] = Field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, format: str, where: str | None) -> ExportRecord:
        """The record of an export of which nothing is written yet."""
        info = dataset.info
        return cls(
            format=format, dataset=info.name, fingerprint=info.fingerprint, schema_version=info.schema_version,
            where=None if where is None else " ".join(where.split()), shards_of_dataset=info.shards,
            created_by=f"vidal {vidal.__version__}",
        )  # fmt: skip

    def named(self) -> str:
        """The export in words, as far as another one may differ."""
        where = "" if self.where is None else f" where {self.where}"
        return f"dataset {self.dataset} ({self.fingerprint}) as {self.format}{where}"


class Claim:
    """The place of one export: its record, saved now and then."""

    def __init__(self, storage: Storage, name: str, record: ExportRecord) -> None:
        self._storage, self._name, self.record = storage, name, record
        self._saved_s = time.monotonic()

    @classmethod
    def make(cls, dataset: Dataset, storage: Storage, wanted: ExportRecord, name: str, there: Collection[str]) -> Claim:
        """Claim a place in which the names ``there`` exist; raises `OutputError` if it belongs to anything else."""
        _refuse_dataset(dataset, storage)
        if name not in there:
            if there:
                raise OutputError(
                    f"{storage.address}: holds {min(there)} and is no export of vidal's; choose another --out"
                )
            claim = cls(storage, name, wanted)
            claim.save()
            return claim
        try:
            found = ExportRecord.model_validate_json(storage.read(name))
        except ValidationError:
            raise OutputError(f"{storage.address}/{name}: is no record of an export; choose another --out") from None
        if found.named() != wanted.named():
            raise OutputError(
                f"{storage.address}: holds an export of {found.named()}, not of {wanted.named()}; choose another --out"
            )
        return cls(storage, name, wanted.model_copy(update={"shards": found.shards}))

    def has(self, stem: str, source: str) -> bool:
        """Whether a shard is written from this very source."""
        shard = self.record.shards.get(stem)
        return shard is not None and shard.source == source

    def add(self, stem: str, shard: ExportedShard) -> None:
        """Note a shard as written; a killed export loses the notes of a few seconds."""
        self.record.shards[stem] = shard
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the record, shards in order."""
        self.record.shards = dict(sorted(self.record.shards.items()))
        self._storage.write(self._name, (self.record.model_dump_json(indent=1) + "\n").encode())
        self._saved_s = time.monotonic()


def source_of(dataset: Dataset, shard: int, selected: Collection[str]) -> str:
    """Hash of all that decides what an export of a shard holds."""
    sha256 = hashlib.sha256(dataset.storage.read(dataset.manifest_name(shard)))
    sha256.update("\n".join(selected).encode())
    return sha256.hexdigest()[:16]


def _refuse_dataset(dataset: Dataset, storage: Storage) -> None:
    own, other = _place(dataset.storage), _place(storage)
    if other == own or other.startswith(f"{own}/"):
        raise OutputError(f"{storage.address}: lies in the dataset's own folder; choose another --out")
    if storage.exists(INFO_NAME):
        raise OutputError(f"{storage.address}: is the folder of a dataset; choose another --out")


def _place(storage: Storage) -> str:
    return os.path.realpath(storage.path()) if storage.is_local else storage.address
