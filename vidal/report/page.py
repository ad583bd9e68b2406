"""The report page: the funnel, a contact sheet of each kept clip, and the clips that were dropped."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jinja2
import pyarrow as pa

import vidal.clip
from vidal import modality as modalities
from vidal.dataset.storage import Storage
from vidal.dataset.tars import suffix_of
from vidal.dataset.thumbnail import thumbnail_of
from vidal.modality.modality import Modality
from vidal.record import Column, fields
from vidal.report.crawl import SHOWN_IN_PAGE, Crawl, failures_text, rate_text, shown_name
from vidal.report.funnel import EvenChoice, Funnel, Row
from vidal.report.images import WAVE_COLUMNS, thumbnail, waveform
from vidal.report.texts import MODEL_OF

ReadMember = Callable[[dict[str, Any], str], bytes]

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "pd.DataFrame | pa.Table | Iterable[Mapping[str, Any]]"

_LABELS = {
    "title": "title", "hashtags": "hashtags", "clean_title": "cleaned title", "ocr_text": "written in the frames",
    "transcript": "said", "frame_captions": "frame captions", "video_caption": "video caption",
    "sound_caption": "sound caption",
}  # fmt: skip
"""What a sheet calls each text below the caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One modality of a clip: thumbnails, each with its time in seconds, or a waveform."""

    name: str
    note: str
    is_synthetic: bool
    images: list[tuple[float, str]]
    wave: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A page that was written, and the kept clips that it shows."""

    out: Path
    shown: EvenChoice

    def lines(self) -> Iterator[str]:
        left_out = f": {self.shown.most} of {self.shown.seen} clips, evenly chosen; --max-clips shows more"
        yield f"wrote {self.out}" + ("" if self.shown.is_all else left_out)

    def as_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "clips": self.shown.seen, "clips_shown": len(self.shown.rows())}


def write_report(
    rows: Rows,
    read_member: ReadMember,
    out: Path,
    *,
    title: str = "vidal report",
    stage_order: Sequence[str] = (),
    declared: Mapping[str, Column] | None = None,
    max_clips: int = 48,
    max_dropped: int = 1000,
    max_rejected: int = 12,
    where: str | None = None,
    selected: Collection[str] | None = None,
    crawls: Sequence[Crawl] = (),
) -> Report:
    """Write ``out``, one HTML file that loads nothing and runs no script.

    Up to ``max_rejected`` rejected clips of each stage and reason are shown with a thumbnail, the value that decided
    and its limit.

    ``read_member(row, name)`` returns the bytes of a tar member. Of more than ``max_clips`` kept or ``max_dropped``
    dropped clips, an even sample is shown, and the page says so; the counts are of all rows. ``declared`` are the
    dataset's columns beyond those of `vidal.clip.Clip`; their scores are shown. ``selected`` are the ids of the kept
    clips that meet the condition ``where``; other clips are counted but not shown. ``crawls`` follow the funnel.
    """
    columns = vidal.clip.schema(fields(declared or {}))
    funnel, kept, others = Funnel(), EvenChoice(max_clips), EvenChoice(max_dropped)
    rejected: dict[tuple[str, str], EvenChoice] = {}
    for row in _as_dicts(rows, columns):
        funnel.count(row)
        if row["status"] != "kept":
            others.offer(row)
            if row["status"] == "rejected" and (row.get("thumbnail") or row["members"]):
                reason = row["stage"] or "", row["reason"] or ""
                rejected.setdefault(reason, EvenChoice(max_rejected)).offer(row)
        elif selected is None or row["clip_id"] in selected:
            kept.offer(row)
    # Titles and captions are a stranger's text: every value is escaped, and the page's policy forbids scripts.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vidal.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = (importlib.resources.files("vidal.report") / "report.html").read_text("utf-8")
    style = source.partition("<style>")[2].partition("</style>")[0]
    page = environment.get_template("report.html").render(
        title=title,
        # The page's own style sheet is allowed, and no style injected by a clip's text.
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        funnel=funnel,
        lines=(lines := funnel.lines(stage_order)),
        rejected=[
            (line, [_rejected_clip(dict(row), read_member) for row in rejected[line.stage, line.reason].rows()])
            for line in lines
            if line.outcome == "rejected" and (line.stage, line.reason) in rejected
        ],
        kept=kept,
        others=others,
        # A generator, so that the decoded media of one clip at a time are in memory.
        sheets=(_sheet(dict(row), read_member, columns) for row in kept.rows()),
        wave_columns=WAVE_COLUMNS,
        where=where,
        crawls=crawls,
        groups_shown=SHOWN_IN_PAGE,
        shown_name=shown_name,
        failures_text=failures_text,
        rate_text=rate_text,
    )
    Storage(str(out.absolute().parent)).write(out.name, page.encode())
    return Report(out=out, shown=kept)


