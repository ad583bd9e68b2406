"""The sample set: manifests/sample.csv and samples/clips say the same, and show every way that a clip can be dropped."""

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import av
import pytest

from tests.conftest import ROOT

MANIFEST = ROOT / "manifests" / "sample.csv"
CLIPS = ROOT / "samples" / "clips"
FREE_LICENCES = {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "Public Domain"}
REJECTED_OR_FAILED = {
    "too_long",
    "too_static",
    "duplicate",
    "too_dark",
    "no_text",
    "undecodable",
    "truncated",
    "no_video",
}
MAX_TOTAL_BYTES = 15_000_000


def read_rows() -> list[dict[str, str]]:
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = read_rows()
KEPT = [row for row in ROWS if row["expected"] == "kept"]


def path_of(row: dict[str, str]) -> Path:
    return (MANIFEST.parent / row["url"]).resolve()


def by_id(rows: list[dict[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row["clip_id"] for row in rows])


def test_manifest_and_folder_hold_the_same_clips() -> None:
    listed = [path_of(row) for row in ROWS]
    assert sorted(listed) == sorted(path.resolve() for path in CLIPS.iterdir())


def test_all_clips_together_are_small() -> None:
    assert sum(path.stat().st_size for path in CLIPS.iterdir()) < MAX_TOTAL_BYTES


def test_clip_ids_are_unique_and_fit_for_file_names() -> None:
    ids = [row["clip_id"] for row in ROWS]
    assert [clip_id for clip_id in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", clip_id)] == []
    assert len(set(ids)) == len(ids)


def test_every_reason_to_turn_a_clip_away_is_shown() -> None:
    assert {row["expected"] for row in ROWS} == REJECTED_OR_FAILED | {"kept"}


def test_number_of_kept_clips() -> None:
    assert 16 <= len(KEPT) <= 24


@by_id(ROWS)
def test_clip_names_its_licence_and_author(row: dict[str, str]) -> None:
    assert row["licence"] in FREE_LICENCES
    assert row["attribution"] and row["uploader"] and row["source"]
    assert f"| {row['clip_id']} |" in (ROOT / "samples" / "LICENCES.md").read_text(encoding="utf-8")


@by_id(KEPT)
def test_kept_clip_lasts_3_to_20_s_and_decodes(row: dict[str, str]) -> None:
    with av.open(str(path_of(row))) as container:
        last = [frame.time for frame in container.decode(video=0)][-1]
    assert 2.9 <= last <= 20


@by_id(KEPT)
def test_kept_clip_has_title_and_hashtags(row: dict[str, str]) -> None:
    assert len(row["title"].split()) >= 1
    assert all(re.fullmatch(r"#\w+", hashtag) for hashtag in row["hashtags"].split())
    assert row["hashtags"]


def test_clip_without_text_has_none() -> None:
    assert [(row["title"], row["hashtags"]) for row in ROWS if row["expected"] == "no_text"] == [("", "")]


def test_one_duplicate_is_a_byte_copy_and_one_is_not() -> None:
    digests = {row["clip_id"]: hashlib.sha256(path_of(row).read_bytes()).hexdigest() for row in ROWS}
    originals = Counter(digests[row["clip_id"]] for row in KEPT)
    copies = [originals[digests[row["clip_id"]]] for row in ROWS if row["expected"] == "duplicate"]
    assert sorted(copies) == [0, 1]


@by_id([row for row in ROWS if row["expected"] in ("undecodable", "truncated")])
def test_broken_clip_cannot_be_decoded(row: dict[str, str]) -> None:
    with pytest.raises(av.error.InvalidDataError), av.open(str(path_of(row))) as container:
        list(container.decode(video=0))


def test_text_speech_and_missing_audio_are_represented() -> None:
    have_audio: list[bool] = []
    for row in KEPT:
        with av.open(str(path_of(row))) as container:
            have_audio.append(bool(container.streams.audio))
    assert have_audio.count(False) >= 2
    assert sum(bool(row["burnt_in_text"]) for row in KEPT) >= 4
    assert sum(bool(row["spoken_text"]) for row in KEPT) >= 2


@by_id([row for row in ROWS if row["spoken_text"]])
def test_speech_belongs_to_its_picture(row: dict[str, str]) -> None:
    """It is the footage's own, or says what is drawn on the picture."""
    was_added = "voice:" in row["attribution"]
    assert not was_added or row["spoken_text"] == row["burnt_in_text"].casefold()


def test_shapes_codecs_and_containers_are_mixed() -> None:
    shapes, codecs, rotations = set(), set(), set()
    for row in KEPT:
        with av.open(str(path_of(row))) as container:
            stream = container.streams.video[0]
            shapes.add((stream.width > stream.height) - (stream.width < stream.height))
            codecs.add(stream.codec_context.name)
            rotations.add(next(container.decode(stream)).rotation)
    assert shapes == {-1, 0, 1}
    assert codecs >= {"h264", "hevc", "vp9", "mpeg4"}
    assert rotations - {0}
    assert {path_of(row).suffix for row in KEPT} == {".mp4", ".webm", ".mkv", ".mov"}
