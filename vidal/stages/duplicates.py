"""Finds near-duplicates: clips with the same bytes, similar frames or similar audio."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.digests import digests_of, first_of_equal
from vidal.errors import SourceError
from vidal.rows import PART_ROWS, Stream, TableLike, in_parts
from vidal.stage import Decision
from vidal.stages.audio_fingerprints import AudioFingerprints
from vidal.stages.near_duplicates import (
    Clusters,
    Flags,
    Floats,
    Hashes,
    Ints,
    Pairs,
    frame_distances,
    frame_pairs,
    parse_hashes,
    still_clips,
)

_PART_ROWS = 10_000
"""A row has a few KB with its audio's fingerprint."""
_FILE, _FRAMES, _FRAMES_AND_AUDIO, _AUDIO, _NOTHING = range(5)
Kinds = npt.NDArray[np.int8]
_KINDS = ("file", "frames", "frames", "audio")


class Duplicates(Decision):
    """Rejects near-duplicates of a better clip; clips that are linked only through other clips may all stay.

    Two clips are near-duplicates if their files are equal, or if they have the same duration and the mean Hamming
    distance of their frame hashes is at most ``max_distance`` of 64 bits. Black and flat frames, silence and constant
    tones carry no information and match nothing. ``audio`` sets the role of the audio fingerprints:

        off      not used
        confirm  frames up to ``max_distance_with_audio`` apart match if the audio matches, and clips that show a still
                 image match only if the audio matches, as all tracks of an album may show the same cover
        reject   as confirm, and clips with the same audio match whatever they show

    The limits were measured. Re-encoding and scaling of real clips changed 1 to 4 bits, a crop of 6 % changed 6 to 8, a
    logo over a corner 6 to 15; different clips differed by 26 or more. Audio re-encoded at 24 to 64 kbit/s differed by
    0.001 to 0.013, delayed by 0.4 s by 0.05; two white noises differed by 0.17, different melodies by 0.36 or more.

    A cluster is the set of clips that are linked directly or through others; ``cluster`` names its first clip in plan
    order. The best clip of a cluster stays and its near-duplicates are rejected; this repeats with the remaining clips.
    Clips with audio are better than clips without, then the order is by pixels, by bytes per second and by plan order.
    Clips of the earlier datasets in ``against`` precede all others and always stay.
    """

    version: ClassVar[int] = 3
    reads = (
        "source_sha256", "frame_hash", "audio_fingerprint", "duration_s", "has_audio", "width", "height",
        "source_bytes",
    )  # fmt: skip
    writes = ("duplicate_of", "duplicate_kind", "duplicate_distance", "cluster")
    imports = ("scipy",)
    not_fingerprinted: ClassVar[tuple[str, ...]] = ("against",)

    max_distance: float = Field(10.0, ge=0, le=20)
    """Largest mean Hamming distance of frame hashes, in bits of 64."""
    max_distance_with_audio: float = Field(16.0, ge=0, le=24)
    """The same if the audio matches."""
    duration_tolerance_s: float = Field(0.5, ge=0)
    """Largest difference between the durations of near-duplicates, in seconds."""
    min_frames: int = Field(4, ge=1)
    """Number of frames that must be informative in both clips."""
    audio: Literal["off", "confirm", "reject"] = "confirm"
    """``confirm``: with matching audio ``max_distance_with_audio`` holds; ``reject``: matching audio suffices."""
    max_audio_error: float = Field(0.1, ge=0, lt=0.5)
    """Largest share of differing bits of audio fingerprints."""
    min_audio_values: int = Field(20, ge=8)
    """Smallest number of changing values of an informative audio fingerprint."""
    against: list[str] = Field(default_factory=list)
    """Folders of earlier datasets."""

    def identity(self) -> dict[str, Any]:
        """Identify earlier datasets by fingerprint and number of shards, not by location."""
        earlier = [Dataset.open(address) for address in self.against]
        return {**super().identity(), "earlier": [[e.info.fingerprint, len(e.committed())] for e in earlier]}

    def after(self, earlier: Sequence[str]) -> Duplicates:
        return self.model_copy(update={"against": [*self.against, *earlier]})

    def decide(self, rows: TableLike) -> Stream:
        clips = _Clips([*map(_rows_of, self.against), rows], self)
        clusters = Clusters(len(clips.files))
        clusters.join(clips.same_files())
        # Candidates may differ in one frame by slightly more than the largest accepted mean.
        max_bits = 4 + max(self.max_distance, self.max_distance_with_audio if clips.fingerprints else 0.0)
        for pairs in frame_pairs(clips.hashes, clips.durations, self.duration_tolerance_s, max_bits):
            clusters.join(_where(self._match(clips, pairs) != _NOTHING, pairs))
        if clips.fingerprints:
            for pairs in clips.fingerprints.pairs(clips.durations, self.duration_tolerance_s):
                kinds = self._match(clips, pairs, by_audio=self.audio == "reject")
                clusters.join(_where(kinds != _NOTHING, pairs))
        return self._verdicts(clips, clusters.roots())

    def likenesses(self, rows: TableLike, of: Collection[str]) -> Iterator[tuple[str, str, str, float]]:
        """Yield a clip of ``of``, another one that is like it, the kind and the distance, for every such pair of rows.

        All pairs are compared, so ``of`` has few clips. Audio alone is a likeness unless `audio` is ``off``.
        """
        clips = _Clips([rows], self)
        names = clips.names(everyone := np.arange(len(clips.files)))
        is_named = pc.is_in(names, pa.array(sorted(of))).to_numpy(zero_copy_only=False)
        for clip in np.flatnonzero(is_named):
            pairs = everyone[~is_named], np.full(np.count_nonzero(~is_named), clip)
            kinds = self._match(clips, pairs, by_audio=True)
            pairs, kinds = _where(kinds != _NOTHING, pairs), kinds[kinds != _NOTHING]
            distances, _, _ = self._numbers(clips, pairs, kinds, ())
            for other, kind, distance in zip(pairs[0], kinds, distances, strict=True):
                yield names[clip].as_py(), names[other].as_py(), _KINDS[kind], distance

    def _match(self, clips: _Clips, pairs: Pairs, *, by_audio: bool = False) -> Kinds:
        """Return how the clips of each pair match, the most certain kind first; ``by_audio`` admits audio alone."""
        kinds = np.full(len(pairs[0]), _NOTHING, np.int8)
        differences = np.abs(clips.durations[pairs[0]] - clips.durations[pairs[1]])
        same_length = np.flatnonzero(differences <= self.duration_tolerance_s)
        kinds[same_length] = self._frame_match(clips, _where(same_length, pairs))
        if by_audio and clips.fingerprints:
            open_ = same_length[kinds[same_length] == _NOTHING]
            kinds[open_[clips.fingerprints.errors(_where(open_, pairs)) <= self.max_audio_error]] = _AUDIO
        # Last, as the most certain kind: equal files of unreadable or uninformative frames match, too.
        kinds[clips.files[pairs[0]] == clips.files[pairs[1]]] = _FILE
        return kinds

    def _frame_match(self, clips: _Clips, pairs: Pairs) -> Kinds:
        """Return how the frames of clips of equal duration match, also considering their audio."""
        kinds = np.full(len(pairs[0]), _NOTHING, np.int8)
        comparable = np.flatnonzero(clips.frames[pairs[0]] == clips.frames[pairs[1]])
        pairs = _where(comparable, pairs)
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        near = distances <= self.max_distance
        if clips.fingerprints:
            have_audio = clips.fingerprints.is_informative[pairs[0]] & clips.fingerprints.is_informative[pairs[1]]
            doubtful = near & have_audio & clips.still[pairs[0]] & clips.still[pairs[1]]
            loose = ~near & have_audio & (distances <= self.max_distance_with_audio)
            # Audio is compared only where it decides: at 17 shifts a pair costs far more than its frames.
            open_ = np.flatnonzero(doubtful | loose)
            agree = open_[clips.fingerprints.errors(_where(open_, pairs)) <= self.max_audio_error]
            near &= ~doubtful
            kinds[comparable[agree]] = _FRAMES_AND_AUDIO
        kinds[comparable[near]] = _FRAMES
        return kinds

    def _choose(self, clips: _Clips, roots: Ints) -> tuple[Ints, Kinds]:
        """Return for each clip the better clip that it duplicates, or itself if it stays, and how the two match.

        In each round the best undecided clip of every cluster stays, and the other undecided clips of the cluster are
        compared with it alone, so a large group of copies takes a single round.
        """
        # A cluster is not rejected as a whole: a chain of likenesses ties clips together that are 19 to 33 bits apart.
        stays, kinds = np.arange(len(roots)), np.full(len(roots), _NOTHING, np.int8)
        open_ = clips.best_first(roots)
        while len(open_):
            is_best = np.r_[True, roots[open_][1:] != roots[open_][:-1]]
            best = open_[is_best][np.cumsum(is_best) - 1]
            best, open_ = best[~is_best], open_[~is_best]
            match = self._match(clips, (best, open_), by_audio=self.audio == "reject")
            repeats = (match != _NOTHING) & ~clips.is_earlier[open_]
            stays[open_[repeats]], kinds[open_[repeats]] = best[repeats], match[repeats]
            open_ = open_[~repeats]
        return stays, kinds

    def _verdicts(self, clips: _Clips, roots: Ints) -> Stream:
        """Return one row per new clip, in plan order."""
        stays, kinds = self._choose(clips, roots)
        # By name, as it is written into the rows: their bytes must not depend on where the datasets are.
        names = [Dataset.open(folder).info.name for folder in self.against]
        first = int(np.count_nonzero(clips.is_earlier))

        def read() -> Iterator[pa.RecordBatch]:
            for begin in range(first, len(roots), PART_ROWS):
                new = np.arange(begin, min(begin + PART_ROWS, len(roots)))
                yield self._verdicts_on(clips, new, (stays[new], kinds[new], roots[new]), names)

        return Stream(_VERDICT, len(roots) - first, read)

    def _verdicts_on(
        self, clips: _Clips, new: Ints, decided: tuple[Ints, Kinds, Ints], earlier: Sequence[str]
    ) -> pa.RecordBatch:
        """Return the verdicts on some clips by what they duplicate, how they match, and the first of their cluster."""
        stays, kinds, roots = decided
        repeated = stays != new
        place = pa.array(np.cumsum(repeated) - 1, mask=~repeated)
        nothing = pa.scalar(None, pa.string())
        values, limits, details = self._numbers(clips, (new[repeated], stays[repeated]), kinds[repeated], earlier)
        columns = {
            "clip_id": clips.names(new),
            "status": pc.if_else(repeated, "rejected", "kept"),
            "reason": pc.if_else(repeated, "duplicate", nothing),
            "detail": pa.array(details, pa.string()).take(place),
            "decided_value": pa.array(values, pa.float64()).take(place),
            "decided_limit": pa.array(limits, pa.float64()).take(place),
            "duplicate_of": pc.if_else(repeated, clips.names(stays), nothing),
            "duplicate_kind": pa.array([_KINDS[kind] for kind in kinds[repeated]], pa.string()).take(place),
            "duplicate_distance": pa.array(values, pa.float64()).take(place),
            "cluster": clips.names(roots),
        }
        return pa.RecordBatch.from_pydict(columns, schema=_VERDICT)

    def _numbers(
        self, clips: _Clips, pairs: Pairs, kinds: Kinds, earlier: Sequence[str]
    ) -> tuple[list[float], list[float], list[str]]:
        """Return value, limit and detail of the rejection of each clip on the left of ``pairs``."""
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        errors = np.zeros(len(kinds))
        if clips.fingerprints:
            by_audio = np.isin(kinds, (_FRAMES_AND_AUDIO, _AUDIO))
            errors[by_audio] = clips.fingerprints.errors(_where(by_audio, pairs))
        values, limits, details = [], [], []
        names = clips.names(pairs[1]).to_pylist()
        for other, name, kind, distance, error in zip(pairs[1], names, kinds, distances, errors, strict=True):
            bits = self.max_distance_with_audio if kind == _FRAMES_AND_AUDIO else self.max_distance
            frames = f"mean frame distance {distance:.2f} <= {bits:g} bits"
            audio = f"audio error {error:.3f} <= {self.max_audio_error:g}"
            value, limit, words = {
                _FILE: (0.0, 0.0, "same SHA-256"),
                _FRAMES: (distance, bits, frames),
                _FRAMES_AND_AUDIO: (distance, bits, f"{frames}, {audio}"),
                _AUDIO: (error, self.max_audio_error, audio),
            }[kind]
            origin = f"; {name} is in {earlier[clips.origins[other]]}" if clips.is_earlier[other] else ""
            values.append(float(value))
            limits.append(limit)
            details.append(f"{words} with {name}{origin}")
        return values, limits, details


