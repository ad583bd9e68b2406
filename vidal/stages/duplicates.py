"""Which clips repeat a better one: the same bytes, the same pictures, or the same sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.stage import Decision
from vidal.stages.near_duplicates import (
    Clusters,
    Flags,
    Floats,
    Hashes,
    Ints,
    Pairs,
    Sounds,
    frame_distances,
    frame_pairs,
    parse_hashes,
    still_pictures,
)

_FILE, _FRAMES, _FRAMES_AND_SOUND, _SOUND, _NOTHING = range(5)
_KINDS = ("file", "frames", "frames", "audio")


class Duplicates(Decision):
    """Rejects every kept clip that repeats a better one; clips near each other only through others may all stay.

    Two clips repeat each other if their files are equal, or if they are equally long and the mean Hamming
    distance of their frame hashes is at most ``max_distance`` bits of 64. Black and flat frames, silence and
    unchanging tones carry no information and match nothing. What the sound says, by ``audio``:

        off      nothing
        confirm  frames up to ``max_distance_with_audio`` apart match if the sounds agree; and still
                 pictures match only if their sounds agree: one cover picture serves a whole album
        reject   as confirm, and clips of one sound match whatever they show

    The limits were measured: re-encoding and scaling real clips moved them 1 to 4 bits, a crop of 6 % 6 to 8, a
    logo over a corner 6 to 15, while different clips were 26 or more apart. Sounds re-encoded at 24 to 64 kbit/s
    differed by 0.001 to 0.013, late by 0.4 s by 0.05, two white noises by 0.17, different melodies by 0.36 or more.

    A cluster is all clips that repeat each other directly or through others; ``cluster`` names its first in plan order.
    Of each cluster the best clip stays: one with audio before a mute one, then the one of most pixels, then of most
    bytes a second, then the first in plan order. It rejects what repeats it; of what is left the best stays, and so on.
    Clips of the earlier datasets named in ``against`` come before all others and stay.
    """

    version: ClassVar[int] = 2
    reads = (
        "source_sha256", "frame_hash", "audio_fingerprint", "duration_s", "has_audio", "width", "height",
        "source_bytes",
    )  # fmt: skip
    writes = ("duplicate_of", "duplicate_kind", "duplicate_distance", "cluster")
    imports = ("scipy",)

    max_distance: float = Field(10.0, ge=0, le=20)
    max_distance_with_audio: float = Field(16.0, ge=0, le=24)
    duration_tolerance_s: float = Field(0.5, ge=0)
    min_frames: int = Field(4, ge=1)
    audio: Literal["off", "confirm", "reject"] = "confirm"
    max_audio_error: float = Field(0.1, ge=0, lt=0.5)
    min_audio_values: int = Field(20, ge=8)
    against: list[str] = Field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """An earlier dataset counts by its fingerprint and its shards, wherever it is."""
        earlier = [Dataset.open(address) for address in self.against]
        return {**super().identity(), "earlier": [[e.info.fingerprint, len(e.committed())] for e in earlier]}

    def after(self, earlier: Sequence[str]) -> Duplicates:
        return self.model_copy(update={"against": [*self.against, *earlier]})

    def decide(self, rows: pa.Table) -> pa.Table:
        earlier = [_kept_clips(folder) for folder in self.against]
        new = _columns_of(rows.filter(pc.equal(rows["status"], "kept")))
        homes = np.repeat(np.arange(len(earlier) + 1), [*(len(table) for table in earlier), len(new)])
        clips = _Clips(pa.concat_tables([*earlier, new]), homes < len(earlier), self)
        return self._verdicts(clips, self._clusters(clips), homes)

    def _clusters(self, clips: _Clips) -> Ints:
        """For each clip the first of its cluster."""
        clusters = Clusters(len(clips.ids))
        clusters.join(clips.same_files())
        # A pair is found by a frame in which it differs little more than it may on the mean.
        max_bits = 4 + (max(self.max_distance, self.max_distance_with_audio) if clips.sounds else self.max_distance)
        for pairs in frame_pairs(clips.hashes, clips.durations, self.duration_tolerance_s, max_bits):
            clusters.join(_where(self._in_common(clips, pairs) != _NOTHING, pairs))
        if clips.sounds:
            for pairs in clips.sounds.pairs(clips.durations, self.duration_tolerance_s):
                in_common = self._in_common(clips, pairs, by_sound=self.audio == "reject")
                clusters.join(_where(in_common != _NOTHING, pairs))
        return clusters.roots()

    def _in_common(self, clips: _Clips, pairs: Pairs, *, by_sound: bool = False) -> Ints:
        """What the clips of each pair have in common, the surest first; ``by_sound`` asks what the sounds alone say."""
        kinds = np.full(len(pairs[0]), _NOTHING)
        as_long = np.flatnonzero(clips.as_long(pairs, self.duration_tolerance_s))
        kinds[as_long] = self._frames_in_common(clips, _where(as_long, pairs))
        if by_sound and clips.sounds:
            open_ = as_long[kinds[as_long] == _NOTHING]
            kinds[open_[clips.sounds.errors(_where(open_, pairs)) <= self.max_audio_error]] = _SOUND
        kinds[clips.files[pairs[0]] == clips.files[pairs[1]]] = _FILE
        return kinds

    def _frames_in_common(self, clips: _Clips, pairs: Pairs) -> Ints:
        """Whether the frames of equally long clips are near enough, given what their sounds say."""
        kinds = np.full(len(pairs[0]), _NOTHING)
        comparable = np.flatnonzero(clips.frames[pairs[0]] == clips.frames[pairs[1]])
        pairs = _where(comparable, pairs)
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        near = distances <= self.max_distance
        if clips.sounds:
            told = clips.sounds.told[pairs[0]] & clips.sounds.told[pairs[1]]
            doubtful = near & told & clips.still[pairs[0]] & clips.still[pairs[1]]
            loose = ~near & told & (distances <= self.max_distance_with_audio)
            asked = np.flatnonzero(doubtful | loose)
            agree = asked[clips.sounds.errors(_where(asked, pairs)) <= self.max_audio_error]
            near &= ~doubtful
            kinds[comparable[agree]] = _FRAMES_AND_SOUND
        kinds[comparable[near]] = _FRAMES
        return kinds

    def _choose(self, clips: _Clips, roots: Ints) -> tuple[Ints, Ints]:
        """For each clip the one that it repeats and that stays, itself if there is none; and what they have in common.

        In each round the best open clip of every cluster stays, and every other open clip of the cluster is held
        against it: against clips that stay and no others, so a crowd of copies costs one round.
        """
        stays, kinds = np.arange(len(roots)), np.full(len(roots), _NOTHING)
        open_ = clips.best_first(roots)
        while len(open_):
            is_best = np.r_[True, roots[open_][1:] != roots[open_][:-1]]
            best = open_[is_best][np.cumsum(is_best) - 1]
            best, open_ = best[~is_best], open_[~is_best]
            found = self._in_common(clips, (best, open_), by_sound=self.audio == "reject")
            repeats = (found != _NOTHING) & ~clips.is_earlier[open_]
            stays[open_[repeats]], kinds[open_[repeats]] = best[repeats], found[repeats]
            open_ = open_[~repeats]
        return stays, kinds

    def _verdicts(self, clips: _Clips, roots: Ints, homes: Ints) -> pa.Table:
        """One row for each clip that competed; ``homes`` tells the dataset that a row is from, the last being new."""
        stays, kinds = self._choose(clips, roots)
        new = np.flatnonzero(~clips.is_earlier)
        repeated = stays[new] != new
        repeats = new[repeated]
        place = pa.array(np.cumsum(repeated) - 1, mask=~repeated)
        nothing = pa.scalar(None, pa.string())
        values, limits, details = self._numbers(clips, (repeats, stays[repeats]), kinds[repeats], homes)
        return pa.table(
            {
                "clip_id": clips.ids.take(new),
                "status": pc.if_else(repeated, "rejected", "kept"),
                "reason": pc.if_else(repeated, "duplicate", nothing),
                "detail": pa.array(details, pa.string()).take(place),
                "decided_value": pa.array(values, pa.float64()).take(place),
                "decided_limit": pa.array(limits, pa.float64()).take(place),
                "duplicate_of": pc.if_else(repeated, clips.ids.take(stays[new]), nothing),
                "duplicate_kind": pa.array([_KINDS[kind] for kind in kinds[repeats]], pa.string()).take(place),
                "duplicate_distance": pa.array(values, pa.float64()).take(place),
                "cluster": clips.ids.take(roots[new]),
            }
        )

    def _numbers(
        self, clips: _Clips, pairs: Pairs, kinds: Ints, homes: Ints
    ) -> tuple[list[float], list[float], list[str]]:
        """What each clip on the left of ``pairs`` was rejected on: number, limit, and both in words."""
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        errors = np.zeros(len(kinds))
        if clips.sounds:
            heard = np.isin(kinds, (_FRAMES_AND_SOUND, _SOUND))
            errors[heard] = clips.sounds.errors(_where(heard, pairs))
        values, limits, details = [], [], []
        for other, kind, distance, error in zip(pairs[1], kinds, distances, errors, strict=True):
            bits = self.max_distance_with_audio if kind == _FRAMES_AND_SOUND else self.max_distance
            frames = f"mean frame distance {distance:.2f} <= {bits:g} bits"
            sound = f"sound error {error:.3f} <= {self.max_audio_error:g}"
            value, limit, words = {
                _FILE: (0.0, 0.0, "same SHA-256"),
                _FRAMES: (distance, bits, frames),
                _FRAMES_AND_SOUND: (distance, bits, f"{frames}, {sound}"),
                _SOUND: (error, self.max_audio_error, sound),
            }[kind]
            name = clips.ids[other]
            home = f"; {name} is in {self.against[homes[other]]}" if clips.is_earlier[other] else ""
            values.append(float(value))
            limits.append(limit)
            details.append(f"{words} with {name}{home}")
        return values, limits, details


class _Clips:
    """The clips that compete, column by column; those of earlier datasets first."""

    def __init__(self, table: pa.Table, is_earlier: Flags, settings: Duplicates) -> None:
        self.ids = table["clip_id"].combine_chunks()
        self.is_earlier = is_earlier
        self.files = _file_numbers(table["source_sha256"].combine_chunks())
        self.durations: Floats = table["duration_s"].to_numpy()
        self.hashes: Hashes
        self.frames: Ints
        self.hashes, self.frames = parse_hashes(table["frame_hash"].to_pylist())
        self.still: Flags = still_pictures(self.hashes, settings.max_distance)
        self.sounds = None
        if settings.audio != "off":
            self.sounds = Sounds(table["audio_fingerprint"], settings.min_audio_values)
        self._has_audio = pc.fill_null(table["has_audio"], False).to_numpy()
        sides = (pc.fill_null(table[name], 0).to_numpy() for name in ("width", "height"))
        self._pixels: Ints = np.prod(list(sides), axis=0)
        bits = pc.fill_null(table["source_bytes"], 0).to_numpy() / self.durations
        self._bits: Floats = np.nan_to_num(bits, posinf=0)

    def same_files(self) -> Pairs:
        """Each clip with the next one of the same SHA-256."""
        order = np.argsort(self.files, kind="stable")
        same = self.files[order][1:] == self.files[order][:-1]
        return order[:-1][same], order[1:][same]

    def as_long(self, pairs: Pairs, tolerance_s: float) -> Flags:
        return np.asarray(np.abs(self.durations[pairs[0]] - self.durations[pairs[1]]) <= tolerance_s)

    def best_first(self, roots: Ints) -> Ints:
        """The clips that share their cluster with others: cluster by cluster, the best first."""
        rows: Ints = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
        quality = (self.is_earlier, self._has_audio, self._pixels, self._bits)
        falling = [-column[rows].astype(np.float64) for column in quality]
        return rows[np.lexsort((rows, *reversed(falling), roots[rows]))]


def _file_numbers(sha256: pa.Array) -> Ints:
    """A number for each file: clips of equal bytes have the same, a file of unknown bytes is like no other."""
    numbers: Ints = pc.fill_null(sha256.dictionary_encode().indices, -1).to_numpy().astype(np.int64)
    unknown = np.flatnonzero(numbers < 0)
    numbers[unknown] = -1 - unknown
    return numbers


_COLUMNS = ("clip_id", "status", *Duplicates.reads)


def _where(chosen: Flags | Ints, pairs: Pairs) -> Pairs:
    return pairs[0][chosen], pairs[1][chosen]


def _columns_of(table: pa.Table) -> pa.Table:
    schema = vidal.clip.schema()
    return table.select(_COLUMNS).cast(pa.schema([schema.field(name) for name in _COLUMNS]))


def _kept_clips(folder: str) -> pa.Table:
    """What an earlier dataset kept, in the order of its shards."""
    try:
        dataset = Dataset.open(folder)
    except SourceError as error:
        raise SourceError(f"duplicates: against: {error}") from None
    tables = [_columns_of(table.filter(pc.equal(table["status"], "kept"))) for table in dataset.tables(list(_COLUMNS))]
    if not tables:
        raise SourceError(f"duplicates: against: {folder} has no shard yet")
    return pa.concat_tables(tables)
