"""`Dataset`: a folder with a frozen plan, manifests and one tar per layer and shard, in its current revision."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError

from vidal.clip import OLDEST_SCHEMA_VERSION, SCHEMA_VERSION
from vidal.dataset import manifest, revisions
from vidal.dataset.plan import NAME as PLAN_NAME
from vidal.dataset.plan import Plan
from vidal.dataset.revisions import INFO_NAME
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, SourceError
from vidal.record import Column, fields

_IF_ANY = ("tars", "secrets", "columns", "modalities", "within", "revision_of", "made_by", "carried", "tar_folders")
"""What stands in it only where there is any."""


class DatasetInfo(BaseModel):
    """``dataset.json``: what the data set is and what made it."""

    name: str
    schema_version: int
    fingerprint: str
    layers: list[str]
    candidates: int
    shards: int
    recipe: dict[str, Any]
    """The resolved recipe: every setting with its value, every model with its identity."""
    definition: dict[str, Any]
    """The recipe as it was given, overrides applied: what `vidal retry` runs again."""
    created_by: str
    secrets: list[str] = []
    """Settings with which it was made and that stand in no file, such as ``fetch.cookies``: their names alone."""
    columns: dict[str, Column] = {}
    """The columns that the recipe's stages declare, and those that came with the dataset it was built from."""
    modalities: dict[str, str] = {}
    """By layer, the ``package.module:NAME`` of a modality that is not vidal's own."""
    tars: dict[str, str] | None = None
    """Of an indexed data set: the foreign tar of each shard, an absolute path or an address."""
    within: str = ""
    """Of a revision: its folder within the dataset's, such as ``revisions/1``."""
    revision_of: int | None = None
    """Of a revision: the number of the one that it was made from."""
    made_by: str = ""
    """Of a revision: the command that made it, with its settings."""
    carried: list[str] = []
    """Of a revision: fingerprints of earlier ones, under which some of its manifests were written."""
    tar_folders: dict[str, list[revisions.TarFolder]] = {}
    """Of a revision, by layer: the folders of the tars that it shares with earlier ones."""


