"""`Clip`, the single declaration of the record's columns.

The Arrow schema, the Parquet manifests, the ``json`` member of the tars and the column table in
``manifests/COLUMNS.md`` all derive from the fields below. A change of a column requires a higher
`SCHEMA_VERSION`. A dataset's further columns are declared by its recipe's stages (`vidal.record.Column`), or are its
source's own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import pyarrow as pa

from vidal.arrow_types import CATEGORY, arrow_type
from vidal.errors import ClipError
from vidal.work import Work

SCHEMA_VERSION = 5
OLDEST_SCHEMA_VERSION = 3
"""The oldest version that is read; columns that such a dataset lacks are null."""

Status = Literal["candidate", "kept", "rejected", "failed"]


@dataclass(slots=True, kw_only=True)
class OcrLine:
    """One line of text in one frame; ``score`` is in [0, 1], ``box`` x0, y0, x1, y1 as shares of its sides."""

    frame: int
    text: str
    score: float
    box: list[float]


@dataclass(slots=True, kw_only=True)
class Segment:
    """One segment of speech; times in seconds from the clip's start, ``confidence`` in [0, 1]."""

    start_s: float
    end_s: float
    text: str
    confidence: float


@dataclass(slots=True, kw_only=True)
class MatchScore:
    """How well the text of one column matches the frames: a mean cosine, comparable only within one model."""

    view: str
    score: float


@dataclass(slots=True, kw_only=True)
class Statement:
    """What platform or file headers state about a clip, before anything is measured; null where they state nothing."""

    by: str
    """``platform``, ``container``, or ``video`` for the header of the video stream."""
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    frame_count: int | None = None
    has_audio: bool | None = None


@dataclass(slots=True, kw_only=True)
class MemberRecord:
    """One tar member: ``offset`` and ``size`` in bytes within ``<layer>/<shard>.tar``."""

    layer: str
    name: str
    offset: int
    size: int
    sha256: str


def _column(group: str, doc: str, default: Any = None, *, is_category: bool = False) -> Any:
    """Declare a column; ``is_category`` marks text with few distinct values, which a manifest dictionary-encodes."""
    metadata = {"group": group, "doc": doc, "is_category": is_category}
    # One list as a default would be shared by all clips.
    if default in ([], {}):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(slots=True, kw_only=True)
