"""A clip that repeats a better one is rejected, however it was re-encoded; every other clip stays."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vidal.clip
from tests.toys import Pixels, clip_of, encoded, frames, image
from vidal.clip import SCHEMA_VERSION, Clip
from vidal.dataset.dataset import DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.record import to_row
from vidal.stages.duplicates import Duplicates
from vidal.stages.fingerprints import Fingerprints
from vidal.stages.near_duplicates import AudioFingerprints, frame_pairs

Row = dict[str, Any]


def _row(clip_id: str, shown: list[Pixels] | None = None, **columns: Any) -> Row:
    """The manifest row of a kept clip that shows ``shown``."""
    clip = clip_of(shown or [], clip_id=clip_id, **{"status": "kept", "duration_s": 8.0, **columns})
    Fingerprints().process(clip)
    return to_row(clip)


def _reencoded(shown: list[Pixels], size: tuple[int, int], quality: int) -> list[Pixels]:
    return [np.asarray(Image.open(io.BytesIO(encoded(frame, size=size, quality=quality)))) for frame in shown]


def _audio(seed: int, values: int = 60) -> list[int]:
    """A fingerprint that changes as chromaprint's do: some bits from each value to the next."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(0, 2**32, values) & generator.integers(0, 2**32, values)
    return [int(value) for value in np.bitwise_xor.accumulate(steps)]


def _noisy(fingerprint: list[int], share: float = 0.03) -> list[int]:
    flips = np.random.default_rng(0).random((len(fingerprint), 32)) < share
    return [value ^ int(row @ (1 << np.arange(32))) for value, row in zip(fingerprint, flips, strict=True)]


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=vidal.clip.schema())


def _decide(rows: list[Row], **settings: Any) -> dict[str, Row]:
    return {row["clip_id"]: row for row in Duplicates(**settings).decide(_table(rows)).to_pylist()}


def _repeats(rows: list[Row], **settings: Any) -> dict[str, tuple[str, str]]:
    decided = _decide(rows, **settings).values()
    return {r["clip_id"]: (r["duplicate_of"], r["duplicate_kind"]) for r in decided if r["status"] == "rejected"}


def _shaken(shown: list[Pixels], amount: float) -> list[Pixels]:
    """The frames with so much of another image mixed in that their hashes move ``amount`` apart."""
    other = image(999).astype(float)
    return [((1 - amount) * frame + amount * other).astype(np.uint8) for frame in shown]


@pytest.mark.parametrize(
    ("name", "size", "quality"),
    [("low quality", (144, 256), 15), ("half size", (72, 128), 50), ("larger", (216, 384), 70)],
)
def test_a_reencoded_clip_is_found_and_other_clips_are_not(name: str, size: tuple[int, int], quality: int) -> None:
    originals = [_row(f"clip{seed}", frames(seed)) for seed in range(6)]
    copy = _row("copy", _reencoded(frames(4), size, quality), duration_s=8.04)
    decided = _decide([*originals, copy])
    assert {clip_id: row["status"] for clip_id, row in decided.items() if row["status"] != "kept"} == {
        "copy": "rejected"
    }
    row = decided["copy"]
    assert (row["reason"], row["duplicate_of"], row["duplicate_kind"]) == ("duplicate", "clip4", "frames")
    assert row["detail"].startswith("mean frame distance ")
    assert row["detail"].endswith(" <= 10 bits with clip4")


def test_the_first_in_plan_order_stays_and_names_its_cluster() -> None:
    rows = [_row("b", frames(1)), _row("z", frames(2)), _row("a", frames(1)), _row("c", frames(1))]
    decided = _decide(rows)
    assert list(decided) == ["b", "z", "a", "c"]
    assert {clip_id: row["cluster"] for clip_id, row in decided.items()} == {"b": "b", "z": "z", "a": "b", "c": "b"}
    assert _repeats(rows) == {"a": ("b", "frames"), "c": ("b", "frames")}
    assert _repeats(rows[::-1]) == {"a": ("c", "frames"), "b": ("c", "frames")}


