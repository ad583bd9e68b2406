"""`WebFetcher`: downloads clips from the web, many at once, each host at its own rate.

A clip of a platform takes two visits: its metadata, on which the filters decide, and then its media. A plain download
takes one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vidal.clip import Clip
from vidal.crawl.admission import budget_name
from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.child import FetchChild
from vidal.crawl.merge import merge
from vidal.crawl.schedule import Schedule, Turn
from vidal.crawl.settings import WebSettings
from vidal.crawl.visitor import Later, Pauses, Tries, Visitor
from vidal.errors import ClipError, NotNowError
from vidal.stage import Shared

COLUMNS = {"extractor": "platform", "upload_date": "uploaded_at"} | {
    name: name
    for name in (
        "platform_id", "title", "description", "tags", "hashtags", "uploader", "uploader_id", "licence", "duration_s",
        "view_count", "like_count", "age_limit", "live_status", "platform_language",
    )
}  # fmt: skip
"""Columns of a platform's metadata, by its name there."""

_FILE_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".flac", ".wav"
)  # fmt: skip

_MAX_SLEEP_S = 0.25
_LOOK_S = 0.5

Judge = Callable[[Clip], None]


class WebFetcher:
    """Runs several fetching children, each in a thread."""

    def __init__(
        self,
        settings: WebSettings,
        governor: Shared,
        run: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings
        self._clock, self._sleep = clock, sleep
        self._visitor = Visitor(settings, governor, run, clock=clock, sleep=sleep)

    def fetch(self, clips: Sequence[Clip], judge: Judge, ask_for_more: Callable[[], None] = lambda: None) -> None:
        """Download each clip's file into its folder, or leave the clip rejected by ``judge`` or failed.

        ``ask_for_more`` is called once the last clips leave threads idle, and now and then while they do.

        With ``when_unavailable: open`` the first clip that gives up a paused host raises `NotNowError` for all of them.
        """
        budgets = (budget_name(self._settings, host_of(clip.url)) for clip in clips)
        pauses = Pauses()
        turns = [
            Turn(budget, clip, Tries(self._settings, self._clock, pauses))
            for budget, clip in zip(budgets, clips, strict=True)
        ]
        threads = min(self._settings.concurrency, len(clips))
        schedule = Schedule(turns, self._clock, threads, self._visitor.is_up)
        with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
            running = {pool.submit(self._work, schedule, judge) for _ in range(threads)}
            is_idle = False
            while running:
                is_idle = schedule.wait_until_idle(0.0 if is_idle else _LOOK_S)
                if is_idle:
                    ask_for_more()
                ended, running = wait(running, _LOOK_S if is_idle else 0.0)
                for each in ended:
                    # What a thread raises is no clip's failure, and ends the run.
                    each.result()

    def _work(self, schedule: Schedule, judge: Judge) -> None:
        with self._visitor.child() as child:
            while (turn := schedule.take()) is not None:
                if isinstance(turn, float):
                    # Another thread may return a clip that is due earlier.
                    self._sleep(min(turn, _MAX_SLEEP_S))
                    continue
                later = None
                try:
                    later = self._download(child, turn, judge)
                except ClipError as error:
                    if turn.tries.impatient_of and self._settings.when_unavailable == "open":
                        # What the others would bring is fetched again with the shard.
                        schedule.stop()
                        budget, state, pause_s = turn.tries.impatient_of
                        raise NotNowError(budget, state, time.time() + pause_s) from error
                    turn.clip.fail(error.reason, error.detail, is_transient=error.transient)
                finally:
                    if later is None:
                        turn.clip.crawled_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    schedule.done(turn, later)

    def _download(self, child: FetchChild, turn: Turn, judge: Judge) -> Later | None:
        """Download the file, or return when to attempt it again."""
        clip = turn.clip
        if clip.work.folder is None:
            raise ValueError("fetch needs a private folder for the clip")
        ask = Ask(
            op="direct", url=clip.url, folder=str(clip.work.folder), wall_s=self._settings.wall_s,
            max_bytes=self._settings.max_bytes, expected_sha256=clip.source_sha256 or "",
            settings=self._settings,
        )  # fmt: skip
        if turn.has_metadata or self._is_platform(child, ask):
            clip["fetched_with"] = self._settings.tools()
            if not turn.has_metadata:
                metadata = self._visitor.attempt(child, dataclasses.replace(ask, op="metadata"), turn.tries)
                if isinstance(metadata, Later):
                    return metadata
                metadata.raise_if_failed()
                _take_metadata(clip, metadata.metadata)
                judge(clip)
                if not clip.is_open:
                    return None
                turn.has_metadata = True
                turn.tries = Tries(self._settings, self._clock, turn.tries.pauses)
            ask = dataclasses.replace(ask, op="media")
        elif used := [name for name in ("cookies", "proxy") if getattr(self._settings, name)]:
            clip["fetched_with"] = ["direct", *used]
        answer = self._visitor.attempt(child, ask, turn.tries)
        if isinstance(answer, Later):
            return answer
        answer.raise_if_failed()
        _take_file(clip, answer, clip.work.folder)
        return None

    def _is_platform(self, child: FetchChild, ask: Ask) -> bool:
        """Return whether yt-dlp handles the clip, according to its list of extractors, without network access."""
        if self._settings.via != "auto":
            return self._settings.via == "platform"
        if urlsplit(ask.url).path.lower().endswith(_FILE_SUFFIXES):
            return False
        answer = child.ask(dataclasses.replace(ask, op="which"))
        answer.raise_if_failed()
        return answer.metadata["extractor"] is not None or self._settings.generic


def _take_metadata(clip: Clip, metadata: dict[str, Any]) -> None:
    """Set the platform's metadata, which overrides that of a list."""
    for name, column in COLUMNS.items():
        value = metadata.get(name)
        # An empty list means that there are none; it replaces only an unknown value.
        if value not in (None, [], "") or (value == [] and getattr(clip, column) is None):
            setattr(clip, column, value)


def _take_file(clip: Clip, answer: Answer, folder: Path) -> None:
    """Set the clip's file; separate video and audio are merged without re-encoding."""
    if answer.file is None:
        raise ClipError("not_media", "the answer holds no file")
    path = folder / answer.file
    if answer.audio_file is not None:
        path = merge(folder, answer.file, answer.audio_file)
    clip.source_sha256, clip.source_bytes = answer.sha256, answer.bytes
    clip.work.source_path = path
    if clip.extra.get("fetched_with"):
        chosen = (f"{what} {answer.metadata[what]}" for what in ("format_id", "client") if answer.metadata.get(what))
        clip["fetched_with"] = [*clip["fetched_with"], *chosen]
    named = {f"subtitle.{language}": name for language, name in answer.subtitle_files.items()}
    if answer.thumbnail_file is not None:
        named["thumbnail"] = answer.thumbnail_file
    clip.work.beside = {what: folder / name for what, name in named.items()}
    if answer.notes:
        clip["fetch_notes"] = list(answer.notes)
