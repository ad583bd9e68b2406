"""`Clip`, the one declaration of the record's own columns.

The Arrow schema, the Parquet manifests, the ``json`` member of the tars and the column table in
``manifests/COLUMNS.md`` all derive from the fields below. Change a column, raise `SCHEMA_VERSION`. Columns that a
dataset has besides are declared by its recipe's stages (`vidal.record.Column`), or are its source's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import pyarrow as pa

from vidal.arrow_types import CATEGORY, arrow_type
from vidal.errors import ClipError
from vidal.work import Work

SCHEMA_VERSION = 4
OLDEST_SCHEMA_VERSION = 3
"""Datasets from this version on are read; columns that they lack are null."""

Status = Literal["candidate", "kept", "rejected", "failed"]


@dataclass(slots=True, kw_only=True)
class OcrLine:
    """One line of text read in one frame; ``box`` is x0, y0, x1, y1 as shares of the frame."""

    frame: int
    text: str
    score: float
    box: list[float]


@dataclass(slots=True, kw_only=True)
class Segment:
    """One stretch of speech; times in seconds of the clip."""

    start_s: float
    end_s: float
    text: str
    confidence: float


@dataclass(slots=True, kw_only=True)
class MatchScore:
    """How well the text of one column matches the picture: a mean cosine, comparable within one model alone."""

    view: str
    score: float


@dataclass(slots=True, kw_only=True)
class Statement:
    """What somebody states about a clip before anything is measured: null where nothing is said."""

    by: str
    """``platform``, ``container`` or ``video``, the header of the video stream."""
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
    """``is_category`` marks a text of few different values, which a manifest stores as a dictionary."""
    metadata = {"group": group, "doc": doc, "is_category": is_category}
    if default in ([], {}):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(slots=True, kw_only=True)
class Clip:
    """One short video under way: its manifest row, plus `work`, which is never stored.

    ``clip["colourfulness"]`` reads and writes any column by its name, those in `extra` as well as the fields.
    """

    # identity
    clip_id: str = _column("identity", "key of the clip in every layer; letters, digits, _ and -", "")
    url: str = _column("identity", "path or address as the source gave it", "")
    shard: int = _column("identity", "number of the shard of the plan", 0)
    position: int = _column("identity", "place in the plan's order", 0)

    # crawl
    title: str | None = _column("crawl", "raw title")
    hashtags: list[str] | None = _column("crawl", "raw hashtags, without #; null where the source gives none")
    uploader: str | None = _column("crawl", "who published it")
    licence: str | None = _column("crawl", "licence as the source states it")
    attribution: str | None = _column("crawl", "credit line that the licence asks for")
    uploader_id: str | None = _column("crawl", "the platform's id of who published it")
    platform: str | None = _column("crawl", "platform that it was fetched from, in yt-dlp's word")
    platform_id: str | None = _column("crawl", "the platform's id of it")
    uploaded_at: str | None = _column("crawl", "ISO 8601 date of publication")
    platform_language: str | None = _column("crawl", "language that the platform states")
    age_limit: int | None = _column("crawl", "youngest age that the platform admits")
    live_status: str | None = _column("crawl", "not_live, is_live, was_live, is_upcoming, post_live")
    view_count: int | None = _column("crawl", "views at the time of the crawl")
    like_count: int | None = _column("crawl", "likes at the time of the crawl")
    description: str | None = _column("crawl", "raw description")
    tags: list[str] = _column("crawl", "the platform's tags, which are no hashtags", [])
    search_term: str | None = _column("crawl", "term that found it")
    crawled_at: str | None = _column("crawl", "ISO 8601 time, in UTC, of the visit that brought the clip or failed")

    # media
    source_sha256: str | None = _column("media", "SHA-256 of the bytes as they came")
    source_bytes: int | None = _column("media", "size of the file as it came, in bytes")
    container: str | None = _column("media", "container of the source, in FFmpeg's word")
    video_codec: str | None = _column("media", "video codec of the source")
    audio_codec: str | None = _column("media", "audio codec of the source; null without audio")
    duration_s: float | None = _column("media", "length of the picture, in seconds")
    width: int | None = _column("media", "width of the source as displayed, in pixels")
    height: int | None = _column("media", "height of the source as displayed, in pixels")
    fps: float | None = _column("media", "mean frames per second of the source")
    frame_count: int | None = _column("media", "frames of the source")
    is_variable_fps: bool | None = _column("media", "whether frame intervals differ")
    rotation_deg: int | None = _column("media", "rotation that the source's display matrix asks for")
    is_hdr: bool | None = _column("media", "whether the source has a high-dynamic-range transfer curve")
    has_audio: bool | None = _column("media", "whether there is audio; false means no audio member")
    audio_start_s: float | None = _column("media", "when the source's sound starts, in seconds after the picture")
    audio_duration_s: float | None = _column("media", "length of the source's sound, in seconds")
    audio_status: str | None = _column(
        "media", "ok; damaged: kept with gaps; left_out: the source's audio is unusable; none: the source has none"
    )
    audio_reason: str | None = _column("media", "why audio is damaged or left out")
    video_tracks: int | None = _column("media", "video tracks of the source, cover art and still images included")
    video_track: int | None = _column("media", "number of the video track that was taken, from 0")
    audio_tracks: int | None = _column("media", "audio tracks of the source")
    audio_track: int | None = _column("media", "number of the audio track that was taken, from 0")
    audio_language: str | None = _column("media", "language that the audio track is tagged with")
    clock_jumps: int | None = _column("media", "jumps and restarts of the source's clock that were spliced")
    stated: list[Statement] = _column("media", "what platform, container and video header state, as they state it", [])
    stated_duration_s: float | None = _column("media", "length that the platform, else the container's header states")
    frame_times: list[float] = _column("media", "presentation times of the stored frames, in seconds", [])
    frame_width: int | None = _column("media", "width of the stored frames, in pixels")
    frame_height: int | None = _column("media", "height of the stored frames, in pixels")

    # texts, each with the model that made it
    clean_title: str | None = _column("texts", "title without platform words and hashtags")
    title_language: str | None = _column("texts", "language of the title")
    ocr_text: str | None = _column("texts", "text written in the frames, repeated lines once")
    ocr_lines: list[OcrLine] = _column("texts", "every line read, with frame, score and box", [])
    ocr_model: str | None = _column("texts", "model that read the frames")
    transcript: str | None = _column("texts", "what is said; null where no speech was found")
    transcript_language: str | None = _column("texts", "language of the speech")
    transcript_segments: list[Segment] = _column("texts", "speech with times and confidence", [])
    transcript_model: str | None = _column("texts", "models that found and transcribed the speech")
    frame_captions: list[str] = _column("texts", "caption of each stored frame", [])
    video_caption: str | None = _column("texts", "caption of the whole clip")
    frame_caption_model: str | None = _column("texts", "model that captioned frames and clip")
    sound_caption: str | None = _column("texts", "caption of the sound, made from the sound")
    sound_caption_model: str | None = _column("texts", "model that captioned the sound")
    caption: str | None = _column("texts", "the enhanced caption")
    caption_source: str | None = _column("texts", "llm, merge where the guard refused it, or what text_match chose")
    caption_refusal: str | None = _column("texts", "why the guard refused the LLM's text")
    caption_model: str | None = _column("texts", "model or rule that wrote the caption, with its prompt's hash")

    text_match: list[MatchScore] = _column("texts", "how well each text matches the frames, by column", [])
    text_match_model: str | None = _column("texts", "model that scored the match of text and frames")

    # scores: a filter's number is always stored, so that a threshold can be moved by a query
    title_words: int | None = _column("scores", "words of the cleaned title")
    title_language_score: float | None = _column("scores", "confidence of title_language")
    motion: float | None = _column(
        "scores", "mean temporal information (ITU-T P.910) at half size and 5 fps, 0 = still"
    )
    spatial_information: float | None = _column("scores", "mean spatial information (ITU-T P.910) at half size")
    scene_changes: int | None = _column("scores", "hard cuts found")
    freeze_share: float | None = _column("scores", "share of the clip that is frozen")
    black_share: float | None = _column("scores", "share of the clip that is black")
    luma_mean: float | None = _column("scores", "mean brightness, 0 to 1")
    blur: float | None = _column("scores", "FFmpeg's blurdetect on the stored frames, higher is blurrier")
    corrupt_frames: int | None = _column("scores", "frames that the decoder flagged, refused or complained about")
    corrupt_audio_share: float | None = _column("scores", "share of the source's audio that could not be decoded")
    damage: list[str] = _column(
        "scores", "what is damaged or differs from what is stated: corrupt_frames, shorter_than_stated …", []
    )
    audio_rms_db: float | None = _column("scores", "RMS level of the audio member, in dB of full scale")
    loudness_lufs: float | None = _column("scores", "integrated loudness (EBU R128)")
    silence_share: float | None = _column("scores", "share of the sound that is silent")
    speech_share: float | None = _column("scores", "share of the clip in which somebody speaks")
    transcript_confidence: float | None = _column("scores", "mean probability of the transcript's words")
    ocr_area_share: float | None = _column("scores", "largest share of a frame that text covers")
    frame_caption_score: float | None = _column("scores", "mean confidence of the frame captions")
    depth_saturation_share: float | None = _column("scores", "share of depth pixels at either end of the range")
    depth_flicker: float | None = _column("scores", "mean change of depth where the colour picture stands still")
    infrared_flicker: float | None = _column("scores", "mean change of infrared where the colour stands still")
    infrared_edge_agreement: float | None = _column("scores", "correlation of infrared edges with colour edges")
    depth_scale: str | None = _column("modalities", "metric: millimetres; relative: order only, nominal scale")
    depth_model: str | None = _column("modalities", "model that estimated the depth")
    infrared_model: str | None = _column("modalities", "model that generated the infrared")
    synthetic_layers: list[str] = _column(
        "modalities", "layers that a model made: estimated depth, generated infrared", []
    )

    # fingerprints
    frame_hash: str | None = _column("fingerprints", "perceptual hashes of the stored frames, 16 hex digits each")
    audio_fingerprint: list[int] = _column("fingerprints", "chromaprint of the sound", [])

    # outcome
    status: Status = _column("outcome", "kept, rejected or failed", "candidate", is_category=True)
    stage: str | None = _column("outcome", "stage that rejected or failed the clip", is_category=True)
    reason: str | None = _column("outcome", "one word: why", is_category=True)
    detail: str | None = _column("outcome", "the number it was decided on, or the error's text")
    decided_value: float | None = _column("outcome", "the number that a filter or decision rejected the clip on")
    decided_limit: float | None = _column("outcome", "the limit that this number was held against")
    is_transient: bool | None = _column("outcome", "for a failure: whether another try may succeed")
    attempts: int = _column("outcome", "tries this row took; more than one after `vidal retry` or a worker's death", 1)
    duplicate_of: str | None = _column("outcome", "clip that this one repeats")
    duplicate_kind: str | None = _column("outcome", "file, frames or audio: what the two have in common")
    duplicate_distance: float | None = _column(
        "outcome", "distance to duplicate_of: mean bits of 64 of the frames, or error of the audio; 0 for equal files"
    )
    cluster: str | None = _column("outcome", "first clip of the near-duplicate cluster, for splits that leak nothing")

    # provenance
    media_model: str | None = _column("provenance", "FFmpeg version and settings that made video, frames and sound")
    prompt_tokens: int | None = _column("provenance", "tokens that captions took in, as servers counted them")
    completion_tokens: int | None = _column("provenance", "tokens that servers wrote for captions")
    server_cost: float | None = _column("provenance", "what servers asked for captions, by the recipe's prices")
    fingerprint: str | None = _column("provenance", "fingerprint of the recipe that wrote the row")

    # members
    layers: list[str] = _column("members", "layers in which the clip has members", [])
    members: list[MemberRecord] = _column("members", "its tar members with offset, size and SHA-256", [])

    # columns that `Clip` has no field for, the source's own and those that stages declare; and working state
    extra: dict[str, Any] = field(default_factory=dict, metadata={"group": "extra"})
    work: Work = field(default_factory=Work, repr=False, compare=False, metadata={"group": "work"})

    def reject(self, reason: str, detail: str, *, value: float | None = None, limit: float | None = None) -> None:
        """Decide against the clip: ``value`` was held against ``limit``, and ``detail`` says both in words."""
        self.status, self.reason, self.detail = "rejected", reason, detail
        self.decided_value, self.decided_limit = value, limit

    def fail(self, reason: str, detail: str, *, is_transient: bool = False) -> None:
        """Record that the clip could not be processed."""
        self.status, self.reason, self.detail, self.is_transient = "failed", reason, detail, is_transient

    @property
    def is_open(self) -> bool:
        """Whether no stage has turned the clip away."""
        return self.status == "candidate"

    def __getitem__(self, name: str) -> Any:
        """A column by its name; raises `ClipError` for one that the dataset does not have."""
        return getattr(self, name) if name in _FIELDS else self.extra[self._checked(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in _FIELDS:
            setattr(self, name, value)
        else:
            self.extra[self._checked(name)] = value

    def _checked(self, name: str) -> str:
        """The name of a column in `extra`, where every one of the dataset is from the start, null until it is set."""
        if name not in self.extra:
            raise undeclared_column(name)
        return name


def undeclared_column(name: str) -> ClipError:
    """The failure of a clip for which a column is read or written that the dataset does not have."""
    declaration = f'columns = {{"{name}": Column(TYPE, "MEANING")}}'
    return ClipError("undeclared_column", f"no column `{name}`; the stage that writes it declares it: {declaration}")


def columns() -> list[dataclasses.Field[Any]]:
    """The stored fields of `Clip`, in schema order."""
    return [f for f in dataclasses.fields(Clip) if f.metadata["group"] not in ("extra", "work")]


def column_names() -> list[str]:
    return [f.name for f in columns()]


_FIELDS = frozenset(column_names())


def crawl_columns() -> list[str]:
    """The columns that a source may fill."""
    return [f.name for f in columns() if f.metadata["group"] == "crawl"]


def schema(extra: Iterable[pa.Field] = ()) -> pa.Schema:
    """The Arrow schema of rows in memory; ``extra`` are the columns that `Clip` has no field for."""
    hints = get_type_hints(Clip)
    fields = [pa.field(f.name, arrow_type(hints[f.name]), metadata={"group": f.metadata["group"]}) for f in columns()]
    return pa.schema([*fields, *extra], metadata={"vidal.schema_version": str(SCHEMA_VERSION)})


def manifest_schema(extra: Iterable[pa.Field] = ()) -> pa.Schema:
    """`schema` as a manifest file has it: columns of few values are dictionaries, which pandas reads as categories."""
    plain = schema(extra)
    categories = {f.name for f in columns() if f.metadata.get("is_category")}
    fields = [field.with_type(CATEGORY) if field.name in categories else field for field in plain]
    return pa.schema(fields, metadata=plain.metadata)


def column_table() -> str:
    """The Markdown of ``manifests/COLUMNS.md``."""
    kinds = manifest_schema()
    lines = [
        "# The columns of a manifest",
        "",
        f"Schema version {SCHEMA_VERSION}. Made from `vidal/clip.py` by `vidal.clip.column_table`; a test holds it.",
        "Behind these a dataset has its source's own columns, and those that its recipe's stages declare: `columns` in",
        "`dataset.json` has their types, groups and meanings.",
        "",
        "| column | type | group | meaning |",
        "|---|---|---|---|",
    ]
    rows = (
        f"| `{f.name}` | {kinds.field(f.name).type} | {f.metadata['group']} | {f.metadata['doc']} |" for f in columns()
    )
    return "\n".join([*lines, *rows]) + "\n"
