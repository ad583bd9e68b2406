"""Manifest rows with fingerprints, as the tests of the near-duplicates need them, and the decisions on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import vidal.clip
from tests.toys import Pixels, clip_of
from vidal.record import to_row
from vidal.rows import whole
from vidal.stages.duplicates import Duplicates
from vidal.stages.fingerprints import Fingerprints

Row = dict[str, Any]


def row_of(clip_id: str, shown: list[Pixels] | None = None, **columns: Any) -> Row:
    """The manifest row of a kept clip that shows ``shown``."""
    clip = clip_of(shown or [], clip_id=clip_id, **{"status": "kept", "duration_s": 8.0, **columns})
    Fingerprints().process(clip)
    return to_row(clip)


def audio(seed: int, values: int = 60) -> list[int]:
    """A fingerprint that changes as chromaprint's do: some bits from each value to the next."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(0, 2**32, values) & generator.integers(0, 2**32, values)
    return [int(value) for value in np.bitwise_xor.accumulate(steps)]


def noisy(fingerprint: list[int], share: float = 0.03) -> list[int]:
    flips = np.random.default_rng(0).random((len(fingerprint), 32)) < share
    return [value ^ int(row @ (1 << np.arange(32))) for value, row in zip(fingerprint, flips, strict=True)]


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=vidal.clip.schema())


def decide(rows: list[Row], **settings: Any) -> dict[str, Row]:
    return {row["clip_id"]: row for row in whole(Duplicates(**settings).decide(table_of(rows))).to_pylist()}


def duplicates_in(rows: list[Row], **settings: Any) -> dict[str, tuple[str, str]]:
    decided = decide(rows, **settings).values()
    return {r["clip_id"]: (r["duplicate_of"], r["duplicate_kind"]) for r in decided if r["status"] == "rejected"}


FINE = {"has_audio": True, "width": 1280, "height": 720, "source_bytes": 4_000_000}
SILENCE = [627964279] * 60
