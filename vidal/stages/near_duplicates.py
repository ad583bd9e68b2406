"""Finds pairs of similar clips among millions, by frame hashes and the keys of an index, without comparing all pairs.

Candidate pairs come from an index: clips that share 16 consecutive bits of the hash of the same frame, or one value of
the sketch of their audio fingerprints. Each index table is one sort; within a bucket, which is sorted by duration, a
clip is compared with those of equal duration among its next `WINDOW` neighbours only. The number of comparisons is at
most tables x clips x `WINDOW`, even if a million clips share a bucket, and a large group of similar clips is still
linked from neighbour to neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32] | npt.NDArray[np.int64]
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
    by_duration = np.argsort(durations, kind="stable").astype(np.int32 if len(durations) < 1 << 31 else np.int64)
    for frame in range(hashes.shape[1]):
        rows = by_duration[hashes[by_duration, frame] != 0]
        keys, lengths = hashes[rows, frame], durations[rows]
        for start in range(0, 64, BAND_STEP):
            # Rotated so that the band leads. Sorted by 16 bits alone, which takes a pass over the rows and leaves the
            # clips of a band in the order of their durations.
            band = ((keys << np.uint64(start)) | (keys >> np.uint64(64 - start))) >> np.uint64(64 - BAND_BITS)
            order = np.argsort(band.astype(np.uint16), kind="stable")
            leading = (1 << 64) - (1 << 64 - BAND_BITS)
            mask = (leading >> start | leading << 64 - start) % (1 << 64)
            del band
            yield from neighbours(order, keys, rows, lengths, tolerance_s, mask=mask, max_bits=max_bits)


def neighbours(
    order: Ints, keys: Hashes, owners: Rows, durations: Floats, tolerance_s: float, *, mask: int, max_bits: float
) -> Iterator[Pairs]:
    """Yield the ``owners`` of keys of one bucket and of equal duration that differ in at most ``max_bits``.

    A bucket are the keys that are equal in the bits of ``mask``; in the given order they are side by side, by duration.
    Each is compared with the next `WINDOW` at most.
    """
    for begin in range(0, len(order), _CHUNK):
        places = order[begin : begin + _CHUNK + WINDOW]
        some_keys, some_durations, some_owners = keys[places], durations[places], owners[places].astype(np.int64)
        left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        # Of equal duration alone: with tens of millions of clips, a bucket has hundreds of others.
        one = np.arange(min(_CHUNK, len(places)))
        for step in range(1, WINDOW + 1):
            one = one[: np.searchsorted(one, len(places) - step)]
            two = one + step
            differing = some_keys[one] ^ some_keys[two]
            is_near = (differing & np.uint64(mask)) == 0
            is_near &= some_durations[two] - some_durations[one] <= tolerance_s
            # Sorted: what is in another bucket, or longer, than the next key is so than all behind it.
            one, two, differing = one[is_near], two[is_near], differing[is_near]
            if len(one) == 0:
                break
            is_like = np.bitwise_count(differing) <= max_bits
            left.append(some_owners[one[is_like]])
            right.append(some_owners[two[is_like]])
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
    # Any informative frame will do, and the largest hash is not 0, that of no information.
    one = hashes.max(axis=1, keepdims=True, initial=0)
    bits = np.where(hashes != 0, np.bitwise_count(hashes ^ one), 0)
    return np.asarray(bits.max(axis=1, initial=0) <= max_bits)


class Clusters:
    """Groups rows that are linked by pairs, directly or through other rows (union-find in batches)."""

    # Pairs are collected, as each search for connected rows goes over all rows.
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


def chunks(size: int, length: int = _CHUNK) -> Iterator[slice]:
    """Yield slices of ``range(size)`` that bound the memory of a computation."""
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))
