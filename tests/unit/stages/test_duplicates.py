"""A near-duplicate of a better clip is rejected, however it was re-encoded; every other clip stays."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.toys import Pixels, encoded, frames, image
from tests.unit.stages.fingerprinted import (
    FINE,
    SILENCE,
    Row,
    audio,
    decide,
    duplicates_in,
    noisy,
    row_of,
    table_of,
)
from vidal.clip import SCHEMA_VERSION
from vidal.dataset.dataset import DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.stages.duplicates import Duplicates


def reencoded(shown: list[Pixels], size: tuple[int, int], quality: int) -> list[Pixels]:
    return [np.asarray(Image.open(io.BytesIO(encoded(frame, size=size, quality=quality)))) for frame in shown]


def _shaken(shown: list[Pixels], amount: float) -> list[Pixels]:
    """The frames with so much of another image mixed in that their hashes move ``amount`` apart."""
    other = image(999).astype(float)
    return [((1 - amount) * frame + amount * other).astype(np.uint8) for frame in shown]


@pytest.mark.parametrize(
    ("name", "size", "quality"),
    [("low quality", (144, 256), 15), ("half size", (72, 128), 50), ("larger", (216, 384), 70)],
)
def test_a_reencoded_clip_is_found_and_other_clips_are_not(name: str, size: tuple[int, int], quality: int) -> None:
    originals = [row_of(f"clip{seed}", frames(seed)) for seed in range(6)]
    copy = row_of("copy", reencoded(frames(4), size, quality), duration_s=8.04)
    decided = decide([*originals, copy])
    assert {clip_id: row["status"] for clip_id, row in decided.items() if row["status"] != "kept"} == {
        "copy": "rejected"
    }
    row = decided["copy"]
    assert (row["reason"], row["duplicate_of"], row["duplicate_kind"]) == ("duplicate", "clip4", "frames")
    assert row["detail"].startswith("mean frame distance ")
    assert row["detail"].endswith(" <= 10 bits with clip4")


def test_the_first_in_plan_order_stays_and_names_its_cluster() -> None:
    rows = [row_of("b", frames(1)), row_of("z", frames(2)), row_of("a", frames(1)), row_of("c", frames(1))]
    decided = decide(rows)
    assert list(decided) == ["b", "z", "a", "c"]
    assert {clip_id: row["cluster"] for clip_id, row in decided.items()} == {"b": "b", "z": "z", "a": "b", "c": "b"}
    assert duplicates_in(rows) == {"a": ("b", "frames"), "c": ("b", "frames")}
    assert duplicates_in(rows[::-1]) == {"a": ("c", "frames"), "b": ("c", "frames")}


def test_a_chain_of_likenesses_is_one_cluster() -> None:
    """The last is too far from the first, but both are near the middle one, which comes in between or last."""
    first, middle, last = ((bits * 8)[-128:] for bits in ("00000000000000ff", "0000000000003fff", "00000000000fffff"))
    rows = {name: row_of(name) | {"frame_hash": bits} for name, bits in (("f", first), ("m", middle), ("l", last))}
    assert duplicates_in([rows["f"], rows["l"]]) == {}
    for order in ("fml", "flm"):
        assert duplicates_in([rows[name] for name in order]) == {"m": ("f", "frames")}, order
        assert {row["cluster"] for row in decide([rows[name] for name in order]).values()} == {"f"}
    rows["m"]["width"], rows["m"]["height"] = 1280, 720
    assert duplicates_in([rows[name] for name in "fml"]) == {"f": ("m", "frames"), "l": ("m", "frames")}


def _ladder(clips: int, step_bits: int) -> list[Row]:
    """Clips of which each is ``step_bits`` bits from the next, in every frame."""
    hashes = [((1 << step_bits * k) - 1) ^ 0x5A5A5A5A5A5A5A5A for k in range(clips)]
    return [row_of(f"c{k:02d}") | {"frame_hash": f"{value:016x}" * 8} for k, value in enumerate(hashes)]


def test_of_a_long_chain_only_clips_within_the_limit_of_one_that_stays_are_rejected() -> None:
    """Fourteen clips, each 4 bits from the next: the limit of 10 reaches two steps."""
    decided = decide(_ladder(14, step_bits=4))
    stays = [clip_id for clip_id, row in decided.items() if row["status"] == "kept"]
    assert stays == ["c00", "c03", "c06", "c09", "c12"]
    for clip_id, row in decided.items():
        if row["status"] == "rejected":
            steps = int(clip_id[1:]) - int(row["duplicate_of"][1:])
            assert row["duplicate_of"] in stays and steps in (1, 2)
            assert (row["duplicate_distance"], row["decided_value"], row["decided_limit"]) == (4 * steps, 4 * steps, 10)
            assert row["detail"] == f"mean frame distance {4 * steps:.2f} <= 10 bits with {row['duplicate_of']}"
    assert {row["cluster"] for row in decided.values()} == {"c00"}


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
    rows = [row_of("better", frames(1), **{**FINE, **better}), row_of("worse", frames(1), **{**FINE, **worse})]
    for order in (rows, rows[::-1]):
        assert duplicates_in(order) == {"worse": ("better", "frames")}, name
        assert {row["cluster"] for row in decide(order).values()} == {order[0]["clip_id"]}


def test_what_stays_is_what_the_plain_rule_says() -> None:
    """The rule clip by clip: the best stays, and takes with it what is within the limit of it."""
    generator = np.random.default_rng(3)
    steps = [0x5A5A5A5A5A5A5A5A]
    for _ in range(200):
        steps.append(steps[-1] ^ sum(1 << int(bit) for bit in generator.choice(64, 4, replace=False)))
    sizes = generator.integers(100, 104, len(steps))
    rows = [
        row_of(f"c{k}", duration_s=8.0 + k / 100, width=int(size), height=100) | {"frame_hash": f"{value:016x}" * 8}
        for k, (value, size) in enumerate(zip(steps, sizes, strict=True))
    ]
    decided = decide(rows)
    expected: dict[str, str] = {}
    order = sorted(range(len(rows)), key=lambda k: (-sizes[k], k))
    for place, best in enumerate(order):
        for k in order[place + 1 :] if f"c{best}" not in expected else ():
            near = (steps[best] ^ steps[k]).bit_count() <= 10 and abs(best - k) <= 50
            if near and decided[f"c{best}"]["cluster"] == decided[f"c{k}"]["cluster"]:
                expected.setdefault(f"c{k}", f"c{best}")
    assert {clip_id: found for clip_id, (found, _) in duplicates_in(rows).items()} == expected
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
    assert duplicates_in([row_of("one", frames(1)) | one, row_of("two", frames(1)) | two]) == {}, name


def test_only_kept_clips_of_the_phase_before_get_a_verdict() -> None:
    rows = [row_of("f", frames(1), status="failed"), row_of("k", frames(1)), row_of("r", frames(1), status="rejected")]
    assert {clip_id: row["status"] for clip_id, row in decide(rows).items()} == {"k": "kept"}


def test_black_and_flat_frames_match_nothing() -> None:
    black = np.zeros((256, 144, 3), np.uint8)
    mostly_black = [[*frames(seed)[:3], *[black] * 5] for seed in (1, 1)]
    rows = [row_of("black1", [black] * 8), row_of("black2", [black] * 8)]
    rows += [row_of(f"few{k}", shown) for k, shown in enumerate(mostly_black)]
    assert duplicates_in(rows) == {}
    assert duplicates_in(rows, min_frames=3) == {"few1": ("few0", "frames")}


def test_equal_bytes_are_a_duplicate_whatever_else_is_known() -> None:
    rows = [
        row_of("a", source_sha256="x", duration_s=None),
        row_of("b", source_sha256="y"),
        row_of("c", source_sha256="x"),
    ]
    assert duplicates_in(rows) == {"c": ("a", "file")}
    row = decide(rows)["c"]
    assert (row["detail"], row["duplicate_distance"], row["decided_value"]) == ("same SHA-256 with a", 0, 0)
    assert duplicates_in([row_of("a"), row_of("b")]) == {}  # two unknown hashes are not equal


LOOSE = _shaken(frames(1), 0.3)
TITLE_CARD = [image(7)] * 8
LULL = [0] * 140  # the value that the index scrambles to its smallest key, so that it offers the pair


@pytest.mark.parametrize(
    ("name", "frames_of_both", "audio_of_both", "found"),
    [
        # found: kind of the match under audio = off, confirm, reject
        ("near frames, same audio", (frames(1), frames(1)), (audio(1), noisy(audio(1))), ("frames",) * 3),
        ("near frames, other audio", (frames(1), frames(1)), (audio(1), audio(2)), ("frames",) * 3),
        ("looser frames, other audio", (frames(1), LOOSE), (audio(1), audio(2)), (None, None, None)),
        ("looser frames, same audio", (frames(1), LOOSE), (audio(1), noisy(audio(1))), (None, "frames", "frames")),
        ("looser frames, late audio", (frames(1), LOOSE), (audio(1), audio(1)[5:]), (None, "frames", "frames")),
        ("looser frames, early audio", (frames(1), LOOSE), (audio(1)[5:], audio(1)), (None, "frames", "frames")),
        ("looser frames, silence", (frames(1), LOOSE), (SILENCE, SILENCE), (None, None, None)),
        ("looser frames, no audio", (frames(1), LOOSE), ([], []), (None, None, None)),
        ("looser frames, short audio", (frames(1), LOOSE), (audio(1, 12), audio(1, 12)), (None, None, None)),
        ("other frames, same audio", (frames(1), frames(2)), (audio(1), noisy(audio(1))), (None, None, "audio")),
        ("other frames, silence", (frames(1), frames(2)), (SILENCE, SILENCE), (None, None, None)),
        (
            "other frames, both silent for long",
            (frames(1), frames(2)),
            (LULL + audio(1, 24), LULL + audio(2, 24)),
            (None, None, None),
        ),
        ("a still, other audio", (TITLE_CARD, TITLE_CARD), (audio(1), audio(2)), ("frames", None, None)),
        ("a still, same audio", (TITLE_CARD, TITLE_CARD), (audio(1), noisy(audio(1))), ("frames",) * 3),
        ("a still, short audio", (TITLE_CARD, TITLE_CARD), (audio(1, 12), audio(2, 12)), ("frames",) * 3),
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
        row_of("a", frames_of_both[0], audio_fingerprint=audio_of_both[0]),
        row_of("b", frames_of_both[1], audio_fingerprint=audio_of_both[1]),
    ]
    for setting, kind in zip(("off", "confirm", "reject"), found, strict=True):
        assert duplicates_in(rows, audio=setting) == ({} if kind is None else {"b": ("a", kind)}), (name, setting)


def test_the_detail_and_the_columns_hold_every_number_that_was_decided_on() -> None:
    rows = [row_of("a", frames(1), audio_fingerprint=audio(1)), row_of("b", LOOSE, audio_fingerprint=noisy(audio(1)))]
    row = decide(rows)["b"]
    distance = row["duplicate_distance"]
    assert 10 < distance <= 16 and (row["decided_value"], row["decided_limit"]) == (distance, 16)
    assert row["detail"].startswith(f"mean frame distance {distance:.2f} <= 16 bits, audio error 0.0")
    rows[1] |= {"frame_hash": None}
    row = decide(rows, audio="reject")["b"]
    error = row["duplicate_distance"]
    assert 0 < error <= 0.1 and (row["decided_value"], row["decided_limit"]) == (error, 0.1)
    assert row["detail"] == f"audio error {error:.3f} <= 0.1 with a"


def _write_dataset(folder: Path, shards: list[list[Row]]) -> str:
    (folder / "manifest").mkdir(parents=True)
    for number, rows in enumerate(shards):
        pq.write_table(table_of(rows), folder / "manifest" / f"{number:06d}.parquet")
    counts = {"candidates": sum(map(len, shards)), "shards": len(shards)}
    info = {"schema_version": SCHEMA_VERSION, "fingerprint": "x", "layers": [], "recipe": {}, "definition": {}}
    write_info(Storage(str(folder)), DatasetInfo(name="earlier", created_by="test", **info, **counts))
    return str(folder)


def test_a_clip_that_an_earlier_dataset_kept_is_rejected_however_good_it_is(tmp_path: Path) -> None:
    dropped = row_of("dropped", frames(3), status="rejected")
    first = _write_dataset(tmp_path / "first", [[row_of("old", frames(1))], [dropped]])
    second = _write_dataset(tmp_path / "second", [[row_of("older", frames(2), source_sha256="x")]])
    rows = [row_of("new1", frames(1), **FINE), row_of("new2", source_sha256="x")]
    rows += [row_of("new3", frames(3)), row_of("new4", frames(1))]
    decided = decide(rows, against=[first, second])
    assert duplicates_in(rows, against=[first, second]) == {
        "new1": ("old", "frames"),
        "new2": ("older", "file"),
        "new4": ("old", "frames"),
    }
    assert decided["new1"]["detail"] == "mean frame distance 0.00 <= 10 bits with old; old is in earlier"
    assert decided["new2"]["detail"] == "same SHA-256 with older; older is in earlier"
    assert [decided[f"new{k}"]["cluster"] for k in (1, 2, 3, 4)] == ["old", "older", "new3", "old"]


def test_where_the_earlier_clips_lie_changes_neither_identity_nor_rows(tmp_path: Path) -> None:
    here = _write_dataset(tmp_path / "here", [[row_of("old")]])
    there = str(shutil.copytree(here, tmp_path / "there"))
    other = _write_dataset(tmp_path / "other", [[row_of("old")], [row_of("older", frames(2))]])
    identity = [Duplicates(against=[folder]).identity() for folder in (here, there, other)]
    assert identity[0] == identity[1] != identity[2] and str(tmp_path) not in str(identity)
    assert decide([row_of("new")], against=[here]) == decide([row_of("new")], against=[there])


def test_a_folder_that_is_no_dataset_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"duplicates: against: {tmp_path}: no dataset there"):
        decide([row_of("a")], against=[str(tmp_path)])


@pytest.mark.parametrize("audio", ["off", "confirm", "reject"])
def test_no_clips_and_no_fingerprints_are_no_error(audio: str) -> None:
    assert decide([], audio=audio) == {}
    assert {row["status"] for row in decide([row_of("a"), row_of("b")], audio=audio).values()} == {"kept"}
