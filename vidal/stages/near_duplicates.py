"""Finds pairs of similar clips among millions, by frame hashes and audio fingerprints, without comparing all pairs.

Candidate pairs come from an index: clips that share 16 consecutive bits of the hash of the same frame, or one value of
the sketch of their audio fingerprints. Each index table is one sort; within a bucket a clip is compared with its next
`WINDOW` neighbours only. The number of comparisons is at most tables x clips x `WINDOW`, even if a million clips share
a bucket, and a large group of similar clips is still linked from neighbour to neighbour.
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
BAND_STEP = 8  # overlapping bands: more of the pairs of hashes 8 bits apart share one
SKETCH = 16
MAX_SHIFT = 8  # values of a fingerprint are 0.124 s apart: tolerates 1 s of encoder padding
MIN_DISTINCT = 8  # silence and constant tones repeat one or two values
MAX_VALUES = 512  # only the first minute is compared
_CHUNK = 1 << 14


def parse_hashes(column: Sequence[str | None]) -> tuple[Hashes, Ints]:
    """Return hashes (clips, max. frames) uint64, padded with 0, and the number of frames of each clip."""
    frames = np.array([len(text or "") // 16 for text in column], dtype=np.int64)
    hashes = np.zeros((len(frames), max(frames, default=0)), dtype=np.uint64)
    joined = "".join(text or "" for text in column)
    hashes[np.arange(hashes.shape[1]) < frames[:, None]] = np.frombuffer(bytes.fromhex(joined), dtype=">u8")
    return hashes, frames


def frame_pairs(hashes: Hashes, durations: Floats, tolerance_s: float, max_bits: float) -> Iterator[Pairs]:
    """Yield row pairs of equal duration with a frame whose hashes share a band and differ in at most ``max_bits``."""
    by_duration = np.argsort(durations, kind="stable")
    for frame in range(hashes.shape[1]):
        rows = by_duration[hashes[by_duration, frame] != 0]
        for start in range(0, 64, BAND_STEP):
            # Rotated so that the band leads: sorting then places hashes that agree beyond the band next to each other.
            column = hashes[rows, frame]
            rotated = (column << np.uint64(start)) | (column >> np.uint64(64 - start))
            order = np.argsort(rotated, kind="stable")
            rotated, owners = rotated[order], rows[order]
            for left, right in _neighbours(rotated >> np.uint64(64 - BAND_BITS)):
                near = np.bitwise_count(rotated[left] ^ rotated[right]) <= max_bits
                yield _of_same_length((owners[left[near]], owners[right[near]]), durations, tolerance_s)


def _neighbours(keys: Hashes) -> Iterator[Pairs]:
    """Yield pairs of positions in the sorted ``keys`` with the same key and at most `WINDOW` apart."""
    place = np.arange(len(keys))
    for step in range(1, WINDOW + 1):
        place = place[: np.searchsorted(place, len(keys) - step)]
        place = place[keys[place] == keys[place + step]]
        if not len(place):
            return
        yield place, place + step


def _of_same_length(pairs: Pairs, durations: Floats, tolerance_s: float) -> Pairs:
    near = np.abs(durations[pairs[0]] - durations[pairs[1]]) <= tolerance_s
    return pairs[0][near], pairs[1][near]


def frame_distances(hashes: Hashes, pairs: Pairs, min_frames: int) -> Floats:
    """Return the mean Hamming distance over frames informative in both clips; infinite if fewer than ``min_frames``."""
    distances = np.empty(len(pairs[0]))
    for part in _chunks(len(distances)):
        a, b = hashes[pairs[0][part]], hashes[pairs[1][part]]
        informative = (a != 0) & (b != 0)
        frames = informative.sum(axis=1)
        bits = np.where(informative, np.bitwise_count(a ^ b), 0).sum(axis=1, dtype=np.int64)
        distances[part] = np.where(frames >= min_frames, bits / np.maximum(frames, 1), np.inf)
    return distances


def still_clips(hashes: Hashes, max_bits: float) -> Flags:
    """Return for each clip whether all its informative frames show the same image."""
    one = hashes.max(axis=1, keepdims=True, initial=0)
    bits = np.where(hashes != 0, np.bitwise_count(hashes ^ one), 0)
    return np.asarray(bits.max(axis=1, initial=0) <= max_bits)


class AudioFingerprints:
    """Concatenated Chromaprint fingerprints of many clips; those of clip i are ``values[offsets[i] : offsets[i + 1]]``.

    Silence and constant tones carry no information: only positions where the value changes count, and a clip with fewer
    than ``min_values`` of them is not `is_informative` and matches nothing.
    """

    def __init__(self, column: pa.ChunkedArray, min_values: int) -> None:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        self.min_values = min_values
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        # Chunk by chunk: the values of millions of clips exceed the 32-bit offsets of one Arrow list array.
        parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        self.values = np.concatenate([np.empty(0, np.uint32), *parts], dtype=np.uint32, casting="unsafe")
        # Index every informative clip by the `SKETCH` smallest of its hashed values (bottom-k sketch): two recordings
        # of the same audio share many values at any offset, so most likely one of the smallest.
        none = np.uint64(1 << 32)
        # 2**32 is above every 32-bit hash: it marks what does not count and is sorted to the end.
        keys, owners, flags = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
        for part in _chunks(len(self.offsets) - 1):
            rows = np.arange(part.start, part.stop)
            values, changing = self._padded(rows)
            hashed = np.sort(np.where(changing, values * np.uint64(2654435761) % none, none), axis=1)
            # A value that recurs counts once, or a drone would fill the whole sketch.
            hashed[:, 1:][hashed[:, 1:] == hashed[:, :-1]] = none
            is_informative = changing.sum(axis=1) >= self.min_values
            is_informative &= (hashed < none).sum(axis=1) >= MIN_DISTINCT
            smallest = np.sort(hashed[is_informative], axis=1)[:, :SKETCH]
            keys.append(smallest[smallest < none])
            owners.append(np.repeat(rows[is_informative], (smallest < none).sum(axis=1)))
            flags.append(is_informative)
        self._keys, self._owners = np.concatenate(keys), np.concatenate(owners)
        self.is_informative = np.concatenate(flags)

    def _padded(self, rows: Ints) -> tuple[npt.NDArray[np.uint32], Flags]:
        """Return the fingerprints of ``rows``, zero-padded (rows, length), and where their values change."""
        lengths = np.minimum(self.offsets[rows + 1] - self.offsets[rows], MAX_VALUES)
        columns = np.arange(max(lengths, default=0))
        inside = columns < lengths[:, None]
        values = np.zeros(inside.shape, dtype=np.uint32)
        values[inside] = self.values[(self.offsets[rows][:, None] + columns)[inside]]
        inside[:, 1:] &= values[:, 1:] != values[:, :-1]
        return values, inside

    def pairs(self, durations: Floats, tolerance_s: float) -> Iterator[Pairs]:
        """Yield pairs of clips of equal duration that share a value of their sketches."""
        # By duration within a key: the clips of equal duration are then among the next `WINDOW` neighbours.
        order = np.lexsort((durations[self._owners], self._keys))
        owners = self._owners[order]
        for left, right in _neighbours(self._keys[order]):
            yield _of_same_length((owners[left], owners[right]), durations, tolerance_s)

    def errors(self, pairs: Pairs) -> Floats:
        """Return for each pair the share of differing bits at the best shift; infinite for uninformative audio."""
        errors = np.full(len(pairs[0]), np.inf)
        both = np.flatnonzero(self.is_informative[pairs[0]] & self.is_informative[pairs[1]])
        for part in _chunks(len(both)):
            a, b = self._padded(pairs[0][both[part]]), self._padded(pairs[1][both[part]])
            shifted = [self._error(*a, *b, shift) for shift in range(MAX_SHIFT + 1)]
            # Shift 0 is the same either way.
            shifted += [self._error(*b, *a, shift) for shift in range(1, MAX_SHIFT + 1)]
            errors[both[part]] = np.min(shifted, axis=0)
        return errors

    def _error(
        self, a: npt.NDArray[np.uint32], a_changing: Flags, b: npt.NDArray[np.uint32], b_changing: Flags, shift: int
    ) -> Floats:
        width = max(min(a.shape[1] - shift, b.shape[1]), 0)
        changing = a_changing[:, shift : shift + width] & b_changing[:, :width]
        bits = np.where(changing, np.bitwise_count(a[:, shift : shift + width] ^ b[:, :width]), 0)
        count = changing.sum(axis=1)
        share = bits.sum(axis=1, dtype=np.int64) / (32 * np.maximum(count, 1))
        return np.where(count >= self.min_values, share, np.inf)


class Clusters:
    """Groups rows that are linked by pairs, directly or through other rows (union-find in batches)."""

    _MAX_WAITING = 1 << 22

    def __init__(self, rows: int) -> None:
        self._roots: Ints = np.arange(rows)
        self._waiting: list[Pairs] = []
        self._waiting_pairs = 0

    def join(self, pairs: Pairs) -> None:
        """Merge the clusters of the two rows of each pair."""
        self._waiting.append(pairs)
        self._waiting_pairs += len(pairs[0])
        if self._waiting_pairs > self._MAX_WAITING:
            self._join_waiting()

    def _join_waiting(self) -> None:
        if not self._waiting:
            return
        left, right = (self._roots[np.concatenate(column)] for column in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_pairs = [], 0
        size = len(self._roots)
        graph = scipy.sparse.coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(size, size))
        count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
        first = np.full(count, size)
        np.minimum.at(first, labels, np.arange(size))
        self._roots = first[labels][self._roots]

    def roots(self) -> Ints:
        """Return for each row the first row of its cluster."""
        self._join_waiting()
        return self._roots


def _chunks(size: int) -> Iterator[slice]:
    """Yield slices of ``range(size)`` that bound the memory of a computation."""
    for start in range(0, size, _CHUNK):
        yield slice(start, min(start + _CHUNK, size))
