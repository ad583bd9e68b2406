"""`Samples`: a data set as its reader sees it, any sample at any time.

    ds = vidal.open("data/vidal")
    len(ds), ds.layers, ds.manifest()
    ds[17]["depth"]

A sample is a kept clip. Where its members lie in the tars is known from the manifests, so nothing is read but what is
asked for, in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.clip import schema
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.reader import BrokenSample, MemberReader
from vidal.dataset.removals import KEYS, Removals
from vidal.dataset.tars import BEFORE_SUFFIX
from vidal.dataset.where import matching
from vidal.errors import ClipError, SourceError

_HEAVY = ("members", "ocr_lines", "transcript_segments", "audio_fingerprint")
_GAP_BYTES = 64 * 1024
"""Members no farther apart are read in one go: a header and some padding, or a small picture in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A shard that cannot be read whole."""

    shard: int
    what: str

    def __str__(self) -> str:
        return f"shard {manifest.stem_of(self.shard)}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members:
    """Every member of every sample, flat: sample i has those from ``start[i]`` to ``start[i + 1]``."""

    start: npt.NDArray[np.int64]
    layer: npt.NDArray[np.int16]
    suffix: npt.NDArray[np.int16]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    sha256: pa.Array
    layers: tuple[str, ...]
    suffixes: tuple[str, ...]


class Samples:
    """The kept clips of a data set that meet a condition; made by `open`."""

    def __init__(
        self, dataset: Dataset, reader: MemberReader, table: pa.Table, members: _Members,
        numbers: npt.NDArray[np.int64], said: str,
    ) -> None:  # fmt: skip
        self._dataset, self._reader, self._table, self._members = dataset, reader, table, members
        self._numbers = numbers
        self._said = said
        self._shards = table.column("shard").to_numpy()
        self._ids = table.column("clip_id").combine_chunks()

    @classmethod
    def open(
        cls, address: str, *, where: str | None = None, cache: str | Path | None = None, cache_bytes: int = 8 << 30,
        removals: Removals | None = None,
    ) -> Samples:  # fmt: skip
        """Open a data set. Raises `SourceError` where there is none, and for a condition that selects nothing."""
        dataset = Dataset.open(str(address))
        tables, unread = [], []
        for shard in dataset.committed():
            try:
                tables.append(_kept(dataset.table(shard)))
            except (pa.ArrowException, OSError) as error:
                unread.append(
                    Damage(shard=shard, what=f"its manifest cannot be read ({' '.join(str(error).split())[:120]})")
                )
        if not tables and not unread:
            raise SourceError(f"{address}: no shard is committed yet; run `vidal build` first")
        whole = pa.concat_tables(tables, promote_options="permissive") if tables else schema().empty_table()
        light = whole.drop_columns([name for name in _HEAVY if name in whole.column_names])
        reader = MemberReader(dataset.storage, cache=Path(cache) if cache else None, cache_bytes=cache_bytes)
        numbers = np.arange(whole.num_rows)
        if removals:
            named = light.select([key for key in KEYS if key in light.column_names]).to_pylist()
            numbers = numbers[[removals.match(row) is None for row in named]]
        samples = cls(dataset, reader, light, _flatten(whole), numbers, str(address))
        samples._unread = unread
        return samples if where is None else samples.select(where)

    _unread: Sequence[Damage] = ()

    @property
    def address(self) -> str:
        return self._said

    @property
    def fingerprint(self) -> str:
        return self._dataset.info.fingerprint

    @property
    def layers(self) -> list[str]:
        return list(self._dataset.info.layers)

    def manifest(self) -> pa.Table:
        """Every committed row, whatever became of the clip, all columns, in the plan's order."""
        return pa.concat_tables(list(self._dataset.tables()), promote_options="permissive")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The sample decoded: ``key``, ``row``, ``texts``, and each layer that the clip has.

        ``video`` (t, h, w, 3) uint8, ``depth`` (t, h, w) uint16 in millimetres, ``infrared`` (t, h, w) uint8,
        ``audio`` (n,) float32 at 16 kHz. Raises `BrokenSample`.
        """
        from vidal.train.data.decode import LAYERS, decode

        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        row = self.row(i)
        texts = {
            name: row[name] for name in ("title", "caption", "video_caption", "transcript", "ocr_text") if row.get(name)
        }
        there = [layer for layer in row["layers"] if layer in LAYERS]
        return {"key": row["clip_id"], "row": row, "texts": texts} | {
            layer: self._decoded(i, layer, decode) for layer in there
        }

    def _decoded(self, i: int, layer: str, decode: Callable[[str, Mapping[str, bytes]], npt.NDArray[Any]]) -> Any:
        try:
            return decode(layer, self.read(i, layer))
        except BrokenSample:
            raise
        except ClipError as error:
            raise BrokenSample(self.clip_id(i), layer, error.detail) from error

    def select(self, where: str) -> Samples:
        """The samples that meet a condition too."""
        mask = matching(self._table.take(self._numbers), where)
        if not mask.any():
            raise SourceError(f"{self.address}: --where {where}: selects none of {len(self)} samples")
        return self._narrowed(self._numbers[mask])

    def row(self, i: int) -> dict[str, Any]:
        """The manifest row of a sample, without its members."""
        row: dict[str, Any] = self._table.slice(int(self._numbers[i]), 1).to_pylist()[0]
        return row

    def part(self, i: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a sample's row; safe in a forked process."""
        there = [name for name in columns if name in self._table.column_names]
        row: dict[str, Any] = self._table.select(there).slice(int(self._numbers[i]), 1).to_pylist()[0]
        return row

    def clip_id(self, i: int) -> str:
        return str(self._ids[int(self._numbers[i])].as_py())

    def column(self, name: str) -> pa.ChunkedArray:
        """A column over the samples; null for one that the data set was written without."""
        if name not in self._table.column_names:
            return pa.chunked_array([pa.nulls(len(self))])
        return self._table.column(name).take(self._numbers)

    def rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of every sample."""
        there = [name for name in columns if name in self._table.column_names]
        found: list[dict[str, Any]] = self._table.select(there).take(self._numbers).to_pylist()
        return found

    def has(self, layer: str) -> npt.NDArray[np.bool_]:
        """Which samples have members in a layer."""
        m = self._members
        if layer not in m.layers:
            return np.zeros(len(self), np.bool_)
        there = np.zeros(len(m.start) - 1, np.bool_)
        owner = np.repeat(np.arange(len(m.start) - 1), np.diff(m.start))
        there[owner[m.layer == m.layers.index(layer)]] = True
        return there[self._numbers]

    def read(
        self, i: int, layer: str, suffixes: Sequence[str] | None = None, *, verify: bool = False
    ) -> dict[str, bytes]:
        """The members of a sample in one layer by suffix, all but the json or those named. Raises `BrokenSample`."""
        number = int(self._numbers[i])
        wanted = self._places(number, layer, suffixes)
        if not wanted:
            raise BrokenSample(self.clip_id(i), layer, "the clip has no such member")
        tar = self._dataset.tar(layer, int(self._shards[number]))
        found: dict[str, bytes] = {}
        try:
            for group in _neighbours(wanted):
                first, last = group[0][1], group[-1][1] + group[-1][2]
                data = self._reader.read(tar, first, last - first)
                found |= {suffix: data[at - first : at - first + size] for suffix, at, size, _ in group}
        except (OSError, EOFError) as error:
            raise BrokenSample(self.clip_id(i), layer, f"{tar}: {error}") from error
        if verify:
            for suffix, _, _, member in wanted:
                if hashlib.sha256(found[suffix]).hexdigest() != self._members.sha256[member].as_py():
                    raise BrokenSample(self.clip_id(i), layer, f"{suffix} is not what was written")
        return found

    def suffixes(self, i: int, layer: str) -> list[str]:
        """What a sample has in a layer, the json left out."""
        return [suffix for suffix, *_ in self._places(int(self._numbers[i]), layer, None)]

    def damaged(self) -> list[Damage]:
        """Shards of these samples that a glance at sizes shows to be damaged, and manifests that cannot be read."""
        m, found = self._members, list(self._unread)
        owner = np.repeat(np.arange(len(m.start) - 1), np.diff(m.start))
        shards = self._shards[owner]
        for shard in np.unique(self._shards[self._numbers]):
            for number, layer in enumerate(m.layers):
                mine = (shards == shard) & (m.layer == number)
                if mine.any():
                    found += self._damage_of(int(shard), layer, int((m.offset + m.size)[mine].max()))
        return found

    def without(self, damaged: Sequence[Damage]) -> Samples:
        """The samples that do not lie in damaged shards."""
        bad = np.asarray([damage.shard for damage in damaged])
        narrowed = self._narrowed(self._numbers[~np.isin(self._shards[self._numbers], bad)])
        narrowed._unread = ()
        return narrowed

    def _narrowed(self, numbers: npt.NDArray[np.int64]) -> Samples:
        narrowed = Samples(self._dataset, self._reader, self._table, self._members, numbers, self._said)
        narrowed._unread = self._unread
        return narrowed

    def _damage_of(self, shard: int, layer: str, reaches: int) -> list[Damage]:
        name = self._dataset.tar(layer, shard)
        storage, tar = self._dataset.storage.place(name)
        try:
            size = storage.size(tar)
        except OSError:
            return [Damage(shard=shard, what=f"{name} is missing")]
        return [Damage(shard=shard, what=f"{name} has {size} bytes of at least {reaches}")] if size < reaches else []

    def _places(self, number: int, layer: str, suffixes: Sequence[str] | None) -> list[tuple[str, int, int, int]]:
        """Suffix, offset, size and number of a sample's members in a layer, in the order of the tar."""
        m = self._members
        if layer not in m.layers:
            return []
        kind = m.layers.index(layer)
        members = [k for k in range(m.start[number], m.start[number + 1]) if m.layer[k] == kind]
        named = [(m.suffixes[m.suffix[k]], int(m.offset[k]), int(m.size[k]), k) for k in members]
        wanted = [p for p in named if (p[0] != "json" if suffixes is None else p[0] in suffixes)]
        return sorted(wanted, key=lambda place: place[1])


def _kept(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table.column("status"), "kept"))


def _neighbours(places: Sequence[tuple[str, int, int, int]]) -> list[list[tuple[str, int, int, int]]]:
    groups: list[list[tuple[str, int, int, int]]] = []
    for place in places:
        if groups and place[1] - (groups[-1][-1][1] + groups[-1][-1][2]) <= _GAP_BYTES:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _flatten(table: pa.Table) -> _Members:
    column = table.column("members").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    flat = column.flatten()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    layer = flat.field("layer").dictionary_encode()
    suffix = pc.replace_substring_regex(flat.field("name"), BEFORE_SUFFIX, "").dictionary_encode()
    return _Members(
        start=start,
        layer=layer.indices.to_numpy().astype(np.int16),
        suffix=suffix.indices.to_numpy().astype(np.int16),
        offset=flat.field("offset").to_numpy(),
        size=flat.field("size").to_numpy(),
        sha256=flat.field("sha256"),
        layers=tuple(layer.dictionary.to_pylist()),
        suffixes=tuple(suffix.dictionary.to_pylist()),
    )
