"""`Dataset`: a folder with a frozen plan, manifests and one tar per layer and shard, in its current revision."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from vidal.errors import OutputError, SourceError, StorageError, one_line
from vidal.record import Column, fields


class DatasetInfo(BaseModel):
    """``dataset.json``: what the dataset contains and how it was built."""

    name: str
    schema_version: int
    fingerprint: str
    layers: list[str]
    candidates: int
    shards: int
    recipe: dict[str, Any]
    """The resolved recipe: every setting with its value, every model with its identity."""
    definition: dict[str, Any]
    """The recipe with its overrides, as `vidal retry` and `vidal grow` run it again."""
    created_by: str
    secrets: list[str] = []
    """Names of the settings with a secret value, which is stored nowhere, such as ``fetch.cookies``."""
    columns: dict[str, Column] = {}
    """The columns declared by the recipe's stages and by the dataset that it was built from."""
    modalities: dict[str, str] = {}
    """``package.module:NAME`` of each modality that is not built in, by layer."""
    tars: dict[str, str] | None = None
    """For an indexed dataset: the foreign tar of each shard, an absolute path or an address."""
    within: str = ""
    """For a revision: its folder within the dataset's, such as ``revisions/1``."""
    revision_of: int | None = None
    """For a revision: the number of the revision that it is based on."""
    made_by: str = ""
    """For a revision: the command that made it, with its settings."""
    carried: list[str] = []
    """For a revision: fingerprints of earlier revisions that some of its manifests carry."""
    tar_folders: dict[str, list[revisions.TarFolder]] = {}
    """For a revision: the folders of the tars that it shares with earlier revisions, by layer."""


class UncommittedError(StorageError):
    """A shard has no manifest, or none any more."""


