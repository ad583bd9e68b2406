"""`Offsets`: the place of every member of every sample, in a few flat arrays.

A clip of 22 members takes about 600 bytes, so a million clips fit into memory, which forked workers share.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset.tars import BEFORE_SUFFIX

SUM_BYTES = 8
"""Bytes of a member's SHA-256 to keep: enough to detect accidental damage, for a quarter of the memory."""
_SHA256_HEX = 64
_GAP_BYTES = 64 * 1024
"""Members at most this far apart are read at once: between them is a header with padding, or a small image."""


class Place(NamedTuple):
    """A member's bytes within a tar."""

    suffix: str
    offset: int
    size: int
    sum: bytes
    """The first bytes of its SHA-256."""

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The members of the samples of one shard; ``layer`` and ``suffix`` index ``layers`` and ``suffixes``."""

    count: npt.NDArray[np.int64]
    """Number of members per sample; the other arrays have one entry per member."""
    layer: npt.NDArray[np.int32]
    suffix: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    sum: npt.NDArray[np.uint64]
    layers: tuple[str, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, members: pa.Array) -> Part:
        """Convert the column ``members`` of a manifest; raises `ValueError` for members without place or hash."""
        flat = members.flatten()
        if any(flat.field(name).null_count for name in ("layer", "name", "offset", "size", "sha256")):
            raise ValueError("a member without a place")
        sha256 = flat.field("sha256")
        if len(sha256) and pc.min_max(pc.binary_length(sha256)).as_py() != {"min": _SHA256_HEX, "max": _SHA256_HEX}:
            raise ValueError("not a SHA-256")
        sums = "".join(pc.utf8_slice_codeunits(sha256, 0, 2 * SUM_BYTES).to_pylist())
        count = pc.list_value_length(members)
        layer = flat.field("layer").dictionary_encode()
        suffix = pc.replace_substring_regex(flat.field("name"), BEFORE_SUFFIX, "").dictionary_encode()
        return cls(
            count=numbers(pc.fill_null(count, 0) if count.null_count else count).astype(np.int64),
            layer=numbers(layer.indices),
            suffix=numbers(suffix.indices),
            offset=numbers(flat.field("offset")),
            size=numbers(flat.field("size")),
            sum=np.frombuffer(bytes.fromhex(sums), np.uint64),
            layers=tuple(layer.dictionary.to_pylist()),
            suffixes=tuple(suffix.dictionary.to_pylist()),
        )

    def reaches(self) -> dict[str, int]:
        """Return the end of the last member of each layer: the minimum size of its tar."""
        reach = np.zeros(len(self.layers), np.int64)
        # `at`, because a layer occurs many times: plain indexing would keep the last one.
        np.maximum.at(reach, self.layer, self.offset + self.size)
        return dict(zip(self.layers, reach.tolist(), strict=True))


def numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Return a numeric array without nulls, which is not copied."""
    # Not `to_numpy`, which imports pandas: a quarter of the time of an opening.
    return np.from_dlpack(array)


class Offsets:
    """The members of all samples of a dataset, by the number of the sample."""

    def __init__(self, parts: Sequence[Part]) -> None:
        # Arrays hold no Python objects, whose reference counts would be written, and so copied, in forked workers.
        layers: dict[str, int] = {}
        suffixes: dict[str, int] = {}
        counts = np.concatenate([np.zeros(1, np.int64), *(part.count for part in parts)])
        self._start = np.cumsum(counts)
        # One byte a member: a dataset has a few layers.
        self._layer = _joined([_renumbered(p.layer, p.layers, layers).astype(np.int8) for p in parts], np.int8)
        self._suffix = _joined([_renumbered(p.suffix, p.suffixes, suffixes) for p in parts], np.int32)
        self._offset = _joined([part.offset for part in parts], np.int64)
        self._size = _joined([part.size for part in parts], np.int64)
        self._sum = _joined([part.sum for part in parts], np.uint64)
        self._layers, self._suffixes = layers, list(suffixes)
        self._latest: tuple[tuple[int, str], list[Place]] = ((-1, ""), [])

    def has(self, layer: str) -> npt.NDArray[np.bool_]:
        """Return a mask of the samples with members in a layer."""
        mask = np.zeros(len(self._start) - 1, np.bool_)
        if layer in self._layers:
            owner = np.repeat(np.arange(len(mask)), np.diff(self._start))
            mask[owner[self._layer == self._layers[layer]]] = True
        return mask

    def content(self, numbers: slice, layers: Collection[str]) -> bytes:
        """Return a hash of what the members of consecutive samples in some layers are, and of where they lie."""
        own = slice(int(self._start[numbers.start]), int(self._start[numbers.stop]))
        chosen = np.isin(self._layer[own], [self._layers[layer] for layer in layers])
        return hashlib.sha256(self._sum[own][chosen].tobytes() + self._offset[own][chosen].tobytes()).digest()

    def sizes(self, layer: str) -> dict[str, int]:
        """Return the sum of the sizes of all members in a layer by suffix."""
        is_own = self._layer == self._layers.get(layer, -1)
        sums = np.bincount(self._suffix[is_own], self._size[is_own], minlength=len(self._suffixes))
        return {suffix: int(size) for suffix, size in zip(self._suffixes, sums, strict=True) if size}

    def places(self, number: int, layer: str, suffixes: Sequence[str] | None) -> list[Place]:
        """Return a sample's members in a layer in tar order: those with ``suffixes``, by default all but the json."""
        asked, every = self._latest
        if asked != (number, layer):
            every = self._places(number, layer)
            # A reader asks what there is, and then for some of it.
            self._latest = ((number, layer), every)
        return [p for p in every if (p.suffix != "json" if suffixes is None else p.suffix in suffixes)]

    def _places(self, number: int, layer: str) -> list[Place]:
        kind = self._layers.get(layer)
        own = slice(*self._start[number : number + 2].tolist())
        sums = self._sum[own].tobytes()
        arrays = (self._layer, self._suffix, self._offset, self._size)
        members = zip(*(array[own].tolist() for array in arrays), range(0, len(sums), SUM_BYTES), strict=True)
        places = [
            Place(self._suffixes[suffix], offset, size, sums[at : at + SUM_BYTES])
            for of, suffix, offset, size, at in members if of == kind
        ]  # fmt: skip
        return sorted(places, key=operator.attrgetter("offset"))


def neighbours(places: Sequence[Place]) -> list[list[Place]]:
    """Group places in tar order into ranges that are read at once."""
    groups: list[list[Place]] = []
    for place in places:
        if groups and place.offset - groups[-1][-1].end <= _GAP_BYTES:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _renumbered(numbers: npt.NDArray[np.int32], names: Sequence[str], known: dict[str, int]) -> npt.NDArray[np.int32]:
    """Map indices into a part's names to indices into ``known``, to which new names are added."""
    table = np.asarray([known.setdefault(name, len(known)) for name in names], np.int32)
    return table[numbers] if len(numbers) else numbers


def _joined(arrays: Sequence[npt.NDArray[Any]], kind: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *arrays])