def test_a_chain_of_likenesses_is_one_cluster() -> None:
    """The last is too far from the first, but both are near the middle one, which comes in between or last."""
    first, middle, last = ((bits * 8)[-128:] for bits in ("00000000000000ff", "0000000000003fff", "00000000000fffff"))
    rows = {name: _row(name) | {"frame_hash": bits} for name, bits in (("f", first), ("m", middle), ("l", last))}
    assert _repeats([rows["f"], rows["l"]]) == {}
    for order in ("fml", "flm"):
        assert _repeats([rows[name] for name in order]) == {"m": ("f", "frames")}, order
        assert {row["cluster"] for row in _decide([rows[name] for name in order]).values()} == {"f"}
    rows["m"]["width"], rows["m"]["height"] = 1280, 720
    assert _repeats([rows[name] for name in "fml"]) == {"f": ("m", "frames"), "l": ("m", "frames")}


def _ladder(clips: int, step_bits: int) -> list[Row]:
    """Clips of which each is ``step_bits`` bits from the next, in every frame."""
    hashes = [((1 << step_bits * k) - 1) ^ 0x5A5A5A5A5A5A5A5A for k in range(clips)]
    return [_row(f"c{k:02d}") | {"frame_hash": f"{value:016x}" * 8} for k, value in enumerate(hashes)]


def test_of_a_long_chain_only_clips_within_the_limit_of_one_that_stays_are_rejected() -> None:
    """Fourteen clips, each 4 bits from the next: the limit of 10 reaches two steps."""
    decided = _decide(_ladder(14, step_bits=4))
    stays = [clip_id for clip_id, row in decided.items() if row["status"] == "kept"]
    assert stays == ["c00", "c03", "c06", "c09", "c12"]
    for clip_id, row in decided.items():
        if row["status"] == "rejected":
            steps = int(clip_id[1:]) - int(row["duplicate_of"][1:])
            assert row["duplicate_of"] in stays and steps in (1, 2)
            assert (row["duplicate_distance"], row["decided_value"], row["decided_limit"]) == (4 * steps, 4 * steps, 10)
            assert row["detail"] == f"mean frame distance {4 * steps:.2f} <= 10 bits with {row['duplicate_of']}"
    assert {row["cluster"] for row in decided.values()} == {"c00"}


FINE = {"has_audio": True, "width": 1280, "height": 720, "source_bytes": 4_000_000}


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        ("the original, and a mute copy at a lower bit rate", {}, {"has_audio": False, "source_bytes": 400_000}),
        ("audio before pixels", {"width": 320, "height": 180}, {"has_audio": False}),
        ("audio, and it is not known", {"source_bytes": 1}, {"has_audio": None}),
        ("pixels before bytes", {"source_bytes": 400_000}, {"width": 640, "height": 360}),
        ("turned, but more pixels", {"width": 720, "height": 1281}, {}),
        ("bytes", {"source_bytes": 4_000_001}, {}),
        ("bytes a second, not bytes", {}, {"duration_s": 8.4, "source_bytes": 4_100_000}),
        ("a size that is known", {}, {"width": None}),
    ],
)
def test_the_better_clip_stays_in_either_order(name: str, better: Row, worse: Row) -> None:
    rows = [_row("better", frames(1), **{**FINE, **better}), _row("worse", frames(1), **{**FINE, **worse})]
    for order in (rows, rows[::-1]):
        assert _repeats(order) == {"worse": ("better", "frames")}, name
        assert {row["cluster"] for row in _decide(order).values()} == {order[0]["clip_id"]}


def test_what_stays_is_what_the_plain_rule_says() -> None:
    """The rule clip by clip: the best stays, and takes with it what is within the limit of it."""
    generator = np.random.default_rng(3)
    steps = [0x5A5A5A5A5A5A5A5A]
    for _ in range(200):
        steps.append(steps[-1] ^ sum(1 << int(bit) for bit in generator.choice(64, 4, replace=False)))
    sizes = generator.integers(100, 104, len(steps))
    rows = [
        _row(f"c{k}", duration_s=8.0 + k / 100, width=int(size), height=100) | {"frame_hash": f"{value:016x}" * 8}
        for k, (value, size) in enumerate(zip(steps, sizes, strict=True))
    ]
    decided = _decide(rows)
    expected: dict[str, str] = {}
    order = sorted(range(len(rows)), key=lambda k: (-sizes[k], k))
    for place, best in enumerate(order):
        for k in order[place + 1 :] if f"c{best}" not in expected else ():
            near = (steps[best] ^ steps[k]).bit_count() <= 10 and abs(best - k) <= 50
            if near and decided[f"c{best}"]["cluster"] == decided[f"c{k}"]["cluster"]:
                expected.setdefault(f"c{k}", f"c{best}")
    assert {clip_id: found for clip_id, (found, _) in _repeats(rows).items()} == expected
    assert 100 < len(expected) < 190


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("another length", {"duration_s": 8.0}, {"duration_s": 8.6}),
        ("unknown length", {"duration_s": None}, {"duration_s": None}),
        ("not kept", {}, {"status": "failed"}),
        ("rejected before", {"status": "rejected"}, {}),
    ],
)
def test_equal_frames_are_no_duplicate_with(name: str, one: Row, two: Row) -> None:
    assert _repeats([_row("one", frames(1)) | one, _row("two", frames(1)) | two]) == {}, name