def _as_dicts(rows: Rows, columns: pa.Schema) -> Iterator[Row]:
    # Whoever has a data frame has imported pandas.
    if (pandas := sys.modules.get("pandas")) is not None and isinstance(rows, pandas.DataFrame):
        rows = pa.Table.from_pandas(rows, preserve_index=False)
        # pandas turns an integer column with missing values into floats.
        known = {field.name: field for field in columns}
        rows = rows.cast(pa.schema([known.get(field.name, field) for field in rows.schema]))
    if isinstance(rows, pa.Table):
        # As Python objects rows take several times their size in Arrow.
        for batch in rows.to_batches(max_chunksize=1000):
            yield from batch.to_pylist()
    else:
        yield from cast("Iterable[Row]", rows)


def _sheet(row: dict[str, Any], read_member: ReadMember, columns: pa.Schema) -> dict[str, Any]:
    """Return what the template shows of a kept clip: its row, strips, texts with their models, scores and models."""
    strips = (_strip(row, read_member, modality) for modality in modalities.all())
    return {
        "row": row,
        "strips": [strip for strip in strips if strip is not None and (strip.images or strip.wave)],
        "texts": [
            (label, row[text], row[model] if (model := MODEL_OF[text]) else None)
            for text, label in _LABELS.items()
            if any(row[text] or "")
        ],
        "scores": [
            (column.name, f"{score:.4g}" if isinstance(score, float) else str(score))
            for column in columns
            if column.metadata[b"group"] == b"scores" and (score := row[column.name]) not in (None, [])
        ],
        "models": [(name, row[name]) for name in vidal.clip.column_names() if name.endswith("_model") and row[name]],
    }


def _rejected_clip(row: dict[str, Any], read_member: ReadMember) -> dict[str, Any]:
    """Return what the template shows of a rejected clip: its row, the `data:` URI of an image, and what decided.

    A clip that a revision rejected has its members instead of a thumbnail, and is shown from a frame.
    """
    image = thumbnail_of(row, read_member)
    value, limit = row["decided_value"], row["decided_limit"]
    return {
        "row": row,
        "image": "data:image/jpeg;base64," + base64.b64encode(image).decode() if image else None,
        "why": row["detail"] or "" if value is None or limit is None else f"{value:.4g}, limit {limit:.4g}",
    }


def _strip(row: dict[str, Any], read_member: ReadMember, modality: Modality) -> Strip | None:
    """Return the strip of one modality, None for a clip without it."""
    names = {suffix_of(member["name"]): member["name"] for member in row["members"] or []}
    stored = modality.members(list(names))
    if not stored:
        return None
    members = {suffix: read_member(row, names[suffix]) for suffix in stored.values()}
    shown, times = modality.show(modality.decode(members), row), row["frame_times"] or []
    return Strip(
        name=modality.heading or modality.layer,
        note=shown.note,
        is_synthetic=modality.layer in (row["synthetic_layers"] or []),
        images=[
            (times[number], thumbnail(image))
            for number, image in zip(stored, shown.images, strict=False)
            if number < len(times)
        ],
        wave=waveform(shown.samples) if shown.samples is not None else None,
    )
