"""Candidates that a platform's search gives for terms; its channels and playlists."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow.parquet
from pydantic import Field, field_validator

from vidal.crawl.ask import Answer, Ask
from vidal.crawl.web import COLUMNS
from vidal.errors import SourceError
from vidal.sources.expanding import ExpandingSource, Question
from vidal.sources.source import file_hash

# `sp` is YouTube's filter, here for videos that were uploaded this month.
_THIS_MONTH = "https://www.youtube.com/results?search_query={term}&sp=EgQIBBAB"


class SearchSource(ExpandingSource):
    """``{search: TERMS, platform: ytsearch}``: TERMS is a file of `vidal terms`, or a text file of one term a line."""

    search: str
    platform: str = Field("ytsearch", pattern=r"[a-z0-9]+search(date)?")
    """yt-dlp's key of the platform's search: ytsearch, bilisearch, nicosearch, nicosearchdate (newest first), …"""
    address: str | None = None
    """URL of a results page with the placeholder ``{term}``, instead of ``platform``."""
    per_term: int = Field(20, ge=1, le=500)
    """Results requested for each term; a term's own ``quota`` takes precedence."""
    max_duration_s: float | None = Field(60.0, gt=0)
    """Longer results are dropped; those of unknown length are kept."""
    max_terms: int | None = Field(None, ge=1)

    @field_validator("platform")
    @classmethod
    def _is_not_gone(cls, platform: str) -> str:
        if platform == "ytsearchdate":
            raise ValueError(
                "YouTube no longer sorts by date, and yt-dlp has no ytsearchdate; to search what was uploaded this "
                f"month, set source.address to {_THIS_MONTH}"
            )
        return platform

    @field_validator("address")
    @classmethod
    def _has_a_place_for_the_term(cls, address: str | None) -> str | None:
        if address is not None and "{term}" not in address:
            raise ValueError("lacks the placeholder {term}")
        return address

    def questions(self) -> Iterator[Question]:
        for term, quota in itertools.islice(read_terms(Path(self.search).expanduser()), self.max_terms):
            count = quota or self.per_term
            # yt-dlp's notation of a search.
            url = f"{self.platform}{count}:{term}"
            if self.address is not None:
                # A term is data: a & or # in it must not become part of the address.
                url = self.address.replace("{term}", quote_plus(term))
            yield Question(term=term, ask=Ask(op="search", url=url, entries=count))

    def rows(self, question: Question, answer: Answer) -> Iterable[dict[str, Any]]:
        for row in entries(answer):
            duration_s = row.pop("duration_s", None)
            if self.max_duration_s is None or duration_s is None or duration_s <= self.max_duration_s:
                yield row

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "search": file_hash(Path(self.search).expanduser())}


class ChannelSource(ExpandingSource):
    """``{channel: [ADDRESS, …]}`` or ``{playlist: [ADDRESS, …]}``: their videos, newest first."""

    channel: list[str] = Field(min_length=1)
    per_channel: int = Field(200, ge=1, le=10_000)

    def questions(self) -> Iterator[Question]:
        for url in self.channel:
            yield Question(term=url, ask=Ask(op="search", url=url, entries=self.per_channel))

    def rows(self, question: Question, answer: Answer) -> Iterable[dict[str, Any]]:
        for row in entries(answer):
            row.pop("duration_s", None)
            yield row


class PlaylistSource(ChannelSource):
    """``{playlist: [ADDRESS, …]}``."""

    channel: list[str] = Field(alias="playlist", min_length=1)


def entries(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the entries of an answer as rows of crawl columns."""
    for entry in answer.metadata.get("entries", ()):
        if entry.get("url"):
            columns = {COLUMNS[name]: value for name, value in entry.items() if name in COLUMNS and value is not None}
            yield {"url": entry["url"], **columns}


def read_terms(path: Path) -> Iterator[tuple[str, int | None]]:
    """Yield the terms of a file, each with its quota or None; raises `SourceError`."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; source.search names a file of terms, such as `vidal terms` writes")
    if path.suffix.lower() == ".parquet":
        table = pyarrow.parquet.read_table(path)
        if "term" not in table.column_names:
            raise SourceError(f"{path}: no column `term` (it has {', '.join(table.column_names)})")
        quotas = table.column("quota").to_pylist() if "quota" in table.column_names else [None] * table.num_rows
        yield from zip(table.column("term").to_pylist(), quotas, strict=True)
        return
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip(), None