def test_only_kept_clips_of_the_phase_before_get_a_verdict() -> None:
    rows = [_row("f", frames(1), status="failed"), _row("k", frames(1)), _row("r", frames(1), status="rejected")]
    assert {clip_id: row["status"] for clip_id, row in _decide(rows).items()} == {"k": "kept"}


def test_black_and_flat_frames_match_nothing() -> None:
    black = np.zeros((256, 144, 3), np.uint8)
    mostly_black = [[*frames(seed)[:3], *[black] * 5] for seed in (1, 1)]
    rows = [_row("black1", [black] * 8), _row("black2", [black] * 8)]
    rows += [_row(f"few{k}", shown) for k, shown in enumerate(mostly_black)]
    assert _repeats(rows) == {}
    assert _repeats(rows, min_frames=3) == {"few1": ("few0", "frames")}


def test_equal_bytes_are_a_duplicate_whatever_else_is_known() -> None:
    rows = [_row("a", source_sha256="x", duration_s=None), _row("b", source_sha256="y"), _row("c", source_sha256="x")]
    assert _repeats(rows) == {"c": ("a", "file")}
    row = _decide(rows)["c"]
    assert (row["detail"], row["duplicate_distance"], row["decided_value"]) == ("same SHA-256 with a", 0, 0)
    assert _repeats([_row("a"), _row("b")]) == {}  # two unknown hashes are not equal


LOOSE = _shaken(frames(1), 0.3)
TITLE_CARD = [image(7)] * 8
SILENCE = [627964279] * 60
LULL = [0] * 140  # the value that the index scrambles to its smallest key, so that it offers the pair


@pytest.mark.parametrize(
    ("name", "frames_of_both", "audio_of_both", "found"),
    [
        # found: kind of the match under audio = off, confirm, reject
        ("near frames, same audio", (frames(1), frames(1)), (_audio(1), _noisy(_audio(1))), ("frames",) * 3),
        ("near frames, other audio", (frames(1), frames(1)), (_audio(1), _audio(2)), ("frames",) * 3),
        ("looser frames, other audio", (frames(1), LOOSE), (_audio(1), _audio(2)), (None, None, None)),
        ("looser frames, same audio", (frames(1), LOOSE), (_audio(1), _noisy(_audio(1))), (None, "frames", "frames")),
        ("looser frames, late audio", (frames(1), LOOSE), (_audio(1), _audio(1)[5:]), (None, "frames", "frames")),
        ("looser frames, early audio", (frames(1), LOOSE), (_audio(1)[5:], _audio(1)), (None, "frames", "frames")),
        ("looser frames, silence", (frames(1), LOOSE), (SILENCE, SILENCE), (None, None, None)),
        ("looser frames, no audio", (frames(1), LOOSE), ([], []), (None, None, None)),
        ("looser frames, short audio", (frames(1), LOOSE), (_audio(1, 12), _audio(1, 12)), (None, None, None)),
        ("other frames, same audio", (frames(1), frames(2)), (_audio(1), _noisy(_audio(1))), (None, None, "audio")),
        ("other frames, silence", (frames(1), frames(2)), (SILENCE, SILENCE), (None, None, None)),
        (
            "other frames, both silent for long",
            (frames(1), frames(2)),
            (LULL + _audio(1, 24), LULL + _audio(2, 24)),
            (None, None, None),
        ),
        ("a still, other audio", (TITLE_CARD, TITLE_CARD), (_audio(1), _audio(2)), ("frames", None, None)),
        ("a still, same audio", (TITLE_CARD, TITLE_CARD), (_audio(1), _noisy(_audio(1))), ("frames",) * 3),
        ("a still, short audio", (TITLE_CARD, TITLE_CARD), (_audio(1, 12), _audio(2, 12)), ("frames",) * 3),
        ("a still, silence", (TITLE_CARD, TITLE_CARD), (SILENCE, SILENCE), ("frames",) * 3),
    ],
)
def test_what_the_audio_says_is_a_setting(
    name: str,
    frames_of_both: tuple[list[Pixels], list[Pixels]],
    audio_of_both: tuple[list[int], list[int]],
    found: tuple[str | None, ...],
) -> None:
    rows = [
        _row("a", frames_of_both[0], audio_fingerprint=audio_of_both[0]),
        _row("b", frames_of_both[1], audio_fingerprint=audio_of_both[1]),
    ]
    for audio, kind in zip(("off", "confirm", "reject"), found, strict=True):
        assert _repeats(rows, audio=audio) == ({} if kind is None else {"b": ("a", kind)}), (name, audio)