class Dataset:
    """A data set that is there to be read, be it complete or under way."""

    def __init__(self, storage: Storage, info: DatasetInfo) -> None:
        self.storage = storage
        """The folder of the whole dataset, from which names start."""
        self.info = info

    @classmethod
    def open(cls, address: str) -> Dataset:
        """Open a dataset by its folder in its current revision, or in the one that ``DIR@N`` names.

        A revision's or a phase's own folder can be opened, too. Raises `SourceError` where there is no dataset.
        """
        root, number = revisions.parse(str(address))
        dataset = cls.at(Storage(root))
        if dataset.info.within:
            return dataset
        number = revisions.current(dataset.storage) if number is None else number
        if number == 0:
            return dataset
        if number not in (known := revisions.numbers(dataset.storage)):
            raise SourceError(f"{root}: has no revision {number}; there is {', '.join(map(str, [0, *known]))}")
        return cls.at(dataset.storage.child(revisions.folder_of(number)))

    @classmethod
    def at(cls, storage: Storage) -> Dataset:
        """The dataset, the phase or the revision whose ``dataset.json`` is in this very folder."""
        info = read_info(storage)
        if info is None:
            raise SourceError(f"{storage.address}: no dataset there (no {INFO_NAME})")
        if not info.within:
            return cls(storage, info)
        root = storage.address.removesuffix(f"/{info.within}")
        if root == storage.address:
            raise SourceError(
                f"{root}: was the folder {info.within} of a dataset, and its tars are there; open the whole dataset"
            )
        return cls(Storage(root), info)

    @property
    def folder(self) -> str:
        """The folder of plan and manifests within the dataset's: ``""``, or that of a revision."""
        return self.info.within

    @property
    def number(self) -> int:
        """The number of the revision; 0 for a dataset as it was built, and for a phase."""
        number = self.folder.removeprefix(f"{revisions.FOLDER}/")
        return int(number) if number.isdecimal() else 0

    @property
    def address(self) -> str:
        """What opens this very revision: ``data/vidal``, or ``data/vidal@2``."""
        return f"{self.storage.address}@{self.number}" if self.number else self.storage.address

    @property
    def manifest_address(self) -> str:
        """The folder of the manifests, which pandas and DuckDB read as one table."""
        return f"{self.storage.address}/{self._name(manifest.FOLDER)}"

    def _name(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    @functools.cached_property
    def plan(self) -> Plan:
        return Plan(self.own_storage)

    @property
    def own_storage(self) -> Storage:
        """The folder that plan, manifests and new tars of this revision are in."""
        return self.storage.child(self.folder) if self.folder else self.storage

    @functools.cached_property
    def extra_schema(self) -> pa.Schema:
        """The columns that `Clip` has no field for: the source's own, then those that stages declare."""
        own = [field for field in self.plan.extra_schema() if field.name not in self.info.columns]
        return pa.schema([*own, *fields(self.info.columns)])

    def committed(self) -> list[int]:
        """The shards that are there: those with a manifest."""
        return committed(self.own_storage)

    def manifest_name(self, shard: int) -> str:
        """``manifest/000123.parquet``, or ``revisions/2/manifest/000123.parquet``."""
        return self._name(manifest.name_of(shard))

    def table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """The manifest of one shard; raises `SourceError` where it is damaged."""
        name = self.manifest_name(shard)
        data = self.storage.read(name)
        try:
            return manifest.read(data, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            mend = "remove that file and run the build again"
            if self.info.tars is not None:
                mend = "index the tars anew, into another folder"
            why = " ".join(str(error).split())[:120]
            raise SourceError(f"{self.storage.address}/{name}: the manifest is damaged ({why}); {mend}") from None

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The manifests of all committed shards, in plan order."""
        for shard in self.committed():
            yield self.table(shard, columns)

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of all committed shards, in plan order."""
        for table in self.tables(columns):
            yield from table.to_pylist()

    def find(self, clip_id: str) -> dict[str, Any] | None:
        """The row of one clip; None for one that is not there (yet). The plan says in which shard it is."""
        if not self.own_storage.exists(PLAN_NAME):
            return None
        places = self.plan.table(["clip_id", "shard"])
        place = places.filter(pc.equal(places.column("clip_id"), clip_id))
        if place.num_rows == 0:
            return None
        try:
            table = self.table(place.column("shard")[0].as_py())
        except FileNotFoundError:
            return None
        row: dict[str, Any] = table.filter(pc.equal(table.column("clip_id"), clip_id)).to_pylist()[0]
        return row

    def tar(self, layer: str, shard: int) -> str:
        """Where the tar of a layer and shard is: a name in the data set, or the whole address of a foreign tar."""
        if self.info.tars is not None:
            return self.info.tars[manifest.stem_of(shard)]
        folder, number = revisions.tar_place(self.info.tar_folders.get(layer, ()), shard, self.folder)
        return f"{folder}/{tar_name(layer, number)}" if folder else tar_name(layer, number)

    def owner(self, layer: str, shard: int) -> tuple[Dataset, int]:
        """What wrote the layer's tar of this shard (a revision, or what one grew by), and its number there."""
        folder, number = revisions.tar_place(self.info.tar_folders.get(layer, ()), shard, self.folder)
        return Dataset.at(self.storage.child(folder) if folder else self.storage), number

    def is_inherited(self, layer: str, shard: int) -> bool:
        """Whether the layer's tar of this shard was written by an earlier revision."""
        return self.info.tars is None and self.tar(layer, shard) != self._name(tar_name(layer, shard))

    def own_tars(self, why: str) -> None:
        """Raises `OutputError` for an indexed data set, whose tars belong to somebody else."""
        if self.info.tars is not None:
            raise OutputError(f"{self.storage.address}: is an index of foreign tars, {why}")

    def read_member(self, row: dict[str, Any], name: str) -> bytes:
        """The bytes of one member of a row, read from its place in the tar."""
        member = next((m for m in row["members"] if m["name"] == name), None)
        if member is None:
            raise KeyError(name)
        storage, tar = self.storage.place(self.tar(member["layer"], row["shard"]))
        return storage.read_range(tar, member["offset"], member["size"])


def tar_name(layer: str, shard: int) -> str:
    """``depth/000123.tar``."""
    return f"{layer}/{manifest.stem_of(shard)}.tar"


def committed(storage: Storage) -> list[int]:
    """The numbers of the shards that have a manifest."""
    stems = (name.removesuffix(".parquet") for name in storage.names(manifest.FOLDER) if name.endswith(".parquet"))
    return [int(stem) for stem in stems if stem.isdecimal()]


def read_info(storage: Storage) -> DatasetInfo | None:
    """``dataset.json``, or None where there is none; raises `OutputError` where it cannot be read as one."""
    try:
        raw = storage.read(INFO_NAME)
    except FileNotFoundError:
        return None
    try:
        info = DatasetInfo.model_validate_json(raw)
    except ValidationError as error:
        raise OutputError(
            f"{storage.address}/{INFO_NAME}: not a vidal data set ({error.error_count()} errors)"
        ) from None
    if not OLDEST_SCHEMA_VERSION <= info.schema_version <= SCHEMA_VERSION:
        mend = "update vidal" if info.schema_version > SCHEMA_VERSION else "build it anew"
        raise OutputError(
            f"{storage.address}: written with schema version {info.schema_version}, this vidal reads "
            f"{OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}; {mend}"
        )
    return info


def write_info(storage: Storage, info: DatasetInfo) -> None:
    told = info.model_dump(mode="json", exclude={name for name in _IF_ANY if getattr(info, name) in (None, "", [], {})})
    text = json.dumps(told, indent=2, ensure_ascii=False, sort_keys=True)
    storage.write(INFO_NAME, (text + "\n").encode())
