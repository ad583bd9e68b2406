"""`Pairs`: which candidate of one dataset is which of another, and what became of it in both.

Candidates are the same if they have the same id. Of those left over, two are the same if each is the only one in its
dataset with the platform's id, else with the url, else with the SHA-256 of the fetched file.

DuckDB matches them in a temporary file, within bounded memory.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

import vidal.clip
from vidal.dataset.dataset import Dataset
from vidal.dataset.local_manifests import create_view, local_manifests
from vidal.report.outcomes import uncommitted

SIDES = ("before", "after")
ABSENT, OPEN = "not a candidate", "not built yet"
_MEMORY_LIMIT = "512MB"
_OUTCOME = ("status", "stage", "reason")
_READ = ("clip_id", "platform", "platform_id", "url", "source_sha256", *_OUTCOME)
_KEYS = {
    "platform_id": "platform || ' ' || platform_id",
    "url": "url",
    "source_sha256": "source_sha256",
}
"""What candidates of different ids are matched by, in this order."""
# An id may stand in a dataset several times: its nth row is that of the nth of the other, kept ones first.
_MATCH_BY_ID = """
    WITH b AS (SELECT rowid AS n, clip_id, row_number() OVER turns AS turn FROM side_before
               WINDOW turns AS (PARTITION BY clip_id ORDER BY status = 'kept' DESC, rowid)),
         a AS (SELECT rowid AS n, clip_id, row_number() OVER turns AS turn FROM side_after
               WINDOW turns AS (PARTITION BY clip_id ORDER BY status = 'kept' DESC, rowid))
    INSERT INTO matches SELECT b.n, a.n, 'clip_id' FROM b JOIN a USING (clip_id, turn)
"""
_MATCH_BY_KEY = """
    WITH b AS (SELECT min(rowid) AS n, {key} AS key FROM side_before s
               WHERE key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.before = s.rowid)
               GROUP BY key HAVING count(*) = 1),
         a AS (SELECT min(rowid) AS n, {key} AS key FROM side_after s
               WHERE key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.after = s.rowid)
               GROUP BY key HAVING count(*) = 1)
    INSERT INTO matches SELECT b.n, a.n, '{name}' FROM b JOIN a USING (key)