def test_the_detail_and_the_columns_hold_every_number_that_was_decided_on() -> None:
    rows = [_row("a", frames(1), audio_fingerprint=_audio(1)), _row("b", LOOSE, audio_fingerprint=_noisy(_audio(1)))]
    row = _decide(rows)["b"]
    distance = row["duplicate_distance"]
    assert 10 < distance <= 16 and (row["decided_value"], row["decided_limit"]) == (distance, 16)
    assert row["detail"].startswith(f"mean frame distance {distance:.2f} <= 16 bits, audio error 0.0")
    rows[1] |= {"frame_hash": None}
    row = _decide(rows, audio="reject")["b"]
    error = row["duplicate_distance"]
    assert 0 < error <= 0.1 and (row["decided_value"], row["decided_limit"]) == (error, 0.1)
    assert row["detail"] == f"audio error {error:.3f} <= 0.1 with a"


def _write_dataset(folder: Path, shards: list[list[Row]]) -> str:
    (folder / "manifest").mkdir(parents=True)
    for number, rows in enumerate(shards):
        pq.write_table(_table(rows), folder / "manifest" / f"{number:06d}.parquet")
    counts = {"candidates": sum(map(len, shards)), "shards": len(shards)}
    info = {"schema_version": SCHEMA_VERSION, "fingerprint": "x", "layers": [], "recipe": {}, "definition": {}}
    write_info(Storage(str(folder)), DatasetInfo(name="earlier", created_by="test", **info, **counts))
    return str(folder)


def test_a_clip_that_an_earlier_dataset_kept_is_rejected_however_good_it_is(tmp_path: Path) -> None:
    dropped = _row("dropped", frames(3), status="rejected")
    first = _write_dataset(tmp_path / "first", [[_row("old", frames(1))], [dropped]])
    second = _write_dataset(tmp_path / "second", [[_row("older", frames(2), source_sha256="x")]])
    rows = [_row("new1", frames(1), **FINE), _row("new2", source_sha256="x")]
    rows += [_row("new3", frames(3)), _row("new4", frames(1))]
    decided = _decide(rows, against=[first, second])
    assert _repeats(rows, against=[first, second]) == {
        "new1": ("old", "frames"),
        "new2": ("older", "file"),
        "new4": ("old", "frames"),
    }
    assert decided["new1"]["detail"] == f"mean frame distance 0.00 <= 10 bits with old; old is in {first}"
    assert decided["new2"]["detail"] == f"same SHA-256 with older; older is in {second}"
    assert [decided[f"new{k}"]["cluster"] for k in (1, 2, 3, 4)] == ["old", "older", "new3", "old"]


def test_a_folder_that_is_no_dataset_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"duplicates: against: {tmp_path}: no dataset there"):
        _decide([_row("a")], against=[str(tmp_path)])


@pytest.mark.parametrize("audio", ["off", "confirm", "reject"])
def test_no_clips_and_no_fingerprints_are_no_error(audio: str) -> None:
    assert _decide([], audio=audio) == {}
    assert {row["status"] for row in _decide([_row("a"), _row("b")], audio=audio).values()} == {"kept"}


