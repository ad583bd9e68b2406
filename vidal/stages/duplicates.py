"""Which clips repeat an earlier one: the same bytes, the same pictures, or the same sound."""

from __future__ import annotations

from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.stage import Decision
from vidal.stages.matching import (
    Flags,
    Floats,
    Hashes,
    Ints,
    Links,
    Pairs,
    Sounds,
    frame_distances,
    frame_pairs,
    parse_hashes,
    still_pictures,
)

_FILE, _FRAMES, _FRAMES_AND_SOUND, _SOUND = range(4)
_KINDS = ("file", "frames", "frames", "audio")
_COLUMNS = ("clip_id", "status", "source_sha256", "frame_hash", "audio_fingerprint", "duration_s")


class Duplicates(Decision):
    """Rejects every kept clip but the first, in plan order, of each cluster of clips that repeat each other.

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

    Clips of the earlier data sets named in ``against`` come first, so that what repeats them is rejected.
    """

    reads = ("source_sha256", "frame_hash", "audio_fingerprint", "duration_s")
    writes = ("duplicate_of", "duplicate_kind", "cluster")

    max_distance: float = Field(10.0, ge=0, le=20)
    max_distance_with_audio: float = Field(16.0, ge=0, le=24)
    duration_tolerance_s: float = Field(0.5, ge=0)
    min_frames: int = Field(4, ge=1)
    audio: Literal["off", "confirm", "reject"] = "confirm"
    max_audio_error: float = Field(0.1, ge=0, lt=0.5)
    min_audio_values: int = Field(20, ge=8)
    against: list[str] = Field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """An earlier data set counts by its fingerprint and its shards, wherever it is."""
        earlier = [Dataset.open(address) for address in self.against]
        return {**super().identity(), "earlier": [[e.info.fingerprint, len(e.committed())] for e in earlier]}

    def decide(self, rows: pa.Table) -> pa.Table:
        earlier = [_kept_clips(folder) for folder in self.against]
        new = _columns_of(rows.filter(pc.equal(rows["status"], "kept")))
        clips = _Clips(pa.concat_tables([*earlier, new]), self)
        homes = np.repeat(np.arange(len(earlier) + 1), [*(len(table) for table in earlier), len(new)])
        return self._verdicts(clips, self._links(clips), homes)

    def _links(self, clips: _Clips) -> Links:
        links = Links(len(clips.ids))
        files = clips.same_files()
        links.add(files, _FILE, np.zeros(len(files[0])))
        # A pair is found by a frame in which it differs little more than it may on the mean.
        max_bits = 4 + (max(self.max_distance, self.max_distance_with_audio) if clips.sounds else self.max_distance)
        for pairs in frame_pairs(clips.hashes, clips.durations, self.duration_tolerance_s, max_bits):
            self._link_alike(clips, pairs, links)
        if clips.sounds:
            for pairs in clips.sounds.pairs(clips.durations, self.duration_tolerance_s):
                self._link_alike(clips, pairs, links)
                if self.audio == "reject":
                    errors = clips.sounds.errors(pairs)
                    agree = errors <= self.max_audio_error
                    links.add(_where(agree, pairs), _SOUND, errors[agree])
        return links

    def _link_alike(self, clips: _Clips, pairs: Pairs, links: Links) -> None:
        """Link those of ``pairs`` whose frames are near enough, given what their sounds say."""
        pairs = _where(clips.frames[pairs[0]] == clips.frames[pairs[1]], pairs)
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        near = distances <= self.max_distance
        if clips.sounds:
            told = clips.sounds.told[pairs[0]] & clips.sounds.told[pairs[1]]
            doubtful = near & told & clips.still[pairs[0]] & clips.still[pairs[1]]
            loose = ~near & told & (distances <= self.max_distance_with_audio)
            asked = np.flatnonzero(doubtful | loose)
            agree = asked[clips.sounds.errors(_where(asked, pairs)) <= self.max_audio_error]
            near &= ~doubtful
            links.add(_where(agree, pairs), _FRAMES_AND_SOUND, distances[agree])
        links.add(_where(near, pairs), _FRAMES, distances[near])

    def _verdicts(self, clips: _Clips, links: Links, homes: Ints) -> pa.Table:
        """One row for each clip that competed; ``homes`` tells the data set that a row is from, the last being new."""
        roots = links.roots()
        new = np.flatnonzero(homes == len(self.against))
        repeated = roots[new] != new
        repeats = new[repeated]
        ranks, others = links.closest(repeats)
        details = self._details(clips, (repeats, others), ranks, roots, homes)
        place = pa.array(np.cumsum(repeated) - 1, mask=~repeated)
        clusters = clips.ids.take(roots[new])
        return pa.table(
            {
                "clip_id": clips.ids.take(new),
                "status": pc.if_else(repeated, "rejected", "kept"),
                "reason": pc.if_else(repeated, "duplicate", pa.scalar(None, pa.string())),
                "detail": pa.array(details, pa.string()).take(place),
                "duplicate_of": pc.if_else(repeated, clusters, pa.scalar(None, pa.string())),
                "duplicate_kind": pa.array([_KINDS[rank] for rank in ranks], pa.string()).take(place),
                "cluster": clusters,
            }
        )

    def _details(self, clips: _Clips, pairs: Pairs, ranks: Ints, roots: Ints, homes: Ints) -> list[str]:
        """What each clip on the left of ``pairs`` has in common with the one on the right, and where its first is."""
        distances = frame_distances(clips.hashes, pairs, self.min_frames)
        errors = clips.sounds.errors(pairs) if clips.sounds else np.zeros(len(ranks))
        details = []
        for row, other, rank, distance, error in zip(*pairs, ranks, distances, errors, strict=True):
            limit = self.max_distance_with_audio if rank == _FRAMES_AND_SOUND else self.max_distance
            pictures = f"mean frame distance {distance:.2f} <= {limit:g} bits"
            sound = f"sound error {error:.3f} <= {self.max_audio_error:g}"
            said = {_FILE: "same SHA-256", _FRAMES: pictures, _FRAMES_AND_SOUND: f"{pictures}, {sound}", _SOUND: sound}
            first = roots[row]
            is_earlier = homes[first] < len(self.against)
            home = f"; {clips.ids[first]} is in {self.against[homes[first]]}" if is_earlier else ""
            details.append(f"{said[rank]} with {clips.ids[other]}{home}")
        return details


