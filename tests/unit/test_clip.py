"""The record: its columns are golden, its documents are made from it, and rows and clips are the same thing."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest

from vidal import clip as clips
from vidal.clip import (
    SCHEMA_VERSION,
    Clip,
    MatchScore,
    MemberRecord,
    OcrLine,
    Segment,
    manifest_schema,
    schema,
)
from vidal.dataset import manifest
from vidal.errors import ClipError
from vidal.record import from_row, to_json, to_row
from vidal.stage import digest

EXTRA = pa.schema([pa.field("likes", pa.int64())])

# Golden: whoever changes a column raises SCHEMA_VERSION, and adds the new version's digest here.
SCHEMAS = {
    1: "5921d171afce2efe",
    2: "e14a3628fba2ee0a",
    3: "38a98fbcee4a76be",
    4: "a67bb4bb7cbf4866",
    5: "f04235b8dac531a3",
}
COLUMNS = """
clip_id url shard position title hashtags uploader licence attribution uploader_id platform platform_id
uploaded_at platform_language age_limit live_status view_count like_count description tags search_term
crawled_at source_sha256 source_bytes container video_codec audio_codec duration_s width height fps frame_count
is_variable_fps rotation_deg is_hdr has_audio audio_start_s audio_duration_s audio_status audio_reason
video_tracks video_track audio_tracks audio_track audio_language clock_jumps stated stated_duration_s
frame_times frame_width frame_height clean_title title_language ocr_text ocr_lines ocr_model transcript
transcript_language transcript_segments transcript_model frame_captions video_caption frame_caption_model
sound_caption sound_caption_model caption caption_source caption_refusal caption_model text_match
text_match_model title_words title_language_score motion spatial_information scene_changes freeze_share
black_share luma_mean blur corrupt_frames corrupt_audio_share damage audio_rms_db loudness_lufs silence_share
speech_share transcript_confidence ocr_area_share frame_caption_score depth_saturation_share depth_flicker
infrared_flicker infrared_edge_agreement depth_scale depth_model infrared_model synthetic_layers frame_hash
audio_fingerprint status stage reason detail decided_value decided_limit is_transient attempts duplicate_of
duplicate_kind duplicate_distance cluster media_model prompt_tokens completion_tokens server_cost fingerprint
thumbnail layers members
""".split()  # noqa: SIM905


def full_clip() -> Clip:
    return Clip(
        clip_id="a-1",
        url="a.mp4",
        shard=3,
        position=17,
        title="Ça « va »",
        hashtags=["cat", "猫"],
        duration_s=2.5,
        has_audio=False,
        frame_times=[0.25, 1.25],
        ocr_lines=[OcrLine(frame=0, text="EXIT", score=0.5, box=[0.0, 0.1, 0.2, 0.3])],
        transcript_segments=[Segment(start_s=0.0, end_s=1.0, text="hello", confidence=0.9)],
        text_match=[MatchScore(view="title", score=0.25)],
        blur=0.0,
        status="kept",
        attempts=2,
        layers=["video"],
        members=[MemberRecord(layer="video", name="a-1.mp4", offset=512, size=9, sha256="00")],
        extra={"likes": 7},
    )


def test_a_changed_column_raises_the_schema_version() -> None:
    types = [[field.name, str(field.type)] for field in manifest_schema()]
    assert SCHEMAS[SCHEMA_VERSION] == digest(types), "raise SCHEMA_VERSION and add its digest"
    assert schema().metadata == {b"vidal.schema_version": str(SCHEMA_VERSION).encode()}


def test_the_columns_are_these_in_this_order() -> None:
    assert list(clips.column_names()) == COLUMNS


def test_every_column_says_what_it_means() -> None:
    assert [f.name for f in clips.columns() if not f.metadata["doc"] or "|" in f.metadata["doc"]] == []


def test_a_row_is_the_clip_and_back() -> None:
    clip = full_clip()
    assert from_row(to_row(clip)) == clip


@pytest.mark.parametrize("clip", [full_clip(), Clip(clip_id="b", url="b.mp4", status="rejected")])
def test_a_row_goes_through_parquet_unharmed(clip: Clip) -> None:
    data = manifest.to_parquet([clip], EXTRA, {"fingerprint": "f", "shard": "3"})
    assert from_row(manifest.read(data).to_pylist()[0]) == Clip(
        **{name: getattr(clip, name) for name in clips.column_names()}, extra={"likes": clip.extra.get("likes")}
    )
    assert manifest.metadata_of(manifest.read_schema(data)) == {
        "fingerprint": "f",
        "shard": "3",
        "schema_version": str(SCHEMA_VERSION),
    }


def test_the_json_member_holds_what_the_clip_is_and_not_how_the_row_came_to_be() -> None:
    told = {name: value for name, value in to_json(full_clip(), EXTRA).items() if value not in (None, [])}
    assert told == {
        "clip_id": "a-1",
        "url": "a.mp4",
        "title": "Ça « va »",
        "hashtags": ["cat", "猫"],
        "duration_s": 2.5,
        "has_audio": False,
        "frame_times": [0.25, 1.25],
        "ocr_lines": [{"frame": 0, "text": "EXIT", "score": 0.5, "box": [0.0, 0.1, 0.2, 0.3]}],
        "transcript_segments": [{"start_s": 0.0, "end_s": 1.0, "text": "hello", "confidence": 0.9}],
        "text_match": [{"view": "title", "score": 0.25}],
        "blur": 0.0,
        "likes": 7,
    }


def test_the_json_member_has_every_key_whatever_is_known_of_the_clip() -> None:
    assert list(to_json(Clip(clip_id="b"), EXTRA)) == list(to_json(full_clip(), EXTRA))
    assert [to_json(Clip(clip_id="b"), EXTRA)[name] for name in ("title", "tags", "likes")] == [None, [], None]


def test_the_json_member_is_json_whatever_the_numbers() -> None:
    clip = Clip(blur=math.nan, frame_times=[math.inf, 1.0], extra={"likes": {"mean": -math.inf}})
    told = json.loads(json.dumps(to_json(clip, EXTRA), allow_nan=False))
    assert (told["blur"], told["frame_times"], told["likes"]) == (None, [None, 1.0], {"mean": None})


@pytest.mark.parametrize(
    ("column", "value", "emptied"),
    [
        ("title", "half an emoji \ud83d", None),
        ("motion", "fast", None),
        ("audio_fingerprint", [2**70], []),
        ("scene_changes", 2**64, None),
        ("likes", "many", None),
    ],
)
def test_a_column_that_cannot_be_stored_is_named_and_emptied(column: str, value: object, emptied: object) -> None:
    clip = full_clip()
    clip[column] = value
    with pytest.raises(ClipError, match=f"^unstorable: {column}: ") as caught:
        manifest.check(clip, schema(EXTRA))
    assert caught.value.detail.isascii()
    assert clip[column] == emptied
    manifest.check(clip, schema(EXTRA))
