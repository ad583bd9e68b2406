"""Audio fingerprints of millions of clips, in temporary files, and the pairs of clips that share a part of theirs."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.errors import storage_errors
from vidal.rows import Spill
from vidal.stages.near_duplicates import Flags, Floats, Ints, Pairs, chunks, neighbours

SKETCH = 16
MAX_SHIFT = 8  # values of a fingerprint are 0.124 s apart: tolerates 1 s of encoder padding
MIN_DISTINCT = 8  # silence and constant tones repeat one or two values
MAX_VALUES = 512  # only the first minute is compared
_CHUNK = 1 << 12
_BUCKETS = 61  # a prime, as the smallest of hashed values are not spread evenly
_NONE = np.uint64(1 << 32)
"""Above every 32-bit hash: it marks what does not count and is sorted to the end."""

Values = npt.NDArray[np.uint32]


class AudioFingerprints:
    """Chromaprint fingerprints of clips, which are added part by part; of each clip a dozen bytes are in memory.

    Silence and constant tones carry no information: only positions where the value changes count, and a clip with fewer
    than ``min_values`` of them is not `is_informative` and matches nothing. Raises `StorageError` where a temporary
    file cannot be written.
    """

    def __init__(self, min_values: int) -> None:
        self.min_values = min_values
        with storage_errors(tempfile.gettempdir()):
            # Read at offsets, not mapped: as fast, and a mapped page would count as memory once it was read.
            self._file = tempfile.TemporaryFile(prefix="vidal-")  # noqa: SIM115
        self._lengths = [np.empty(0, np.int64)]
        self._flags = [np.empty(0, np.bool_)]
        self._count = 0
        self._sketches = Spill(pa.schema([("key", pa.uint32()), ("owner", pa.int64())]))
        self._parts: list[list[int]] = [[] for _ in range(_BUCKETS)]

    def add(self, column: pa.ChunkedArray) -> None:
        """Add the fingerprints of further clips: lists of 32-bit values, null or empty without audio."""
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        values = pc.list_flatten(column).to_numpy().astype(np.uint32)
        place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        values, lengths = values[place < MAX_VALUES], np.minimum(lengths, MAX_VALUES)
        with storage_errors(tempfile.gettempdir()):
            self._file.write(values.tobytes())
            self._file.flush()
        self._lengths.append(lengths)
        self._flags.append(self._index(values, lengths))
        self._count += len(lengths)

    @functools.cached_property
    def is_informative(self) -> Flags:
        return np.concatenate(self._flags)

    @functools.cached_property
    def _offsets(self) -> Ints:
        return np.cumsum(np.concatenate([[0], *self._lengths]), dtype=np.int64)

    def _index(self, values: Values, lengths: Ints) -> Flags:
        """Put the sketches of clips into the index, and return which of the clips are informative.

        A sketch is the `SKETCH` smallest of a clip's hashed values (bottom-k): two recordings of the same audio share
        many values at any offset, so most likely one of the smallest.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        flags, keys, owners = [np.empty(0, np.bool_)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for part in chunks(len(lengths), _CHUNK):
            padded, changing = _padded(values[offsets[part.start] : offsets[part.stop]], lengths[part])
            # Knuth's multiplier, 2**32 over the golden ratio: values near each other are spread over all 32 bits.
            hashed = np.sort(np.where(changing, padded * np.uint64(2654435761) % _NONE, _NONE), axis=1)
            # A value that recurs counts once, or a drone would fill the whole sketch.
            hashed[:, 1:][hashed[:, 1:] == hashed[:, :-1]] = _NONE
            is_informative = changing.sum(axis=1) >= self.min_values
            is_informative &= (hashed < _NONE).sum(axis=1) >= MIN_DISTINCT
            smallest = np.sort(hashed[is_informative], axis=1)[:, :SKETCH]
            keys.append(smallest[smallest < _NONE])
            rows = self._count + part.start + np.flatnonzero(is_informative)
            owners.append(np.repeat(rows, (smallest < _NONE).sum(axis=1)))
            flags.append(is_informative)
        key, owner = np.concatenate(keys), np.concatenate(owners)
        bucket_of = key % _BUCKETS
        # 16 bits, which NumPy's stable sort takes by radix.
        order = np.argsort(bucket_of.astype(np.uint16), kind="stable")
        table = pa.table({"key": key[order].astype(np.uint32), "owner": owner[order]})
        ends = np.searchsorted(bucket_of[order], np.arange(_BUCKETS + 1))
        for bucket in np.flatnonzero(np.diff(ends)).tolist():
            part_of_bucket = table.slice(ends[bucket], ends[bucket + 1] - ends[bucket])
            self._parts[bucket].append(self._sketches.add_part(part_of_bucket))
        return np.concatenate(flags)

    def pairs(self, durations: Floats, tolerance_s: float) -> Iterator[Pairs]:
        """Yield pairs of clips of equal duration that share a value of their sketches."""
        for numbers in filter(None, self._parts):
            bucket = pa.concat_tables([self._sketches.part(number) for number in numbers])
            keys, owners = bucket["key"].to_numpy(), bucket["owner"].to_numpy()
            lengths = durations[owners]
            order = np.lexsort((lengths, keys))
            yield from neighbours(
                order, keys.astype(np.uint64), owners, lengths, tolerance_s, mask=(1 << 64) - 1, max_bits=0
            )

    def errors(self, pairs: Pairs) -> Floats:
        """Return for each pair the share of differing bits at the best shift; infinite for uninformative audio."""
        errors = np.full(len(pairs[0]), np.inf)
        both = np.flatnonzero(self.is_informative[pairs[0]] & self.is_informative[pairs[1]])
        for part in chunks(len(both), _CHUNK):
            a, b = self._read(pairs[0][both[part]]), self._read(pairs[1][both[part]])
            shifted = [self._error(*a, *b, shift) for shift in range(MAX_SHIFT + 1)]
            # Shift 0 is the same either way.
            shifted += [self._error(*b, *a, shift) for shift in range(1, MAX_SHIFT + 1)]
            errors[both[part]] = np.min(shifted, axis=0)
        return errors

    def _read(self, rows: Ints) -> tuple[Values, Flags]:
        begins, ends = self._offsets[rows], self._offsets[rows + 1]
        places = zip((4 * begins).tolist(), (4 * (ends - begins)).tolist(), strict=True)
        data = b"".join([os.pread(self._file.fileno(), size, place) for place, size in places])
        return _padded(np.frombuffer(data, np.uint32), ends - begins)

    def _error(self, a: Values, a_changing: Flags, b: Values, b_changing: Flags, shift: int) -> Floats:
        width = max(min(a.shape[1] - shift, b.shape[1]), 0)
        changing = a_changing[:, shift : shift + width] & b_changing[:, :width]
        bits = np.where(changing, np.bitwise_count(a[:, shift : shift + width] ^ b[:, :width]), 0)
        count = changing.sum(axis=1)
        share = bits.sum(axis=1, dtype=np.int64) / (32 * np.maximum(count, 1))
        return np.where(count >= self.min_values, share, np.inf)


def _padded(values: Values, lengths: Ints) -> tuple[Values, Flags]:
    """Return fingerprints of these lengths, zero-padded (clips, length), and where their values change."""
    inside = np.arange(max(lengths, default=0)) < lengths[:, None]
    padded = np.zeros(inside.shape, dtype=np.uint32)
    padded[inside] = values
    inside[:, 1:] &= padded[:, 1:] != padded[:, :-1]
    return padded, inside