class _Clips:
    """Columns of the kept clips of ``datasets``, each of them read part by part; the last one has the new clips."""

    def __init__(self, datasets: Sequence[TableLike], settings: Duplicates) -> None:
        self.fingerprints = AudioFingerprints(settings.min_audio_values) if settings.audio != "off" else None
        # Room for every row, which is memory once it is filled: columns in parts would be there twice when joined.
        rows = sum(dataset.num_rows for dataset in datasets)
        self.durations: Floats = np.empty(rows)
        self.hashes: Hashes = np.empty((rows, 0), np.uint64)
        self.frames = np.empty(rows, np.int32)
        self.still: Flags = np.empty(rows, np.bool_)
        self.origins = np.empty(rows, np.int16)
        """Number of each clip's dataset."""
        self._qualities: Floats = np.empty((3, rows))
        digests, is_unknown, ids, count = np.empty((rows, 2), np.uint64), np.empty(rows, np.bool_), [], 0
        for number, dataset in enumerate(datasets):
            for table in in_parts(dataset.to_batches(), _PART_ROWS):
                kept = table.filter(pc.equal(table["status"], "kept")).select(_COLUMNS).cast(_SCHEMA)
                # Large, as the ids of a hundred million clips exceed 32-bit offsets.
                ids.append(kept["clip_id"].cast(pa.large_string()).combine_chunks())
                here = slice(count, count := count + len(kept))
                if count > rows:
                    raise SourceError("duplicates: there are more rows than candidates; `vidal verify` names the shard")
                self._fill(here, kept, settings.max_distance)
                self.origins[here] = number
                digests[here] = digests_of(pc.fill_null(kept["source_sha256"], "").to_pylist())
                is_unknown[here] = kept["source_sha256"].is_null()
        for name in ("durations", "hashes", "frames", "still", "origins"):
            setattr(self, name, getattr(self, name)[:count])
        self._qualities = self._qualities[:, :count]
        self._ids = pa.concat_arrays(ids or [pa.array([], pa.large_string())])
        self.is_earlier: Flags = self.origins < len(datasets) - 1
        # Clips of equal bytes have the same number; a file of unknown bytes is like no other.
        self.files = first_of_equal(digests[:count])
        unknown = np.flatnonzero(is_unknown[:count])
        self.files[unknown] = -1 - unknown

    def _fill(self, here: slice, kept: pa.Table, still_bits: float) -> None:
        hashes, self.frames[here] = parse_hashes(kept["frame_hash"].to_pylist())
        if hashes.shape[1] > self.hashes.shape[1]:
            wider = np.zeros((len(self.hashes), hashes.shape[1]), np.uint64)
            wider[: here.start, : self.hashes.shape[1]] = self.hashes[: here.start]
            self.hashes = wider
        self.hashes[here, : hashes.shape[1]] = hashes
        self.still[here] = still_clips(hashes, still_bits)
        durations = self.durations[here] = kept["duration_s"].to_numpy()
        has_audio, width, height, source_bytes = (
            pc.fill_null(kept[name].cast(pa.int64()), 0).to_numpy()
            for name in ("has_audio", "width", "height", "source_bytes")
        )
        bits = np.nan_to_num(source_bytes / durations, posinf=0)
        # What makes a clip better than another, the most important first.
        self._qualities[:, here] = has_audio, width * height, bits
        if self.fingerprints:
            self.fingerprints.add(kept["audio_fingerprint"])

    def names(self, rows: Ints) -> pa.Array:
        """Return the ids of clips."""
        return self._ids.take(pa.array(rows)).cast(pa.string())

    def same_files(self) -> Pairs:
        """Return pairs of each clip and the next one with the same SHA-256."""
        order = np.argsort(self.files, kind="stable")
        same = self.files[order][1:] == self.files[order][:-1]
        return order[:-1][same], order[1:][same]

    def best_first(self, roots: Ints) -> Ints:
        """Return the clips of clusters of at least two, by cluster, the best clip first."""
        rows: Ints = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
        falling = [-column[rows].astype(np.float64) for column in (self.is_earlier, *self._qualities)]
        # lexsort takes its last key first.
        return rows[np.lexsort((rows, *reversed(falling), roots[rows]))]


_COLUMNS = ("clip_id", "status", *Duplicates.reads)
_SCHEMA = pa.schema([vidal.clip.schema().field(name) for name in _COLUMNS])
_VERDICT = pa.schema([
    *((name, pa.string()) for name in ("clip_id", "status", "reason", "detail")),
    *((name, pa.float64()) for name in ("decided_value", "decided_limit")),
    *((name, pa.string()) for name in ("duplicate_of", "duplicate_kind")),
    ("duplicate_distance", pa.float64()), ("cluster", pa.string()),
])  # fmt: skip


def _where(chosen: Flags | Ints, pairs: Pairs) -> Pairs:
    return pairs[0][chosen], pairs[1][chosen]


def _rows_of(folder: str) -> Stream:
    """Return the rows of an earlier dataset, in the order of its shards."""
    try:
        dataset = Dataset.open(folder)
    except SourceError as error:
        raise SourceError(f"duplicates: against: {error}") from None
    if not dataset.committed():
        raise SourceError(f"duplicates: against: {folder} has no shard yet")
    read = functools.partial(_batches_of, dataset)
    return Stream(_SCHEMA, dataset.info.candidates, read)


def _batches_of(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    for table in dataset.tables(list(_COLUMNS)):
        yield from table.to_batches()