"""
# A full join puts in those without a partner, too.
_JOIN = """
    CREATE TABLE clips AS
    SELECT row_number() OVER (ORDER BY a.rowid NULLS LAST, b.rowid) AS number,
        coalesce(a.clip_id, b.clip_id) AS clip_id, b.clip_id AS before_id,
        b.shard AS before_shard, b.row AS before_row, a.shard AS after_shard, a.row AS after_row,
        coalesce(b.status, 'not a candidate') AS before_status, b.stage AS before_stage, b.reason AS before_reason,
        coalesce(a.status, 'not a candidate') AS after_status, a.stage AS after_stage, a.reason AS after_reason,
        m.matched_by, m.matched_by = 'clip_id' AND b.source_sha256 <> a.source_sha256 AS is_other_file
    FROM side_before b
    LEFT JOIN matches m ON m.before = b.rowid
    FULL JOIN side_after a ON m.after = a.rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateOutcome:
    """What became of a candidate: ``kept``, ``rejected``, ``failed``, ``not built yet`` or ``not a candidate``."""

    status: str
    stage: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        why = self.stage if self.stage == self.reason else f"{self.stage}: {self.reason}"
        return f"{self.status} by {why}" if self.status == "rejected" else (
            f"failed in {why}" if self.status == "failed" else self.status
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The ``clips`` that had one outcome before and have another one after; ``examples`` are ids of some."""

    before: CandidateOutcome
    after: CandidateOutcome
    clips: int
    examples: list[str]

    @property
    def kind(self) -> str:
        """``went``, ``came``, ``kept`` in both, ``other`` outcome in both, or the ``same``."""
        was_kept, is_kept = self.before.status == "kept", self.after.status == "kept"
        if was_kept != is_kept:
            return "went" if was_kept else "came"
        return "kept" if is_kept else "same" if self.before == self.after else "other"

    def as_json(self) -> dict[str, Any]:
        sides = {
            side: {name: getattr(outcome, name) for name in _OUTCOME}
            for side, outcome in zip(SIDES, (self.before, self.after), strict=True)
        }
        return {"kind": self.kind, **sides, "clips": self.clips, "examples": self.examples}


_ORDER = ("went", "came", "other", "kept", "same")


class Pairs:
    """The candidates of two datasets, matched; its methods may be called from several threads."""

    def __init__(self, before: Dataset, after: Dataset) -> None:
        """Match the candidates; raises `SourceError` if no shard of a dataset is committed, and `StorageError`."""
        self.datasets: Mapping[str, Dataset] = dict(zip(SIDES, (before, after), strict=True))
        folder = Path(tempfile.mkdtemp(prefix="vidal-diff-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._connection = duckdb.connect(folder / "pairs.duckdb")
        self._connection.execute("SET memory_limit = ?", [_MEMORY_LIMIT])
        self._connection.execute("SET temp_directory = ?", [str(folder / "spilled")])
        self._connection.execute("SET parquet_metadata_cache = true")
        # It would be drawn into the JSON that is printed.
        self._connection.execute("SET enable_progress_bar = false")
        self.schemas: dict[str, pa.Schema] = {}
        for side, dataset in self.datasets.items():
            files = local_manifests(dataset, self)
            self.schemas[side] = create_view(self._connection, dataset, files, f"rows_{side}")
            self._read(side, dataset)
        self._match()

    def _read(self, side: str, dataset: Dataset) -> None:
        """Copy what candidates are matched by, and their outcomes, into a table."""
        names = ", ".join(f"{name}::VARCHAR AS {name}" for name in _READ)
        self._connection.execute(
            f"CREATE TABLE side_{side} AS SELECT {names}, shard, file_row_number AS row FROM rows_{side}"
        )
        (count,) = self._connection.execute(f"SELECT count(*) FROM side_{side}").fetchall()[0]
        if (left := dataset.info.candidates - count) <= 0:
            return
        empty = pa.table({name: pa.array([], vidal.clip.schema().field(name).type) for name in _READ})
        for rows in uncommitted(dataset, empty, left):
            self._connection.register("open_rows", rows)
            # While there is no plan, a candidate has no id to match it by.
            self._connection.execute(
                f"INSERT INTO side_{side} BY NAME SELECT * REPLACE ('{OPEN}' AS status) FROM open_rows "
                "WHERE clip_id IS NOT NULL"
            )
            self._connection.unregister("open_rows")

    def _match(self) -> None:
        self._connection.execute('CREATE TABLE matches ("before" BIGINT, "after" BIGINT, matched_by VARCHAR)')
        self._connection.execute(_MATCH_BY_ID)
        for name, key in _KEYS.items():
            self._connection.execute(_MATCH_BY_KEY.format(key=key, name=name))
        self._connection.execute(_JOIN)
        # All that is asked for later is in `clips`: the file need not hold the candidates twice.
        for table in ("matches", *(f"side_{side}" for side in SIDES)):
            self._connection.execute(f"DROP TABLE {table}")

    def cursor(self) -> Any:
        """Return a connection of the calling thread, with the table ``clips`` and the views of both manifests."""
        return self._connection.cursor()

    def addresses(self) -> tuple[str, str]:
        """Return what names the two datasets; two revisions of one have their numbers."""
        before, after = (self.datasets[side] for side in SIDES)
        if before.storage.address != after.storage.address:
            return before.address, after.address
        return f"{before.storage.address}@{before.number}", f"{after.storage.address}@{after.number}"

    def matched(self) -> dict[str, int]:
        """Return how many candidates were matched by what."""
        found = self.cursor().sql("SELECT matched_by, count(*) FROM clips WHERE matched_by IS NOT NULL GROUP BY ALL")
        counts = dict(found.fetchall())
        return {name: counts[name] for name in ("clip_id", *_KEYS) if name in counts}

    def other_files(self) -> int:
        """Return how many candidates of the same id have another file."""
        (count,) = self.cursor().sql("SELECT count(*) FROM clips WHERE is_other_file").fetchall()[0]
        return int(count)

    def moves(self, examples: int = 3) -> list[Move]:
        """Return the outcomes before and after with their clips: those that went, then came, then the others."""
        sides = ", ".join(f"{side}_{name}" for side in SIDES for name in _OUTCOME)
        # DuckDB takes no 0 for the number of the least values.
        rows = self.cursor().sql(
            f"SELECT {sides}, count(*), min(clip_id, {max(1, examples)}) FROM clips GROUP BY {sides}"
        )
        moves = [
            Move(before=_outcome(row[:3]), after=_outcome(row[3:6]), clips=row[6], examples=row[7][:examples])
            for row in rows.fetchall()
        ]
        return sorted(moves, key=lambda m: (_ORDER.index(m.kind), -m.clips, str(m.before), str(m.after)))


def _outcome(values: Sequence[str | None]) -> CandidateOutcome:
    status, stage, reason = values
    return CandidateOutcome(status=status or OPEN, stage=stage, reason=reason)
