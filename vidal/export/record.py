"""``export.json``: the dataset that an export belongs to, and the shards written so far.

It is written first, to claim the output folder: two datasets never mix in one. An export that is run again resumes
from it.
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
# Every save writes the record of all shards anew.
_SAVE_EVERY_S = 10.0


class ExportedShard(BaseModel):
    """One exported shard."""

    source: str
    """Hash of the shard's manifest and the selected clip ids; the shard is rewritten when it changes."""
    clips: int
    left_out: int = 0
    """Selected clips that the format cannot represent."""


class ExportRecord(BaseModel):
    """The content of ``export.json``."""

    format: str
    dataset: str
    fingerprint: str
    """The fingerprint of the dataset."""
    where: str | None
    schema_version: int
    shards_of_dataset: int
    created_by: str
    shards: dict[str, ExportedShard] = Field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, format: str, where: str | None) -> ExportRecord:
        """Return the record of an export that has written nothing yet."""
        info = dataset.info
        return cls(
            format=format, dataset=info.name, fingerprint=info.fingerprint, schema_version=info.schema_version,
            where=None if where is None else " ".join(where.split()), shards_of_dataset=info.shards,
            created_by=f"vidal {vidal.__version__}",
        )  # fmt: skip

    def named(self) -> str:
        """Return a description of the export that differs from that of any other export."""
        where = "" if self.where is None else f" where {self.where}"
        return f"dataset {self.dataset} ({self.fingerprint}) as {self.format}{where}"


class Claim:
    """The claim of one export on its output folder: the record, saved every few seconds."""

    def __init__(self, storage: Storage, name: str, record: ExportRecord) -> None:
        self._storage, self._name, self.record = storage, name, record
        self._saved_s = time.monotonic()

    @classmethod
    def make(cls, dataset: Dataset, storage: Storage, wanted: ExportRecord, name: str, names: Collection[str]) -> Claim:
        """Claim a folder in which ``names`` exist; raises `OutputError` if it is used for anything else."""
        # Two datasets in one folder of tars are one dataset to every reader, and cannot be told apart again.
        # Real paths, as a symbolic link may lead back into the dataset.
        own, other = (os.path.realpath(s.path()) if s.is_local else s.address for s in (dataset.storage, storage))
        if other == own or other.startswith(f"{own}/"):
            raise OutputError(f"{storage.address}: is inside the dataset's own folder; choose another --out")
        if storage.exists(INFO_NAME):
            raise OutputError(f"{storage.address}: is the folder of a dataset; choose another --out")
        if name not in names:
            if names:
                raise OutputError(f"{storage.address}: contains {min(names)} but no vidal export; choose another --out")
            claim = cls(storage, name, wanted)
            claim.save()
            return claim
        try:
            record = ExportRecord.model_validate_json(storage.read(name))
        except ValidationError:
            raise OutputError(f"{storage.address}/{name}: is not an export record; choose another --out") from None
        if record.named() != wanted.named():
            raise OutputError(
                f"{storage.address}: is an export of {record.named()}, not of {wanted.named()}; choose another --out"
            )
        return cls(storage, name, wanted.model_copy(update={"shards": record.shards}))

    def has(self, stem: str, source: str) -> bool:
        """Return whether a shard has been written from this very source."""
        shard = self.record.shards.get(stem)
        return shard is not None and shard.source == source

    def add(self, stem: str, shard: ExportedShard) -> None:
        """Record a shard as written; a killed export loses the records of the last seconds and rewrites the shards."""
        self.record.shards[stem] = shard
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the record, with the shards in order."""
        self.record.shards = dict(sorted(self.record.shards.items()))
        self._storage.write(self._name, (self.record.model_dump_json(indent=1) + "\n").encode())
        self._saved_s = time.monotonic()


def source_of(dataset: Dataset, shard: int, selected: Collection[str]) -> str:
    """Return a hash of everything that the export of a shard depends on: manifest and selected clip ids."""
    sha256 = hashlib.sha256(dataset.manifest_bytes(shard))
    sha256.update("\n".join(selected).encode())
    return sha256.hexdigest()[:16]
