"""Finding pairs of clips that look or sound alike, among millions, without comparing each with each.

Pairs come from an index: clips that share 16 consecutive bits of the hash of the same frame, or one of
the sketched values of their sound's fingerprint. Each index table is one sort; within a bucket a clip is
held against its `WINDOW` next neighbours only. So the work is at most tables x clips x `WINDOW`, even
where a million clips share a bucket, and a crowd of alike clips is still linked, neighbour by neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pairs = tuple[Ints, Ints]

WINDOW = 64
BAND_BITS = 16
BAND_STEP = 8  # bands overlap: of two hashes 8 bits apart, more share a band somewhere
SKETCH = 16
MAX_SHIFT = 8  # a fingerprint has a value every 0.124 s: forgives a second of an encoder's padding
MIN_DISTINCT = 8  # silence and a constant tone repeat one or two values
MAX_VALUES = 512  # the first minute of a sound decides
_CHUNK = 1 << 14


def parse_hashes(column: Sequence[str | None]) -> tuple[Hashes, Ints]:
    """Hashes as ``(clips, most frames)``, 0 where a clip has fewer, and the number of frames of each clip."""
    frames = np.array([len(text or "") // 16 for text in column], dtype=np.int64)
    hashes = np.zeros((len(frames), max(frames, default=0)), dtype=np.uint64)
    joined = "".join(text or "" for text in column)
    hashes[np.arange(hashes.shape[1]) < frames[:, None]] = np.frombuffer(bytes.fromhex(joined), dtype=">u8")
    return hashes, frames


def frame_pairs(hashes: Hashes, durations: Floats, tolerance_s: float, max_bits: float) -> Iterator[Pairs]:
    """Pairs of rows as long as each other that share a band of a frame whose hashes are ``max_bits`` apart or less."""
    by_duration = np.argsort(durations, kind="stable")
    for frame in range(hashes.shape[1]):
        rows = by_duration[hashes[by_duration, frame] != 0]
        for start in range(0, 64, BAND_STEP):
            # The band leads, the rest of the hash follows: neighbours in a crowded bucket are alike beyond the band.
            column = hashes[rows, frame]
            turned = (column << np.uint64(start)) | (column >> np.uint64(64 - start))
            order = np.argsort(turned, kind="stable")
            turned, owners = turned[order], rows[order]
            for left, right in _neighbours(turned >> np.uint64(64 - BAND_BITS)):
                near = np.bitwise_count(turned[left] ^ turned[right]) <= max_bits
                yield _as_long((owners[left[near]], owners[right[near]]), durations, tolerance_s)


def _neighbours(keys: Hashes) -> Iterator[Pairs]:
    """Pairs of places of the sorted ``keys`` that hold the same key and are at most `WINDOW` apart."""
    place = np.arange(len(keys))
    for step in range(1, WINDOW + 1):
        place = place[: np.searchsorted(place, len(keys) - step)]
        place = place[keys[place] == keys[place + step]]
        if not len(place):
            return
        yield place, place + step


def _as_long(pairs: Pairs, durations: Floats, tolerance_s: float) -> Pairs:
    near = np.abs(durations[pairs[0]] - durations[pairs[1]]) <= tolerance_s
    return pairs[0][near], pairs[1][near]


def frame_distances(hashes: Hashes, pairs: Pairs, min_frames: int) -> Floats:
    """Mean Hamming distance over frames that carry information in both clips; infinite where those are too few."""
    distances = np.empty(len(pairs[0]))
    for part in _chunks(len(distances)):
        a, b = hashes[pairs[0][part]], hashes[pairs[1][part]]
        told = (a != 0) & (b != 0)
        frames = told.sum(axis=1)
        bits = np.where(told, np.bitwise_count(a ^ b), 0).sum(axis=1, dtype=np.int64)
        distances[part] = np.where(frames >= min_frames, bits / np.maximum(frames, 1), np.inf)
    return distances


def still_pictures(hashes: Hashes, max_bits: float) -> Flags:
    """Whether all frames of a clip that carry information show the same picture."""
    one = hashes.max(axis=1, keepdims=True, initial=0)
    bits = np.where(hashes != 0, np.bitwise_count(hashes ^ one), 0)
    return np.asarray(bits.max(axis=1, initial=0) <= max_bits)


class Sounds:
    """Chromaprint fingerprints of many clips, end to end: clip i is ``values[offsets[i] : offsets[i + 1]]``.

    Silence and unchanging tones say nothing about a sound: only places where the value changes count, and
    a clip with fewer than ``min_values`` such places is not ``told`` and matches nothing.
    """

    def __init__(self, column: pa.ChunkedArray, min_values: int) -> None:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        self.min_values = min_values
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.values = np.empty(self.offsets[-1], dtype=np.uint32)
        filled = 0
        for chunk in column.chunks:
            part = chunk.flatten().to_numpy(zero_copy_only=False)
            self.values[filled : filled + len(part)] = part
            filled += len(part)
        self._sketch()

    def _padded(self, rows: Ints) -> tuple[npt.NDArray[np.uint32], Flags]:
        """The fingerprints of ``rows`` side by side, and where they change."""
        lengths = np.minimum(self.offsets[rows + 1] - self.offsets[rows], MAX_VALUES)
        columns = np.arange(max(lengths, default=0))
        inside = columns < lengths[:, None]
        values = np.zeros(inside.shape, dtype=np.uint32)
        values[inside] = self.values[(self.offsets[rows][:, None] + columns)[inside]]
        inside[:, 1:] &= values[:, 1:] != values[:, :-1]
        return values, inside

    def _sketch(self) -> None:
        """Index every clip that can be told under the `SKETCH` smallest of its scrambled values.

        Two recordings of a sound share many values, at whatever offset, and so most likely one of the smallest.
        """
        none = np.uint64(1 << 32)
        keys, owners, tolds = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
        for part in _chunks(len(self.offsets) - 1):
            rows = np.arange(part.start, part.stop)
            values, changing = self._padded(rows)
            scrambled = np.sort(np.where(changing, values * np.uint64(2654435761) % none, none), axis=1)
            scrambled[:, 1:][scrambled[:, 1:] == scrambled[:, :-1]] = none
            told = (changing.sum(axis=1) >= self.min_values) & ((scrambled < none).sum(axis=1) >= MIN_DISTINCT)
            smallest = np.sort(scrambled[told], axis=1)[:, :SKETCH]
            keys.append(smallest[smallest < none])
            owners.append(np.repeat(rows[told], (smallest < none).sum(axis=1)))
            tolds.append(told)
        self._keys, self._owners, self.told = np.concatenate(keys), np.concatenate(owners), np.concatenate(tolds)

    def pairs(self, durations: Floats, tolerance_s: float) -> Iterator[Pairs]:
        """Pairs of clips that share a sketched value, and the length."""
        order = np.lexsort((durations[self._owners], self._keys))
        owners = self._owners[order]
        for left, right in _neighbours(self._keys[order]):
            yield _as_long((owners[left], owners[right]), durations, tolerance_s)

    def errors(self, pairs: Pairs) -> Floats:
        """Share of differing bits at the best shift, for each pair; infinite where a sound is not told."""
        errors = np.full(len(pairs[0]), np.inf)
        both = np.flatnonzero(self.told[pairs[0]] & self.told[pairs[1]])
        for part in _chunks(len(both)):
            a, b = self._padded(pairs[0][both[part]]), self._padded(pairs[1][both[part]])
            shifted = [self._error(*a, *b, shift) for shift in range(MAX_SHIFT + 1)]
            shifted += [self._error(*b, *a, shift) for shift in range(1, MAX_SHIFT + 1)]
            errors[both[part]] = np.min(shifted, axis=0)
        return errors

    def _error(
        self, a: npt.NDArray[np.uint32], a_told: Flags, b: npt.NDArray[np.uint32], b_told: Flags, shift: int
    ) -> Floats:
        width = max(min(a.shape[1] - shift, b.shape[1]), 0)
        told = a_told[:, shift : shift + width] & b_told[:, :width]
        bits = np.where(told, np.bitwise_count(a[:, shift : shift + width] ^ b[:, :width]), 0)
        count = told.sum(axis=1)
        share = bits.sum(axis=1, dtype=np.int64) / (32 * np.maximum(count, 1))
        return np.where(count >= self.min_values, share, np.inf)


class Clusters:
    """Which rows belong together, directly or through others."""

    _MAX_WAITING = 1 << 22

    def __init__(self, rows: int) -> None:
        self._roots: Ints = np.arange(rows)
        self._waiting: list[Pairs] = []
        self._waiting_pairs = 0

    def join(self, pairs: Pairs) -> None:
        """Put the rows of each pair, and what belongs to them, together."""
        self._waiting.append(pairs)
        self._waiting_pairs += len(pairs[0])
        if self._waiting_pairs > self._MAX_WAITING:
            self._join_waiting()

    def _join_waiting(self) -> None:
        left = self._roots[np.concatenate([w[0] for w in self._waiting])] if self._waiting else self._roots[:0]
        right = self._roots[np.concatenate([w[1] for w in self._waiting])] if self._waiting else self._roots[:0]
        self._waiting, self._waiting_pairs = [], 0
        size = len(self._roots)
        graph = scipy.sparse.coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(size, size))
        count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
        first = np.full(count, size)
        np.minimum.at(first, labels, np.arange(size))
        self._roots = first[labels][self._roots]

    def roots(self) -> Ints:
        """For each row, the first row of those that it belongs to."""
        self._join_waiting()
        return self._roots


def _chunks(size: int) -> Iterator[slice]:
    """Parts of ``range(size)`` small enough to hold what is computed from them in memory."""
    for start in range(0, size, _CHUNK):
        yield slice(start, min(start + _CHUNK, size))