def _many(count: int, repeats: int, seed: int = 0) -> pa.Table:
    """``count`` random clips, the last ``repeats`` of which repeat clip 0, 1, … with 3 bits in 64 flipped."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(1, 2**64, (count, 8), dtype=np.uint64)
    hashes[-repeats:] = hashes[:repeats] ^ _flips(generator, (repeats, 8))
    durations = generator.uniform(3, 20, count)
    durations[-repeats:] = durations[:repeats] + 0.1
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
    table = _many(100_000, 5_000)
    start = time.process_time()
    decided = Duplicates().decide(table)
    assert time.process_time() - start < 60  # about 4 s on a quiet machine; comparing all pairs would take an hour
    expected = [None] * 95_000 + [f"c{k}" for k in range(5_000)]
    assert decided["duplicate_of"].to_pylist() == expected


def test_the_verdict_depends_on_plan_order_alone() -> None:
    """Not on how Arrow has cut the rows, and two orders of the plan give the same clusters."""
    table = _many(3_000, 600)
    whole = Duplicates().decide(table)
    pieces = pa.concat_tables([table.slice(0, 700), table.slice(700, 1), table.slice(701)])
    assert Duplicates().decide(pieces).to_pylist() == whole.to_pylist()
    shuffled = Duplicates().decide(table.take(np.random.default_rng(1).permutation(3_000)))
    assert _clusters(shuffled) == _clusters(whole)


def _clusters(decided: pa.Table) -> set[frozenset[str]]:
    members: dict[str, set[str]] = {}
    for clip_id, cluster in zip(decided["clip_id"].to_pylist(), decided["cluster"].to_pylist(), strict=True):
        members.setdefault(cluster, set()).add(clip_id)
    return {frozenset(clips) for clips in members.values()}


def test_a_crowd_in_one_bucket_is_linked() -> None:
    row = to_row(Clip(status="kept", duration_s=5.0, frame_hash="0123456789abcdef" * 8))
    decided = Duplicates().decide(_table([row | {"clip_id": f"c{k}"} for k in range(500)]))
    assert set(decided["cluster"].to_pylist()) == {"c0"}
    assert decided["status"].to_pylist() == ["kept"] + ["rejected"] * 499


def test_a_chain_of_thousands_takes_seconds() -> None:
    """A cluster in which hundreds stay: every clip is held against those, not against every other."""
    generator = np.random.default_rng(0)
    flips = (np.uint64(1) << generator.integers(0, 64, (10_000, 4), dtype=np.uint64)).astype(np.uint64)
    chain = np.bitwise_xor.accumulate(np.bitwise_xor.reduce(flips, axis=1)) | np.uint64(1)
    table = _many(10_000, 1)
    hashes = pa.array([f"{int(value):016x}" * 8 for value in chain])
    columns = {"frame_hash": hashes, "duration_s": pa.array(5 + np.arange(10_000) / 1000)}
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    start = time.process_time()
    decided = Duplicates().decide(table)
    assert time.process_time() - start < 60
    assert max(decided["duplicate_distance"].drop_null().to_pylist()) <= 10
    assert len(set(decided["cluster"].to_pylist())) < 100 and decided["status"].to_pylist().count("kept") > 1_000


def test_a_crowd_in_one_bucket_costs_no_more_than_its_window() -> None:
    """2,000 copies of one frame are two million pairs in each of the 8 tables, if each were held against each."""
    pairs = frame_pairs(np.full((2_000, 1), 7, np.uint64), np.full(2_000, 5.0), tolerance_s=0, max_bits=0)
    assert sum(len(left) for left, _ in pairs) < 8 * 64 * 2_000


@pytest.mark.parametrize(
    ("name", "one", "two", "error"),
    [
        ("itself", _audio(1), _audio(1), 0.0),
        ("cut at the front", _audio(1), _audio(1)[8:], 0.0),
        ("cut by more than an encoder would", _audio(1), _audio(1)[9:], 0.25),
        ("every bit turned", _audio(1), [value ^ (2**32 - 1) for value in _audio(1)], 0.5),
        ("another", _audio(1), _audio(2), 0.5),
        ("nothing", _audio(1), [], np.inf),
        ("a constant", SILENCE, SILENCE, np.inf),
        ("two values in turn", [1, 2] * 30, [1, 2] * 30, np.inf),
    ],
)
def test_audio_is_compared_at_the_best_shift_in_either_direction(
    name: str, one: list[int], two: list[int], error: float
) -> None:
    fingerprints = AudioFingerprints(pa.chunked_array([pa.array([one, two], pa.list_(pa.int64()))]), min_values=20)
    there, back = fingerprints.errors((np.array([0, 1]), np.array([1, 0])))
    assert there == back == pytest.approx(error, abs=0.1), name
