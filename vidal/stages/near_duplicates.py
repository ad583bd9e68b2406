"""Finds pairs of similar clips among millions, by frame hashes and the keys of an index, without comparing all pairs.

Candidate pairs come from an index: clips that share 16 consecutive bits of the hash of the same frame, or one value of
the sketch of their audio fingerprints. Each index table is one sort; within a bucket a clip is compared with its next
`WINDOW` neighbours only. The number of comparisons is at most tables x clips x `WINDOW`, even if a million clips share
a bucket, and a large group of similar clips is still linked from neighbour to neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pairs = tuple[Ints, Ints]

WINDOW = 64
BAND_BITS = 16
BAND_STEP = 8  # overlapping bands: more of the pairs of hashes 8 bits apart share one
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
        column = hashes[rows, frame]
        for start in range(0, 64, BAND_STEP):
            # Rotated so that the band leads: sorting then places hashes that agree beyond the band next to each other.
            rotated = (column << np.uint64(start)) | (column >> np.uint64(64 - start))
            order = np.argsort(rotated, kind="stable")
            rotated, owners = rotated[order], rows[order]
            del order
            limit = 1 << (64 - BAND_BITS)
            yield from neighbours(rotated, owners, durations[owners], tolerance_s, limit=limit, max_bits=max_bits)


def neighbours(
    keys: Hashes, owners: Ints, durations: Floats, tolerance_s: float, *, limit: int, max_bits: float
) -> Iterator[Pairs]:
    """Yield the ``owners`` of keys at most `WINDOW` apart that have similar keys and equal durations.

    ``keys`` are sorted. Two are similar if they differ in at most ``max_bits``, all of them bits below ``limit``, a
    power of two.
    """
    for begin in range(0, len(keys), _CHUNK):
        left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for step in range(1, WINDOW + 1):
            one, two = keys[begin : begin + _CHUNK], keys[begin + step : begin + step + _CHUNK]
            differing = one[: len(two)] ^ two
            is_near = differing < limit
            # Sorted: what no longer shares its leading bits with the next key shares them with none behind it.
            if not is_near.any():
                break
            is_near &= np.bitwise_count(differing) <= max_bits
            place = begin + np.flatnonzero(is_near)
            place = place[np.abs(durations[place] - durations[place + step]) <= tolerance_s]
            left.append(owners[place])
            right.append(owners[place + step])
        yield np.concatenate(left), np.concatenate(right)


def frame_distances(hashes: Hashes, pairs: Pairs, min_frames: int) -> Floats:
    """Return the mean Hamming distance over frames informative in both clips; infinite if fewer than ``min_frames``."""
    distances = np.empty(len(pairs[0]))
    for part in chunks(len(distances)):
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


class Clusters:
    """Groups rows that are linked by pairs, directly or through other rows (union-find in batches)."""

    _MAX_WAITING = 1 << 22

    def __init__(self, rows: int) -> None:
        self._roots: Ints = np.arange(rows)
        self._waiting: list[Pairs] = []
        self._waiting_pairs = 0

    def join(self, pairs: Pairs) -> None:
        """Merge the clusters of the two rows of each pair."""
        if len(pairs[0]) == 0:
            return
        self._waiting.append(pairs)
        self._waiting_pairs += len(pairs[0])
        if self._waiting_pairs > self._MAX_WAITING:
            self._join_waiting()

    def _join_waiting(self) -> None:
        if not self._waiting:
            return
        left, right = (self._roots[np.concatenate(column)] for column in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_pairs = [], 0
        # A graph of the rows that have a pair alone: most have none.
        rows, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        edges = (places[: len(left)], places[len(left) :])
        graph = scipy.sparse.coo_array((np.ones(len(left), np.bool_), edges), shape=(len(rows), len(rows)))
        count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
        first = np.full(count, len(self._roots))
        np.minimum.at(first, labels, rows)
        joined = np.arange(len(self._roots))
        joined[rows] = first[labels]
        self._roots = joined[self._roots]

    def roots(self) -> Ints:
        """Return for each row the first row of its cluster."""
        self._join_waiting()
        return self._roots


def chunks(size: int) -> Iterator[slice]:
    """Yield slices of ``range(size)`` that bound the memory of a computation."""
    for start in range(0, size, _CHUNK):
        yield slice(start, min(start + _CHUNK, size))
