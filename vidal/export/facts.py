"""What a manifest says of a whole dataset: clips, hours and bytes by source, licence and language; dates and models."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from vidal.dataset.dataset import Dataset
from vidal.licences import licence_name, licence_version

NOT_STATED = "not stated"
LOCAL = "local files"
MODELS = (
    "ocr_model", "transcript_model", "frame_caption_model", "sound_caption_model", "caption_model", "text_match_model",
    "depth_model", "infrared_model",
)  # fmt: skip
"""Columns with the models behind texts and layers."""

_READ = [
    "clip_id", "status", "reason", "stage", "url", "platform", "licence", "uploaded_at", "crawled_at", "duration_s",
    "has_audio", "audio_duration_s", "source_bytes", "title_language", "transcript_language", "layers",
    "synthetic_layers", *MODELS,
]  # fmt: skip
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")


@dataclass(slots=True)
class Tally:
    """What a group of kept clips amounts to."""

    clips: int = 0
    duration_s: float = 0.0
    source_bytes: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.clips += 1
        self.duration_s += row["duration_s"] or 0.0
        self.source_bytes += row["source_bytes"] or 0

    def as_json(self) -> dict[str, Any]:
        return {"clips": self.clips, "hours": round(self.duration_s / 3600, 4), "source_bytes": self.source_bytes}


@dataclass(slots=True)
class Span:
    """The first and the last of some dates, ``2025-07-24``; empty if there is none."""

    first: str = ""
    last: str = ""

    def add(self, text: str | None) -> None:
        if match := _DATE.match(text or ""):
            self.first, self.last = min(self.first or match[0], match[0]), max(self.last, match[0])

    def as_json(self) -> list[str] | None:
        return [self.first, self.last] if self.first else None


Tallies = dict[str, Tally]


def _tallies() -> Tallies:
    return defaultdict(Tally)


@dataclass(slots=True)
class Facts:
    """Of the kept clips, but for `outcomes`; groups are by a stranger's text, which is never markup."""

    all: Tally = field(default_factory=Tally)
    platforms: Tallies = field(default_factory=_tallies)
    hosts: Tallies = field(default_factory=_tallies)
    licences: Tallies = field(default_factory=_tallies)
    """By `licence_label`."""
    title_languages: Tallies = field(default_factory=_tallies)
    speech_languages: Tallies = field(default_factory=_tallies)
    """Of the clips with a transcript."""
    layers: Tallies = field(default_factory=_tallies)
    synthetic_layers: Tallies = field(default_factory=_tallies)
    audio_s: float = 0.0
    uploaded: Span = field(default_factory=Span)
    crawled: Span = field(default_factory=Span)
    models: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of all clips: ``kept``, or the reason that one was rejected or failed for."""

    @classmethod
    def of(cls, dataset: Dataset, selected: Collection[str] | None = None) -> Facts:
        """Count a dataset's kept clips, or those of them that are selected, in one pass over its manifests."""
        facts = cls()
        for row in dataset.rows(_READ):
            is_kept = row["status"] == "kept"
            facts.outcomes["kept" if is_kept else row["reason"] or row["status"]] += 1
            if is_kept and (selected is None or row["clip_id"] in selected):
                facts._add(row)
        return facts

    def _add(self, row: dict[str, Any]) -> None:
        groups = [
            (self.platforms, [row["platform"] or NOT_STATED]),
            (self.hosts, [host_of(row["url"])]),
            (self.licences, [licence_label(row["licence"])]),
            (self.title_languages, [_language(row["title_language"])]),
            (self.speech_languages, [_language(row["transcript_language"])] if row["transcript_language"] else []),
            (self.layers, row["layers"] or []),
            (self.synthetic_layers, row["synthetic_layers"] or []),
        ]
        self.all.add(row)
        for tallies, names in groups:
            for name in names:
                tallies[name].add(row)
        self.audio_s += (row["audio_duration_s"] or 0.0) if row["has_audio"] else 0.0
        self.uploaded.add(row["uploaded_at"])
        self.crawled.add(row["crawled_at"])
        for name in MODELS:
            if row[name]:
                self.models[name][row[name]] += 1


def ranked(tallies: Tallies, by: str = "clips") -> list[tuple[str, Tally]]:
    """Return groups by size, the largest first; ``by`` names a field of `Tally`."""
    return sorted(tallies.items(), key=lambda item: (-getattr(item[1], by), item[0]))


def licence_label(stated: str | None) -> str:
    """Return ``cc-by 3.0``; the text as it is stated where `licence_name` knows no name for it."""
    name, version = licence_name(stated), licence_version(stated)
    if name is None:
        return stated or NOT_STATED
    return f"{name} {version}" if version else name


def host_of(url: str) -> str:
    """Return the host that an address names, without ``www.``; `LOCAL` for a path."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        # Such as of a bracket that nothing closes.
        return "unreadable address"
    if parts.scheme not in ("http", "https"):
        return LOCAL if parts.scheme in ("", "file") else f"{parts.scheme}://{host}"
    return host.removeprefix("www.") or "unreadable address"


def _language(tag: str | None) -> str:
    match = _LANGUAGE.match((tag or "").lower())
    return match[0] if match else NOT_STATED
