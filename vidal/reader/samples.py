"""`Samples`: random access to the samples of a dataset.

    ds = vidal.open("data/vidal")
    len(ds), ds.layers, ds.manifest()
    ds[17]["depth"]

A sample is a kept clip. The manifests have the places of its members in the tars, so only the requested members are
read, in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal import modality as modalities
from vidal.clip import schema
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset, manifest_tokens
from vidal.dataset.embeddings import teachers_of
from vidal.dataset.removals import Removals
from vidal.dataset.revisions import parse
from vidal.dataset.storage import Storage
from vidal.errors import ClipError, SourceError, one_line
from vidal.reader.blocks import BlockReader, Tar
from vidal.reader.offsets import SUM_BYTES, Offsets, neighbours
from vidal.reader.ranges import CACHE_BYTES, BrokenSampleError, MemberReader
from vidal.reader.rows import Rows
from vidal.reader.shards import Damage, Shard, read_shard
from vidal.reader.where import matching, no_column

_BLOCK_SHARE = 4
"""Blocks are read if at least one byte in so many is of use."""
_CONCURRENT_REQUESTS = 16
"""Manifests and sizes requested at once, as an object store has a high latency."""


class NothingSelectedError(SourceError):
    """A condition selects no sample."""


@dataclass(eq=False, repr=False)
class Samples:
    """The kept clips of a dataset that meet a condition; created by `open`.

    Example: ``Samples.open("data/vidal", where="blur < 0.3")[17]["video"]``.
    """

    address: str
    _dataset: Dataset
    _reader: MemberReader
    _rows: Rows
    _offsets: Offsets
    _reaches: Mapping[tuple[int, str], int]
    """The minimum size of each tar, by shard and layer."""
    _numbers: npt.NDArray[np.int64]
    """Of the rows that are samples."""
    _unread: Sequence[Damage]

    def __post_init__(self) -> None:
        self._shards = self._rows.numbers("shard")

    @classmethod
    def open(
        cls, address: str | Path, *, where: str | None = None, cache: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES, removals: Removals | None = None, removed: Collection[str] = (),
    ) -> Samples:  # fmt: skip
        """Open a dataset, without the clips on the list ``removals`` and those with the ids in ``removed``.

        Raises `SourceError` if there is no dataset, no committed shard, or no sample that meets the condition.
        """
        root = Storage(parse(str(address))[0])
        # Threads hide the latency of a store; on a disk they only fragment the memory.
        with ThreadPoolExecutor(1 if root.is_local else _CONCURRENT_REQUESTS) as pool:
            # Before it is known whether a revision is the current one: mostly there is none.
            early = None if root.is_local else pool.submit(manifest_tokens, root)
            dataset = Dataset.open(str(address))
            modalities.load_recorded(dataset.info.modalities, str(address), dataset.info.layers)
            reader = MemberReader(dataset.storage, cache=Path(cache) if cache else None, cache_bytes=cache_bytes)
            is_root = dataset.own_storage.address == root.address
            tokens = early.result() if early and is_root else manifest_tokens(dataset.own_storage)
            read = list(pool.map(lambda shard: read_shard(dataset, shard, tokens[shard], reader.cache), tokens))
        if not read:
            raise SourceError(f"{address}: no shard is committed yet; run `vidal build` first")
        shards = [shard for shard in read if isinstance(shard, Shard)]
        rows = Rows([shard.schema for shard in shards] or [schema()], [shard.rows for shard in shards])
        is_removed = np.zeros(len(rows), np.bool_)
        for column, values in [*(removals.values.items() if removals else ()), ("clip_id", removed)]:
            if values and column in rows.schema.names:
                value_set = pa.array(sorted(values), pa.string())
                is_removed |= pc.is_in(rows.table.column(column), value_set=value_set).to_numpy()
        reaches: dict[tuple[int, str], int] = {}
        for shard in shards:
            reaches |= {(shard.number, layer): reach for layer, reach in shard.members.reaches().items()}
        samples = cls(
            str(address), dataset, reader, rows, Offsets([shard.members for shard in shards]), reaches,
            np.flatnonzero(~is_removed), [damage for damage in read if isinstance(damage, Damage)],
        )  # fmt: skip
        return samples if where is None else samples.select(where)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the recipe and inputs that made this revision."""
        return self._dataset.info.fingerprint

    @property
    def layers(self) -> list[str]:
        """The names of the layers of the dataset; a clip may lack some of them."""
        return list(self._dataset.info.layers)

    @property
    def teachers(self) -> dict[str, Storage]:
        """Where the embeddings of each teacher are that `vidal reinforce` wrote, by its name."""
        return teachers_of(self._dataset.own_storage)

    def manifest(self) -> pa.Table:
        """Return all columns of every committed row, kept or not, in plan order.

        Raises `SourceError` if a manifest is damaged or two have different types for one column.
        """
        try:
            return pa.concat_tables(list(self._dataset.tables()), promote_options="permissive")
        except pa.ArrowException as error:
            raise SourceError(f"{self.address}: {one_line(error)}") from None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a sample: ``key``, ``row``, ``texts``, and the decoded array of each layer.

        ``video`` (t, h, w, 3) uint8, ``depth`` (t, h, w) uint16 in millimetres, ``infrared`` (t, h, w) uint8,
        ``audio`` (n,) float32 at 16 kHz. Raises `BrokenSampleError`.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        row = self.row(i)
        texts = {
            name: row[name] for name in ("title", "caption", "video_caption", "transcript", "ocr_text") if row.get(name)
        }
        sample = {"key": row["clip_id"], "row": row, "texts": texts}
        for layer in row["layers"]:
            # Without a modality there is no decoder: the layer was named in a warning when the dataset was opened.
            if modality := modalities.find(layer):
                try:
                    sample[layer] = modality.decode(self.read(i, layer))
                except BrokenSampleError:
                    raise
                except ClipError as error:
                    raise BrokenSampleError(self.clip_id(i), layer, error.detail) from error
        return sample

    def select(self, where: str) -> Samples:
        """Return the samples that also meet another condition; raises `NothingSelectedError` if none do."""
        table = self._rows.table
        if flags.PREFIX in where.lower():
            table = flags.with_columns(table, flags.current(self._dataset.storage))
        mask = matching(table, where)[self._numbers]
        if not mask.any():
            line = f"{self.address}: --where {' '.join(where.split())}: selects none of {len(self)} samples"
            raise NothingSelectedError(line)
        return replace(self, _numbers=self._numbers[mask])

    def row(self, i: int) -> dict[str, Any]:
        """Return the manifest row of a sample, without its members."""
        return self._rows.row(int(self._numbers[i]))

    def part(self, i: int, columns: Sequence[str]) -> dict[str, Any]:
        """Return some columns of a sample's row; works in a forked process."""
        return self._rows.row(int(self._numbers[i]), columns)

    def clip_id(self, i: int) -> str:
        """Return the id of a sample's clip; works in a forked process."""
        return str(self.part(i, ("clip_id",))["clip_id"])

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of the samples; all null if the dataset does not have it."""
        if name not in self._rows.schema.names:
            return pa.chunked_array([pa.nulls(len(self))])
        return self._rows.table.column(name).filter(pa.array(self._chosen()))

    def check_column(self, name: str, option: str) -> None:
        """Raise `SourceError`, which suggests similar names, if the dataset has no such column."""
        if name not in self._rows.schema.names:
            raise SourceError(f"{self.address}: {option} {name}: {no_column(name, self._rows.schema.names)}")

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield some columns of every sample."""
        return self._rows.dicts(self._chosen(), columns)

    def has(self, layer: str) -> npt.NDArray[np.bool_]:
        """Return a mask of the samples with members in a layer."""
        return self._offsets.has(layer)[self._numbers]

    def read(
        self, i: int, layer: str, suffixes: Sequence[str] | None = None, *, verify: bool = False
    ) -> dict[str, bytes]:
        """Return the members of a sample in a layer by suffix: those with ``suffixes``, by default all but the json.

        Raises `BrokenSampleError`, and `StorageError` if storage itself fails.
        """
        number = int(self._numbers[i])
        places = self._offsets.places(number, layer, suffixes)
        if not places:
            raise BrokenSampleError(self.clip_id(i), layer, "the clip has no such member")
        tar = self._dataset.tar(layer, int(self._shards[number]))
        members: dict[str, bytes] = {}
        try:
            for group in neighbours(places):
                first = group[0].offset
                size = group[-1].end - first
                data = self._reader.read(tar, first, size, b"".join(place.sum for place in group))
                members |= {place.suffix: data[place.offset - first : place.end - first] for place in group}
        except (OSError, EOFError) as error:
            raise BrokenSampleError(self.clip_id(i), layer, f"{tar}: {error}") from error
        for place in places if verify else ():
            if hashlib.sha256(members[place.suffix]).digest()[:SUM_BYTES] != place.sum:
                raise BrokenSampleError(self.clip_id(i), layer, f"{place.suffix} does not match its hash")
        return members

    def start(self, i: int, layer: str) -> None:
        """Begin to read all members of a sample in a layer, if its tar is read in blocks; see `in_blocks`."""
        if isinstance(self._reader, BlockReader):
            number = int(self._numbers[i])
            tar = self._dataset.tar(layer, int(self._shards[number]))
            for group in neighbours(self._offsets.places(number, layer, None)):
                self._reader.start(tar, group[0].offset, group[-1].end - group[0].offset)

    def stop(self) -> None:
        """Begin no further read that `start` has asked for."""
        if isinstance(self._reader, BlockReader):
            self._reader.stop()

    def in_blocks(self, layers: Collection[str], room_bytes: int) -> tuple[Samples, int]:
        """Return the same samples, which read the tars of these layers in blocks, and the size of these tars.

        Only where that pays, else the samples as they are and 0: the tars are in an object store, take at most
        ``room_bytes`` of the cache, and a good part of their bytes will be read.
        """
        tars = {}
        for (shard, tar), own in self._tars(layers).items():
            if not self._dataset.storage.place(tar)[0].is_local:
                first, stop = np.searchsorted(self._shards, [shard, shard + 1]).tolist()
                size = max(self._reaches[shard, layer] for layer in own)
                tars[tar] = Tar(size, self._offsets.content(slice(first, stop), own))
        size, read = sum(tar.size for tar in tars.values()), 0
        for layer in layers:
            of_suffix = self._offsets.sizes(layer)
            read += sum(of_suffix[suffix] for suffix in modalities.get(layer).members(list(of_suffix)).values())
        # Of all samples; the chosen ones are as large as the others.
        read = read * len(self) // max(len(self._rows), 1)
        if not tars or size > room_bytes or read * _BLOCK_SHARE < size:
            return self, 0
        return replace(self, _reader=BlockReader(self._reader, tars)), size

    @property
    def cache_bytes(self) -> int:
        """The limit of the cache."""
        return self._reader.cache.limit_bytes

    def suffixes(self, i: int, layer: str) -> list[str]:
        """Return the suffixes of a sample's members in a layer, without the json."""
        return [place.suffix for place in self._offsets.places(int(self._numbers[i]), layer, None)]

    def damaged(self, layers: Collection[str] | None = None) -> list[Damage]:
        """Return the shards of these samples with unreadable manifests, and with missing or truncated tars.

        Only the sizes of tars are checked, those of ``layers`` if given.
        """
        tars = self._tars(layers)

        def damage_of(place: tuple[int, str]) -> Damage | None:
            shard, tar = place
            storage, name = self._dataset.storage.place(tar)
            least = max(self._reaches[shard, layer] for layer in tars[place])
            try:
                size = storage.size(name)
            except FileNotFoundError:
                return Damage(shard=shard, what=f"{tar} is missing")
            return Damage(shard=shard, what=f"{tar} has {size} bytes of at least {least}") if size < least else None

        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool:
            return [*self._unread, *filter(None, pool.map(damage_of, tars))]

    def _tars(self, layers: Collection[str] | None) -> dict[tuple[int, str], list[str]]:
        """Return the tars of these samples by shard and name, each with those of the layers that it contains."""
        shards = set(np.unique(self._shards[self._numbers]).tolist())
        tars: dict[tuple[int, str], list[str]] = {}
        for shard, layer in self._reaches:
            if shard in shards and (layers is None or layer in layers):
                tars.setdefault((shard, self._dataset.tar(layer, shard)), []).append(layer)
        return tars

    def without(self, damaged: Sequence[Damage]) -> Samples:
        """Return the samples outside of damaged shards."""
        bad = np.asarray([damage.shard for damage in damaged], np.int64)
        numbers = self._numbers[~np.isin(self._shards[self._numbers], bad)]
        return replace(self, _numbers=numbers, _unread=[one for one in self._unread if one.shard not in bad])

    def _chosen(self) -> npt.NDArray[np.bool_]:
        chosen = np.zeros(len(self._rows), np.bool_)
        chosen[self._numbers] = True
        return chosen