class Dataset:
    """A dataset for reading, complete or still being built.

    Example: ``Dataset.open("data/vidal").find("c0042")["caption"]``.
    """

    def __init__(self, storage: Storage, info: DatasetInfo) -> None:
        self.storage = storage
        """The folder of the whole dataset, which names are relative to."""
        self.info = info
        self.was_current = False
        """Whether it was opened as the current revision, and not by a number; another may have become current since."""

    @classmethod
    def open(cls, address: str) -> Dataset:
        """Open the current revision of a dataset by its folder, or the revision that ``DIR@N`` names.

        The folder of a revision or of a phase can be opened, too. Raises `SourceError` where there is no dataset.
        """
        root, number = revisions.parse(str(address))
        storage = Storage(root)
        # A request to a store takes tens of milliseconds: the second is sent before the answer to the first is there.
        with contextlib.nullcontext() if storage.is_local else ThreadPoolExecutor(1) as pool:
            early = pool.submit(revisions.current, storage) if pool and number is None else None
            dataset = cls.at(storage)
        if dataset.info.within:
            return dataset
        if was_current := number is None:
            number = early.result() if early else revisions.current(dataset.storage)
        dataset.was_current = was_current
        if number == 0:
            return dataset
        if number not in (known := revisions.numbers(dataset.storage)):
            raise SourceError(f"{root}: has no revision {number}; revisions: {', '.join(map(str, [0, *known]))}")
        revision = cls.at(dataset.storage.child(revisions.folder_of(number)))
        revision.was_current = was_current
        return revision

    @classmethod
    def at(cls, storage: Storage) -> Dataset:
        """Return the dataset, phase or revision whose ``dataset.json`` is in this very folder.

        Raises `SourceError` if there is none, or if the folder is a copy of a part of a dataset.
        """
        info = read_info(storage)
        if info is None:
            raise SourceError(f"{storage.address}: no dataset there (no {INFO_NAME})")
        if not info.within:
            return cls(storage, info)
        root = storage.address.removesuffix(f"/{info.within}")
        if root == storage.address:
            raise SourceError(f"{root}: is a copy of the folder {info.within} of a dataset; open the whole dataset")
        return cls(Storage(root, storage.fence), info)

    @property
    def folder(self) -> str:
        """The folder of plan and manifests within the dataset: ``""``, or ``revisions/2``."""
        return self.info.within

    @property
    def number(self) -> int:
        """The number of the revision; 0 for the dataset as it was built, and for a phase."""
        # A dataset that a revision grew by (`revisions/2/grown`), or a phase of an addition, is no revision itself.
        number = self.folder.removeprefix(f"{revisions.FOLDER}/")
        return int(number) if number.isdecimal() else 0

    @property
    def address(self) -> str:
        """The address that opens this very revision: ``data/vidal``, or ``data/vidal@2``."""
        return f"{self.storage.address}@{self.number}" if self.number else self.storage.address

    @property
    def manifest_address(self) -> str:
        """The address of the folder of manifests, which pandas and DuckDB read as one table."""
        return f"{self.storage.address}/{self._name(manifest.FOLDER)}"

    def _name(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    @functools.cached_property
    def plan(self) -> Plan:
        """The frozen list of all candidates, in the order of their shards."""
        return Plan(self.own_storage)

    @property
    def own_storage(self) -> Storage:
        """The folder of this revision's plan, manifests and new tars."""
        return self.storage.child(self.folder) if self.folder else self.storage

    @functools.cached_property
    def extra_schema(self) -> pa.Schema:
        """The columns without a field in `Clip`: the source's own, then those that stages declare."""
        # The plan behind a global decision has the decision's declared columns, which would be there twice.
        own = [field for field in self.plan.extra_schema() if field.name not in self.info.columns]
        return pa.schema([*own, *fields(self.info.columns)])

    def committed(self) -> list[int]:
        """Return the numbers of the committed shards: those with a manifest."""
        return committed(self.own_storage)

    def manifest_name(self, shard: int) -> str:
        """Return ``manifest/000123.parquet``, or ``revisions/2/manifest/000123.parquet``."""
        return self._name(manifest.name_of(shard))

    def manifest_bytes(self, shard: int) -> bytes:
        """Return the manifest file of one shard; raises `UncommittedError` if it has none."""
        name = self.manifest_name(shard)
        with contextlib.suppress(FileNotFoundError):
            if not manifest.is_reservation(data := self.storage.read(name)):
                return data
        place = f"{self.storage.address}/{name}"
        raise UncommittedError(f"{place}: another run writes this shard anew; try again once it is done")

    def table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Read the manifest of one shard; raises `SourceError` if it is damaged, and `UncommittedError`."""
        name = self.manifest_name(shard)
        data = self.manifest_bytes(shard)
        try:
            return manifest.read(data, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            is_index = self.info.tars is not None
            remedy = "index the tars again, into another folder" if is_index else "delete it and run the build again"
            why = one_line(error)
            raise SourceError(f"{self.storage.address}/{name}: the manifest is damaged ({why}); {remedy}") from None

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the manifests of all committed shards, in plan order.

        Raises `UncommittedError` if one is taken back meanwhile.
        """
        for shard in self.committed():
            yield self.table(shard, columns)

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of all committed shards, in plan order."""
        for table in self.tables(columns):
            yield from table.to_pylist()

    def find(self, clip_id: str) -> dict[str, Any] | None:
        """Return the row of a clip; None if it is not in the plan, or its shard is not committed yet."""
        if not self.own_storage.exists(PLAN_NAME):
            return None
        # Two columns of the plan lead to the one manifest that has the row; manifests are not searched.
        places = self.plan.table(["clip_id", "shard"])
        place = places.filter(pc.equal(places.column("clip_id"), clip_id))
        if place.num_rows == 0:
            return None
        try:
            table = self.table(place.column("shard")[0].as_py())
        except UncommittedError:
            return None
        rows: list[dict[str, Any]] = table.filter(pc.equal(table.column("clip_id"), clip_id)).to_pylist()
        return rows[0]

    def tar(self, layer: str, shard: int) -> str:
        """Return where the tar of a layer and shard is: a name in the dataset, or the address of a foreign tar."""
        if self.info.tars is not None:
            return self.info.tars[manifest.stem_of(shard)]
        folder, number = revisions.tar_place(self.info.tar_folders.get(layer, ()), shard, self.folder)
        return f"{folder}/{manifest.tar_name(layer, number)}" if folder else manifest.tar_name(layer, number)

    def owner(self, layer: str, shard: int) -> tuple[Dataset, int]:
        """Return what wrote the layer's tar of a shard, a revision or a dataset it grew by, and its number there."""
        folder, number = revisions.tar_place(self.info.tar_folders.get(layer, ()), shard, self.folder)
        return Dataset.at(self.storage.child(folder) if folder else self.storage), number

    def is_inherited(self, layer: str, shard: int) -> bool:
        """Return whether an earlier revision wrote the layer's tar of a shard."""
        return self.info.tars is None and self.tar(layer, shard) != self._name(manifest.tar_name(layer, shard))

    def own_tars(self, why: str) -> None:
        """Raise `OutputError` for an indexed dataset, whose tars vidal does not own; ``why`` ends the message."""
        if self.info.tars is not None:
            raise OutputError(f"{self.storage.address}: is an index of foreign tars, {why}")

    def read_member(self, row: dict[str, Any], name: str) -> bytes:
        """Read one member of a row from its tar; raises `KeyError` if the row has no such member."""
        member = next((m for m in row["members"] if m["name"] == name), None)
        if member is None:
            raise KeyError(name)
        storage, tar = self.storage.place(self.tar(member["layer"], row["shard"]))
        return storage.read_range(tar, member["offset"], member["size"])


def committed(storage: Storage) -> list[int]:
    """Return the numbers of the shards that have a manifest."""
    return list(manifest_tokens(storage))


def manifest_tokens(storage: Storage) -> dict[int, str | None]:
    """Return the token of each shard's manifest, in order of the shards; None where a listing has none."""
    # Reservations are told by their length, which an object store lists beside the name; a local disk has none.
    listed = storage.listed(manifest.FOLDER, min_bytes=0 if storage.is_local else manifest.MIN_BYTES)
    stems = {name.removesuffix(".parquet"): token for name, token in listed.items() if name.endswith(".parquet")}
    # From a million shards on, numbers are longer than the zeros that they are padded with.
    return dict(sorted((int(stem), token) for stem, token in stems.items() if stem.isdecimal()))


def read_info(storage: Storage) -> DatasetInfo | None:
    """Read ``dataset.json``; None if there is none. Raises `OutputError` for a file that this vidal cannot read."""
    try:
        raw = storage.read(INFO_NAME)
    except FileNotFoundError:
        return None
    try:
        info = DatasetInfo.model_validate_json(raw)
    except ValidationError as error:
        line = f"{storage.address}/{INFO_NAME}: not a vidal dataset ({error.error_count()} errors)"
        raise OutputError(line) from None
    if not OLDEST_SCHEMA_VERSION <= info.schema_version <= SCHEMA_VERSION:
        remedy = "update vidal" if info.schema_version > SCHEMA_VERSION else "rebuild the dataset"
        raise OutputError(
            f"{storage.address}: written with schema version {info.schema_version}, this vidal reads "
            f"{OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}; {remedy}"
        )
    return info


def write_info(storage: Storage, info: DatasetInfo) -> None:
    """Write ``dataset.json``, without the optional fields that are empty."""
    # Pydantic's own `exclude_defaults` would reach into the columns, whose default group readers want to see.
    empty = {name for name, field in DatasetInfo.model_fields.items() if getattr(info, name) == field.default}
    # Sorted, so that the file's bytes do not depend on the order in which its fields are declared.
    text = json.dumps(info.model_dump(mode="json", exclude=empty), indent=2, ensure_ascii=False, sort_keys=True)
    storage.write(INFO_NAME, (text + "\n").encode())