class Clip:
    """One clip in processing: its manifest row, and `work`, which is never stored.

    ``clip["colourfulness"]`` reads and writes any column by name, whether it is a field or in `extra`.
    """

    # identity
    clip_id: str = _column("identity", "key of the clip in every layer, of letters, digits, _ and -", "")
    url: str = _column("identity", "path or URL as the source gives it", "")
    shard: int = _column("identity", "number of the shard in the plan", 0)
    position: int = _column("identity", "position in the plan's order", 0)

    # crawl
    title: str | None = _column("crawl", "raw title")
    hashtags: list[str] | None = _column("crawl", "raw hashtags without #; null where the source gives none")
    uploader: str | None = _column("crawl", "name of the uploader")
    licence: str | None = _column("crawl", "licence as the source states it")
    attribution: str | None = _column("crawl", "credit line that the licence requires")
    uploader_id: str | None = _column("crawl", "the platform's id of the uploader")
    platform: str | None = _column("crawl", "platform that the clip was fetched from, as yt-dlp names it")
    platform_id: str | None = _column("crawl", "the platform's id of the clip")
    uploaded_at: str | None = _column("crawl", "date of publication, ISO 8601")
    platform_language: str | None = _column("crawl", "language that the platform states")
    age_limit: int | None = _column("crawl", "minimum age that the platform requires")
    live_status: str | None = _column("crawl", "not_live, is_live, was_live, is_upcoming, post_live")
    view_count: int | None = _column("crawl", "views at the time of the crawl")
    like_count: int | None = _column("crawl", "likes at the time of the crawl")
    description: str | None = _column("crawl", "raw description")
    tags: list[str] = _column("crawl", "the platform's tags, as distinct from hashtags", [])
    search_term: str | None = _column("crawl", "search term that found the clip")
    crawled_at: str | None = _column("crawl", "time of the fetch, successful or failed, ISO 8601 in UTC")

    # media
    source_sha256: str | None = _column("media", "SHA-256 of the fetched file")
    source_bytes: int | None = _column("media", "size of the fetched file, in bytes")
    container: str | None = _column("media", "container of the source, as FFmpeg names it")
    video_codec: str | None = _column("media", "video codec of the source")
    audio_codec: str | None = _column("media", "audio codec of the source; null without audio")
    duration_s: float | None = _column("media", "duration of the video, in seconds")
    width: int | None = _column("media", "width of the source as displayed, in pixels")
    height: int | None = _column("media", "height of the source as displayed, in pixels")
    fps: float | None = _column("media", "mean frames per second of the source")
    frame_count: int | None = _column("media", "number of frames of the source")
    is_variable_fps: bool | None = _column("media", "whether frame intervals differ")
    rotation_deg: int | None = _column("media", "rotation of the source's display matrix, in degrees")
    is_hdr: bool | None = _column("media", "whether the source has a high-dynamic-range transfer curve")
    has_audio: bool | None = _column("media", "whether the clip has audio; false means no audio member")
    audio_start_s: float | None = _column("media", "start of the source's audio relative to its video, in seconds")
    audio_duration_s: float | None = _column("media", "duration of the source's audio, in seconds")
    audio_status: str | None = _column(
        "media", "ok; damaged: kept with gaps; left_out: the source's audio is unusable; none: the source has none"
    )
    audio_reason: str | None = _column("media", "why the audio is damaged or left out")
    video_tracks: int | None = _column(
        "media", "number of video tracks of the source, including cover art and still images"
    )
    video_track: int | None = _column("media", "index of the video track that was used, from 0")
    audio_tracks: int | None = _column("media", "number of audio tracks of the source")
    audio_track: int | None = _column("media", "index of the audio track that was used, from 0")
    audio_language: str | None = _column("media", "language tag of the audio track")
    clock_jumps: int | None = _column("media", "number of timestamp jumps and restarts of the source that were spliced")
    stated: list[Statement] = _column("media", "what platform, container and video header state, unchanged", [])
    stated_duration_s: float | None = _column(
        "media", "duration that the platform, or else the container, states, in seconds"
    )
    frame_times: list[float] = _column("media", "presentation times of the stored frames, in seconds", [])
    frame_width: int | None = _column("media", "width of the stored frames, in pixels")
    frame_height: int | None = _column("media", "height of the stored frames, in pixels")

    # texts, each with the model that produced it
    clean_title: str | None = _column("texts", "title without platform words and hashtags")
    title_language: str | None = _column("texts", "language of the title")
    ocr_text: str | None = _column("texts", "text in the frames, without repeated lines")
    ocr_lines: list[OcrLine] = _column("texts", "every recognised line, with frame, score and box", [])
    ocr_model: str | None = _column("texts", "models that detected and recognised the text")
    transcript: str | None = _column("texts", "transcript of the speech; null where none was detected")
    transcript_language: str | None = _column("texts", "language of the speech")
    transcript_segments: list[Segment] = _column("texts", "segments of the transcript, with times and confidence", [])
    transcript_model: str | None = _column("texts", "models that detected and transcribed the speech")
    frame_captions: list[str] = _column("texts", "caption of each stored frame; empty where nothing is said of it", [])
    video_caption: str | None = _column("texts", "caption of the whole clip")
    frame_caption_model: str | None = _column(
        "texts", "model of these captions; ends in `video` if it saw the clip as one"
    )
    sound_caption: str | None = _column("texts", "caption of the audio, derived from the audio alone")
    sound_caption_model: str | None = _column("texts", "model that captioned the audio")
    caption: str | None = _column("texts", "the enhanced caption")
    caption_source: str | None = _column(
        "texts", "llm, merge or title, by what each states; or the text that text_match chose"
    )
    caption_refusal: str | None = _column(
        "texts", "why the LLM's text was not chosen: a fault that the guard found, or less said"
    )
    caption_model: str | None = _column("texts", "model or rule that wrote the caption, with the hash of its prompt")

    text_match: list[MatchScore] = _column("texts", "similarity of each text to the frames, by column", [])
    text_match_model: str | None = _column("texts", "model that scored the similarity of texts and frames")

    # scores: a filter's value is always stored, so that a threshold can be changed by a query
    title_words: int | None = _column("scores", "number of words of the cleaned title")
    title_language_score: float | None = _column("scores", "confidence of title_language, 0 to 1")
    motion: float | None = _column(
        "scores", "mean temporal information (ITU-T P.910) at half size and 5 fps; 0 is still"
    )
    spatial_information: float | None = _column("scores", "mean spatial information (ITU-T P.910) at half size")
    scene_changes: int | None = _column("scores", "number of hard cuts detected")
    freeze_share: float | None = _column("scores", "share of the clip that is frozen")
    black_share: float | None = _column("scores", "share of the clip that is black")
    luma_mean: float | None = _column("scores", "mean brightness, 0 to 1")
    blur: float | None = _column("scores", "FFmpeg's blurdetect on the stored frames, higher is blurrier")
    corrupt_frames: int | None = _column(
        "scores", "number of frames that the decoder flagged, rejected or reported errors for"
    )
    corrupt_audio_share: float | None = _column("scores", "share of the source's audio that could not be decoded")
    damage: list[str] = _column(
        "scores", "kinds of damage and of deviation from what is stated: corrupt_frames, shorter_than_stated …", []
    )
    audio_rms_db: float | None = _column("scores", "RMS level of the audio member, in dBFS")
    loudness_lufs: float | None = _column("scores", "integrated loudness (EBU R128), in LUFS")
    silence_share: float | None = _column("scores", "share of the audio that is silent")
    speech_share: float | None = _column("scores", "share of the clip with speech")
    transcript_confidence: float | None = _column("scores", "mean probability of the transcript's words, 0 to 1")
    ocr_area_share: float | None = _column("scores", "largest share of a frame that is covered by text")
    frame_caption_score: float | None = _column("scores", "mean confidence of the frame captions that are not empty")
    depth_saturation_share: float | None = _column("scores", "share of depth pixels at either end of the range")
    depth_flicker: float | None = _column("scores", "mean change of depth where the colour frames are still")
    infrared_flicker: float | None = _column("scores", "mean change of infrared where the colour frames are still")
    infrared_edge_agreement: float | None = _column("scores", "correlation of infrared edges with colour edges")
    depth_scale: str | None = _column("modalities", "metric: millimetres; relative: order only, on a nominal scale")
    depth_model: str | None = _column("modalities", "model that estimated the depth")
    infrared_model: str | None = _column("modalities", "model that generated the infrared")
    synthetic_layers: list[str] = _column(
        "modalities", "layers that a model produced: estimated depth, generated infrared", []
    )

    # fingerprints
    frame_hash: str | None = _column("fingerprints", "perceptual hashes of the stored frames, 16 hex digits each")
    audio_fingerprint: list[int] = _column("fingerprints", "Chromaprint of the audio", [])

    # outcome
    status: Status = _column("outcome", "kept, rejected or failed", "candidate", is_category=True)
    stage: str | None = _column("outcome", "stage that rejected or failed the clip", is_category=True)
    reason: str | None = _column("outcome", "reason for the outcome, in one word", is_category=True)
    detail: str | None = _column("outcome", "the value that decided it, or the error's message")
    decided_value: float | None = _column("outcome", "value for which a filter or decision rejected the clip")
    decided_limit: float | None = _column("outcome", "limit that the value was compared with")
    is_transient: bool | None = _column("outcome", "for a failure: whether a retry may succeed")
    attempts: int = _column("outcome", "number of attempts; more than 1 after `vidal retry` or a worker's death", 1)
    duplicate_of: str | None = _column("outcome", "clip that this one duplicates")
    duplicate_kind: str | None = _column("outcome", "what the two clips share: file, frames or audio")
    duplicate_distance: float | None = _column(
        "outcome",
        "distance to duplicate_of: mean differing bits of 64 per frame, or audio error; 0 for identical files",
    )
    cluster: str | None = _column("outcome", "first clip of the near-duplicate cluster, for splits without leakage")

    # provenance
    media_model: str | None = _column("provenance", "FFmpeg version and settings that produced video, frames and audio")
    prompt_tokens: int | None = _column("provenance", "prompt tokens of the captions, as servers count them")
    completion_tokens: int | None = _column("provenance", "completion tokens of the captions, as servers count them")
    server_cost: float | None = _column("provenance", "cost of the captions on servers, by the recipe's prices")
    fingerprint: str | None = _column("provenance", "fingerprint of the recipe that wrote the row")
    thumbnail: bytes | None = _column(
        "provenance", "small JPEG of the middle frame of a rejected clip; null for other clips and without frames"
    )

    # members
    layers: list[str] = _column("members", "layers in which the clip has members", [])
    members: list[MemberRecord] = _column("members", "the clip's tar members, with offset, size and SHA-256", [])

    # columns that `Clip` has no field for: the source's own, and those that stages declare; and working state
    extra: dict[str, Any] = field(default_factory=dict, metadata={"group": "extra"})
    work: Work = field(default_factory=Work, repr=False, compare=False, metadata={"group": "work"})

    def reject(self, reason: str, detail: str, *, value: float | None = None, limit: float | None = None) -> None:
        """Reject the clip; ``value`` was compared with ``limit``, and ``detail`` states both in words."""
        self.status, self.reason, self.detail = "rejected", reason, detail
        self.decided_value, self.decided_limit = value, limit

    def fail(self, reason: str, detail: str, *, is_transient: bool = False) -> None:
        """Record that the clip could not be processed."""
        self.status, self.reason, self.detail, self.is_transient = "failed", reason, detail, is_transient

    @property
    def is_open(self) -> bool:
        """Whether no stage has rejected or failed the clip."""
        return self.status == "candidate"

    def __getitem__(self, name: str) -> Any:
        """Return a column by name; raises `ClipError` for one that the dataset does not have."""
        return getattr(self, name) if name in _FIELDS else self.extra[self._checked(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in _FIELDS:
            setattr(self, name, value)
        else:
            self.extra[self._checked(name)] = value

    def _checked(self, name: str) -> str:
        """Check the name of a column in `extra`, which holds all of the dataset's from the start, null until set."""
        if name not in self.extra:
            raise undeclared_column(name)
        return name


def undeclared_column(name: str) -> ClipError:
    """Return the error of a clip for which a stage reads or writes a column that the dataset does not have."""
    declaration = f'columns = {{"{name}": Column(TYPE, "MEANING")}}'
    return ClipError("undeclared_column", f"no column `{name}`; the stage that writes it declares it: {declaration}")


@functools.cache
def columns() -> tuple[dataclasses.Field[Any], ...]:
    """Return the stored fields of `Clip`, in schema order."""
    return tuple(f for f in dataclasses.fields(Clip) if f.metadata["group"] not in ("extra", "work"))


@functools.cache
def column_names() -> tuple[str, ...]:
    """Return the names of the stored fields, in schema order."""
    return tuple(f.name for f in columns())


_FIELDS = frozenset(column_names())


def crawl_columns() -> list[str]:
    """Return the names of the columns that a source may fill."""
    return [f.name for f in columns() if f.metadata["group"] == "crawl"]


def schema(extra: Iterable[pa.Field] = ()) -> pa.Schema:
    """Return the Arrow schema of rows in memory; ``extra`` are the columns that `Clip` has no field for."""
    return pa.schema([*_arrow_fields(), *extra], metadata={"vidal.schema_version": str(SCHEMA_VERSION)})


@functools.cache
def _arrow_fields() -> tuple[pa.Field, ...]:
    # A shard asks several times, and annotations are evaluated anew each time: 4 ms.
    hints = get_type_hints(Clip)
    return tuple(
        pa.field(f.name, arrow_type(hints[f.name]), metadata={"group": f.metadata["group"]}) for f in columns()
    )


def manifest_schema(extra: Iterable[pa.Field] = ()) -> pa.Schema:
    """Return `schema` as manifests store it: columns with few distinct values are dictionary-encoded."""
    plain = schema(extra)
    categories = {f.name for f in columns() if f.metadata.get("is_category")}
    fields = [field.with_type(CATEGORY) if field.name in categories else field for field in plain]
    return pa.schema(fields, metadata=plain.metadata)
