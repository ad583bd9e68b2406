"""`WebFetcher`: brings clips from the web, many at once, every host in its own time.

A clip's visit to a platform is two: its metadata, which the judges decide on, and then its media. A file that is
named directly is one visit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.fetch.ask import Answer, Ask, host_of
from vidal.fetch.child import FetchChild
from vidal.fetch.merge import merge
from vidal.fetch.schedule import Schedule
from vidal.fetch.settings import WebSettings
from vidal.fetch.visitor import Visitor

COLUMNS = {"extractor": "platform", "upload_date": "uploaded_at"} | {
    name: name
    for name in (
        "platform_id", "title", "description", "tags", "hashtags", "uploader", "uploader_id", "licence", "duration_s",
        "view_count", "like_count", "age_limit", "live_status", "platform_language",
    )
}  # fmt: skip
"""The platform's metadata, and the columns that hold it."""

_FILE_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".flac", ".wav"
)  # fmt: skip

Judge = Callable[[Clip], None]


class WebFetcher:
    """Drives a few fetching children with a thread each."""

    def __init__(self, settings: WebSettings, governor: Any) -> None:
        self._settings = settings
        self._visitor = Visitor(settings, governor)

    def fetch(self, clips: Sequence[Clip], judge: Judge) -> None:
        """Bring each clip's file into its folder, or leave the clip rejected or failed."""
        schedule = Schedule([(host_of(clip.url), clip) for clip in clips])
        threads = min(self._settings.concurrency, len(clips))
        with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
            for running in [pool.submit(self._work, schedule, judge) for _ in range(threads)]:
                running.result()

    def _work(self, schedule: Schedule, judge: Judge) -> None:
        with self._visitor.child() as child:
            while (turn := schedule.take()) is not None:
                host, clip = turn
                try:
                    self._bring(child, host, clip, judge)
                except ClipError as error:
                    clip.fail(error.reason, error.detail, is_transient=error.transient)
                finally:
                    clip.crawled_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    schedule.done(host)

    def _bring(self, child: FetchChild, host: str, clip: Clip, judge: Judge) -> None:
        if clip.work.folder is None:
            raise ValueError("fetch needs a private folder for the clip")
        ask = Ask(
            op="direct", url=clip.url, folder=str(clip.work.folder), wall_s=self._settings.wall_s,
            max_bytes=self._settings.max_bytes, expected_sha256=clip.source_sha256 or "",
            settings=self._settings.for_child(),
        )  # fmt: skip
        if self._is_platform(child, ask):
            metadata = self._visitor.visit(child, host, dataclasses.replace(ask, op="metadata"))
            metadata.raise_if_failed()
            _take_metadata(clip, metadata.metadata)
            judge(clip)
            if not clip.is_open:
                return
            ask = dataclasses.replace(ask, op="media")
        answer = self._visitor.visit(child, host, ask)
        answer.raise_if_failed()
        _take_file(clip, answer, clip.work.folder)

    def _is_platform(self, child: FetchChild, ask: Ask) -> bool:
        """Whether yt-dlp brings the clip; asked of its list of extractors, without the network."""
        if self._settings.via != "auto":
            return self._settings.via == "platform"
        if urlsplit(ask.url).path.lower().endswith(_FILE_SUFFIXES):
            return False
        answer = child.ask(dataclasses.replace(ask, op="which"))
        answer.raise_if_failed()
        return answer.metadata["extractor"] is not None or self._settings.generic


def _take_metadata(clip: Clip, metadata: dict[str, Any]) -> None:
    """What the platform says now goes above what a list said earlier."""
    for name, column in COLUMNS.items():
        value = metadata.get(name)
        # That there are none is said, too, where nobody has said anything.
        if value not in (None, [], "") or (value == [] and getattr(clip, column) is None):
            setattr(clip, column, value)


def _take_file(clip: Clip, answer: Answer, folder: Path) -> None:
    """The file as it came; picture and sound that came apart are put together without coding them anew."""
    if answer.file is None:
        raise ClipError("not_media", "the answer holds no file")
    path = folder / answer.file
    if answer.audio_file is not None:
        path = merge(folder, answer.file, answer.audio_file)
    clip.source_sha256, clip.source_bytes = answer.sha256, answer.bytes
    clip.work.source_path = path
