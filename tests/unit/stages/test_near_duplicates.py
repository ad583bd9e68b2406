"""Near-duplicates are found among a hundred thousand clips in seconds, and the decision depends on plan order alone."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.unit.stages.fingerprinted import SILENCE, audio, table_of
from vidal.clip import Clip
from vidal.record import to_row
from vidal.rows import whole
from vidal.stages.audio_fingerprints import AudioFingerprints
from vidal.stages.duplicates import Duplicates
from vidal.stages.near_duplicates import frame_pairs


def many(count: int, copies: int, seed: int = 0) -> pa.Table:
    """``count`` random clips, the last ``copies`` of which are clip 0, 1, … with 3 bits in 64 flipped."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(1, 2**64, (count, 8), dtype=np.uint64)
    hashes[-copies:] = hashes[:copies] ^ _flips(generator, (copies, 8))
    durations = generator.uniform(3, 20, count)
    durations[-copies:] = durations[:copies] + 0.1
    digits = hashes.astype(">u8").tobytes().hex()
    return pa.table(
        {
            "clip_id": [f"c{k}" for k in range(count)],
            "status": ["kept"] * count,
            "source_sha256": [f"{k:064x}" for k in range(count)],
            "frame_hash": [digits[k : k + 128] for k in range(0, len(digits), 128)],
            "audio_fingerprint": pa.array([[]] * count, pa.list_(pa.int64())),
            "duration_s": durations,
            **{name: pa.nulls(count) for name in ("has_audio", "width", "height", "source_bytes")},
        }
    )


def _flips(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    bits = [(generator.random(shape) < 3 / 64).astype(np.uint64) << np.uint64(k) for k in range(64)]
    return np.bitwise_or.reduce(bits)


def test_a_hundred_thousand_clips_take_seconds_and_lose_no_duplicate() -> None:
    table = many(100_000, 5_000)
    start = time.process_time()
    decided = whole(Duplicates().decide(table))
    assert time.process_time() - start < 60  # about 4 s on a quiet machine; comparing all pairs would take an hour
    expected = [None] * 95_000 + [f"c{k}" for k in range(5_000)]
    assert decided["duplicate_of"].to_pylist() == expected


def test_the_verdict_depends_on_plan_order_alone() -> None:
    """Not on how Arrow has cut the rows, and two orders of the plan give the same clusters."""
    table = many(3_000, 600)
    decided = whole(Duplicates().decide(table))
    pieces = pa.concat_tables([table.slice(0, 700), table.slice(700, 1), table.slice(701)])
    assert whole(Duplicates().decide(pieces)).to_pylist() == decided.to_pylist()
    shuffled = whole(Duplicates().decide(table.take(np.random.default_rng(1).permutation(3_000))))
    assert _clusters(shuffled) == _clusters(decided)


def _clusters(decided: pa.Table) -> set[frozenset[str]]:
    members: dict[str, set[str]] = {}
    for clip_id, cluster in zip(decided["clip_id"].to_pylist(), decided["cluster"].to_pylist(), strict=True):
        members.setdefault(cluster, set()).add(clip_id)
    return {frozenset(clips) for clips in members.values()}


def test_a_crowd_in_one_bucket_is_linked() -> None:
    row = to_row(Clip(status="kept", duration_s=5.0, frame_hash="0123456789abcdef" * 8))
    decided = whole(Duplicates().decide(table_of([row | {"clip_id": f"c{k}"} for k in range(500)])))
    assert set(decided["cluster"].to_pylist()) == {"c0"}
    assert decided["status"].to_pylist() == ["kept"] + ["rejected"] * 499


def test_a_chain_of_thousands_takes_seconds() -> None:
    """A cluster in which hundreds stay: every clip is held against those, not against every other."""
    generator = np.random.default_rng(0)
    flips = (np.uint64(1) << generator.integers(0, 64, (10_000, 4), dtype=np.uint64)).astype(np.uint64)
    chain = np.bitwise_xor.accumulate(np.bitwise_xor.reduce(flips, axis=1)) | np.uint64(1)
    table = many(10_000, 1)
    hashes = pa.array([f"{int(value):016x}" * 8 for value in chain])
    columns = {"frame_hash": hashes, "duration_s": pa.array(5 + np.arange(10_000) / 1000)}
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    start = time.process_time()
    decided = whole(Duplicates().decide(table))
    assert time.process_time() - start < 60
    assert max(decided["duplicate_distance"].drop_null().to_pylist()) <= 10
    assert len(set(decided["cluster"].to_pylist())) < 100 and decided["status"].to_pylist().count("kept") > 1_000


def test_a_crowd_in_one_bucket_costs_no_more_than_its_window() -> None:
    """2,000 copies of one frame are two million pairs in each of the 8 tables, if each were held against each."""
    pairs = frame_pairs(np.full((2_000, 1), 7, np.uint64), np.full(2_000, 5.0), tolerance_s=0, max_bits=0)
    assert sum(len(left) for left, _ in pairs) < 8 * 64 * 2_000


def test_clips_of_equal_duration_are_found_among_thousands_in_one_bucket() -> None:
    """Each has the same first 16 bits, and a copy differs in a bit of each later byte: no other band leads to it."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**48, (5_000, 1), dtype=np.uint64) | np.uint64(0xABCD << 48)
    hashes[2_500:] = hashes[:2_500] ^ np.uint64(0x010101010101)
    durations = np.tile(np.arange(2_500.0), 2)
    pairs = frame_pairs(hashes, durations, tolerance_s=0.5, max_bits=6)
    assert {pair for left, right in pairs for pair in zip(left, right, strict=True)} == {
        (row, row + 2_500) for row in range(2_500)
    }


@pytest.mark.parametrize(
    ("name", "one", "two", "error"),
    [
        ("itself", audio(1), audio(1), 0.0),
        ("cut at the front", audio(1), audio(1)[8:], 0.0),
        ("cut by more than an encoder would", audio(1), audio(1)[9:], 0.25),
        ("every bit turned", audio(1), [value ^ (2**32 - 1) for value in audio(1)], 0.5),
        ("another", audio(1), audio(2), 0.5),
        ("nothing", audio(1), [], np.inf),
        ("a constant", SILENCE, SILENCE, np.inf),
        ("two values in turn", [1, 2] * 30, [1, 2] * 30, np.inf),
    ],
)
def test_audio_is_compared_at_the_best_shift_in_either_direction(
    name: str, one: list[int], two: list[int], error: float
) -> None:
    fingerprints = AudioFingerprints(min_values=20)
    fingerprints.add(pa.chunked_array([[one, two]], pa.list_(pa.int64())))
    there, back = fingerprints.errors((np.array([0, 1]), np.array([1, 0])))
    assert there == back == pytest.approx(error, abs=0.1), name