class _Clips:
    """The clips that compete, column by column; those of earlier data sets first."""

    def __init__(self, table: pa.Table, settings: Duplicates) -> None:
        self.ids = table["clip_id"].combine_chunks()
        self.files = table["source_sha256"].combine_chunks()
        self.durations: Floats = table["duration_s"].to_numpy()
        self.hashes: Hashes
        self.frames: Ints
        self.hashes, self.frames = parse_hashes(table["frame_hash"].to_pylist())
        self.still: Flags = still_pictures(self.hashes, settings.max_distance)
        self.sounds = None
        if settings.audio != "off":
            self.sounds = Sounds(table["audio_fingerprint"], settings.min_audio_values)

    def same_files(self) -> Pairs:
        """Each clip with the next one of the same SHA-256."""
        known = np.flatnonzero(self.files.is_valid())
        codes = self.files.take(known).dictionary_encode().indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        same = codes[order][1:] == codes[order][:-1]
        return known[order[:-1][same]], known[order[1:][same]]


def _where(chosen: Flags | Ints, pairs: Pairs) -> Pairs:
    return pairs[0][chosen], pairs[1][chosen]


def _columns_of(table: pa.Table) -> pa.Table:
    schema = vidal.clip.schema()
    return table.select(_COLUMNS).cast(pa.schema([schema.field(name) for name in _COLUMNS]))


def _kept_clips(folder: str) -> pa.Table:
    """What an earlier data set kept, in the order of its shards."""
    files, path = fsspec.core.url_to_fs(folder)
    manifests = sorted(files.glob(f"{path}/manifest/*.parquet"))
    if not manifests:
        raise SourceError(f"duplicates: against: {folder} is no data set: it has no manifest/*.parquet")
    kept = [("status", "=", "kept")]
    return pa.concat_tables(
        _columns_of(pq.read_table(manifest, columns=list(_COLUMNS), filters=kept, filesystem=files))
        for manifest in manifests
    )
