"""`reposts_of`: other clips that show what a removed one shows, by the fingerprints that are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidal.clip import schema
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import REASON
from vidal.removal.remove import parts
from vidal.rows import Stream

_KINDS = ("file", "frames", "audio")
# Those that the stage `duplicates` reads.
_FINGERPRINTS = (
    "source_sha256", "frame_hash", "audio_fingerprint", "duration_s", "has_audio", "width", "height", "source_bytes",
)  # fmt: skip
_LINKS = ["clip_id", "status", "reason", "cluster", "duplicate_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repost:
    """Another clip, and what it has in common with a removed one."""

    clip_id: str
    of: str
    kind: str
    """``file``, ``frames`` or ``audio``, by the limits of `duplicates`; ``cluster`` for a link through others."""
    distance: float | None
    """Mean differing bits of 64 per frame, or the share of differing bits of the audio."""
    is_kept: bool
    """Whether any of the datasets keeps it; of others there is a row, with a thumbnail."""
    is_sure: bool
    """Whether it is a near-duplicate by the recipe's own settings, which audio alone mostly is not."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def reposts_of(datasets: Sequence[Dataset], clip_ids: Collection[str], *, by_fingerprint: bool = True) -> list[Repost]:
    """Return the reposts of clips in all revisions and phases of datasets, each once, of the likest clip.

    The limits are those of the first recipe that has the stage ``duplicates``, or its defaults. Without
    ``by_fingerprint``, those alone are found that a decision has tied together.
    """
    likest: dict[str, tuple[str, str, float | None, bool]] = {}
    for clip_id, other, kind, distance, is_sure in _by_fingerprint(datasets, clip_ids) if by_fingerprint else ():
        likest.setdefault(other, (clip_id, kind, distance, is_sure))
    for clip_id, other in _by_link(datasets, clip_ids):
        likest.setdefault(other, (clip_id, "cluster", None, False))
    kept: set[str] = set()
    for table in _tables(datasets, _LINKS) if likest else ():
        kept |= {*table.filter(pc.equal(table["status"], "kept"))["clip_id"].to_pylist()} & likest.keys()
    found = [
        Repost(clip_id=other, of=clip_id, kind=kind, distance=distance, is_kept=other in kept, is_sure=is_sure)
        for other, (clip_id, kind, distance, is_sure) in likest.items()
    ]
    return sorted(found, key=lambda repost: (not repost.is_sure, repost.clip_id))


def _tables(datasets: Sequence[Dataset], columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of every part of datasets, without what remains of removed clips."""
    for part in (part for dataset in datasets for part in parts(dataset)):
        for table in part.tables(columns):
            yield table.filter(pc.invert(pc.fill_null(pc.equal(table["reason"], REASON), False)))


def _is_in(table: pa.Table, column: str, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string()))


def _by_fingerprint(datasets: Sequence[Dataset], clip_ids: Collection[str]) -> list[tuple[str, str, str, float, bool]]:
    """Return clip, other clip, kind, distance, and whether it is sure; the likest first."""
    columns = ["clip_id", "status", "reason", *_FINGERPRINTS]
    mine, row_count = [], 0
    for table in _tables(datasets, columns):
        mine.append(table.filter(_is_in(table, "clip_id", clip_ids)))
        row_count += len(table)
    if all(table[name].null_count == len(table) for table in mine for name in ("source_sha256", "frame_hash")):
        return []
    # Here: it needs SciPy, which an install that only reads datasets has no other use for.
    from vidal.stages.duplicates import Duplicates

    recorded = [
        stage["settings"] for dataset in datasets for part in parts(dataset)
        for stage in part.info.recipe.get("stages", []) if stage.get("name") == "duplicates"
    ]  # fmt: skip
    known = Duplicates.model_fields.keys() - {"against"}
    rule = Duplicates(**{name: value for name, value in (recorded or [{}])[0].items() if name in known})

    def rows() -> Iterator[pa.RecordBatch]:
        # All of them as kept: what a decision rejected as a repeat is what is looked for.
        for table in _tables(datasets, columns):
            kept = pa.array(["kept"] * len(table), pa.string())
            yield from table.set_column(1, "status", kept).drop_columns(["reason"]).to_batches()

    names = [name for name in columns if name != "reason"]
    everything = Stream(pa.schema([schema().field(name) for name in names]), row_count, rows)
    likenesses = rule.likenesses(everything, clip_ids)
    found = [(*likeness, likeness[2] != "audio" or rule.audio == "reject") for likeness in likenesses]
    return sorted(found, key=lambda one: (_KINDS.index(one[2]), one[3], one[1]))


def _by_link(datasets: Sequence[Dataset], clip_ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield clip and other clip of each pair that a decision tied together, directly or by a cluster."""
    clusters: dict[str, str] = {}
    originals: dict[str, str] = {}
    for table in _tables(datasets, _LINKS):
        for row in table.filter(_is_in(table, "clip_id", clip_ids)).to_pylist():
            clusters |= {row["cluster"]: row["clip_id"]} if row["cluster"] else {}
            originals |= {row["duplicate_of"]: row["clip_id"]} if row["duplicate_of"] else {}
    for table in _tables(datasets, _LINKS):
        is_tied = [
            _is_in(table, "cluster", clusters), _is_in(table, "clip_id", originals),
            _is_in(table, "duplicate_of", clip_ids),
        ]  # fmt: skip
        for row in table.filter(pc.or_(pc.or_(is_tied[0], is_tied[1]), is_tied[2])).to_pylist():
            of = row["duplicate_of"] if row["duplicate_of"] in clip_ids else None
            of = of or originals.get(row["clip_id"]) or clusters[row["cluster"]]
            if row["clip_id"] not in clip_ids:
                yield of, row["clip_id"]
