"""Brings a candidate's file into the clip's private folder."""

from __future__ import annotations

import importlib.util
import itertools
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from importlib import metadata
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, field_validator

from vidal.addresses import ALL_SCHEMES, WEB_SCHEMES, scheme_of
from vidal.clip import Clip
from vidal.crawl import files
from vidal.crawl.ask import host_of
from vidal.crawl.governor import Governor
from vidal.crawl.settings import WebSettings
from vidal.dataset.removals import REASON
from vidal.errors import ClipError
from vidal.record import Column
from vidal.stage import Resources, Shared, Stage, Waiting
from vidal.stages import step_class

_UP_TO_PATH = re.compile(r"https?://[^/?#]*|.*", re.DOTALL)
_YT_DLP_DAYS = 60
"""A yt-dlp older than this reads fewer and fewer platforms."""


# In the module, as a stage is pickled on its way to a worker, and a function within a function cannot be.
def _alone() -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


class Fetch(Stage, WebSettings):
    """Copies a file from this machine, an object store or the web, and hashes it.

    The copy is called ``source``, whatever the original's name. From the web, a platform that yt-dlp knows is asked
    for the clip's metadata first, and the filters under ``judge`` decide on them before a byte of media is fetched.
    """

    version: ClassVar[int] = 4
    writes: ClassVar[tuple[str, ...]] = ("source_file", "source_sha256", "source_bytes", "crawled_at")
    columns: ClassVar[Mapping[str, Column]] = {
        "fetched_with": Column(
            list[str],
            "how a platform was asked: yt-dlp's version, JavaScript, arguments, format, client; or that cookies or a "
            "proxy were used directly",
            "provenance",
        ),
        "fetch_notes": Column(
            list[str], "what was requested beside the media and not had, with the reason", "provenance"
        ),
    }
    useless_without: ClassVar[Mapping[str, str]] = {"subtitles": "keep_source", "thumbnail": "keep_source"}
    imports: ClassVar[tuple[str, ...]] = ("certifi", "protego", "urllib3", "yt_dlp")
    not_fingerprinted: ClassVar[tuple[str, ...]] = ("base", *WebSettings.how)
    secrets: ClassVar[tuple[str, ...]] = WebSettings.hidden
    # Any window at once: at the end of a batch its last clips wait for their retries, and nothing else is fetched.
    # No limit on their time, as every visit has a deadline of its own.
    default_resources = Resources(batch_size=1024, timeout_s=None)

    base: str = ""
    """Folder against which relative paths are read; the recipe fills in the list's own."""
    schemes: tuple[str, ...] | None = None
    """What an address may begin with: ``http``, ``https``, ``file`` (paths, too), or a protocol of fsspec's.

    By default what the source's kind may name. Of `vidal crawl`, and of the sources ``urls``, ``search``, ``channel``,
    ``playlist`` and ``freesound``, that is ``http`` and ``https``; of ``list``, ``folder``, ``dataset`` and
    ``vidal_json``, whose paths are the user's own, files and object stores as well. Any other address is a failed row,
    ``scheme_not_allowed``.
    """
    judge: list[Any] = Field(default_factory=list)
    """Filters of the catalogue that decide on what is known of a clip before its media is fetched."""

    _is_removed: Callable[[Clip], bool] | None = PrivateAttr(default=None)
    _run: str = PrivateAttr(default_factory=lambda: secrets.token_hex(8))
    """The name of the run for the governor; every worker's copy has the same."""
    _waiting: Waiting = PrivateAttr(default_factory=lambda: _alone)
    _judges: list[Stage] = PrivateAttr(default_factory=list)
    _judging: Any = PrivateAttr(default=None)
    _web: Any = PrivateAttr(default=None)

    @field_validator("judge")
    @classmethod
    def _are_filters(cls, lines: list[Any]) -> list[Any]:
        _build_judges(lines)
        return lines

    def check_candidates(self, urls: Iterable[str]) -> None:
        # Each host once: a plan of a million addresses has few. Whatever is behind it is cut off before it is parsed.
        begins = dict.fromkeys(_UP_TO_PATH.match(url)[0] for url in urls if url)  # type: ignore[index]
        self.check_terms(dict.fromkeys(host_of(url) for url in begins if scheme_of(url) in WEB_SCHEMES))

    def facts(self) -> Mapping[str, str]:
        facts = {"platforms": "; ".join(self.tools())}
        if self.javascript == "off":
            is_there = importlib.util.find_spec("yt_dlp_ejs") is not None
            ejs = metadata.version("yt-dlp-ejs") if is_there else "not installed"
            facts["javascript"] = f"off, so YouTube offers few formats; javascript: deno has more (yt-dlp-ejs: {ejs})"
        if self.via != "direct":
            from vidal.crawl.youtube import clients_line

            arguments = {name.lower(): given for name, given in self.extractor_args.items()}
            asked = arguments.get("youtube", {}).get("player_client", [])
            facts["youtube"] = clients_line(
                asked, has_cookies=bool(self.cookies), has_javascript=self.javascript != "off"
            )
        return facts

    def warnings(self) -> list[str]:
        # yt-dlp's version is the date of its release.
        released = metadata.version("yt-dlp")
        age_days = (date.today() - date(*map(int, released.split(".")[:3]))).days
        old = f"yt-dlp {released} is {age_days} days old, and platforms change: pip install -U yt-dlp"
        return [old] if self.via != "direct" and age_days > _YT_DLP_DAYS else []

    def shared(self) -> object:
        return Governor()

    def bind(self, proxy: Shared) -> None:
        from vidal.crawl.web import WebFetcher

        self._web = WebFetcher(self, proxy, self._run)

    def usage(self, proxy: Shared) -> dict[str, dict[str, float]]:
        counts: dict[str, dict[str, float]] = proxy.call("counts", self._run)
        return counts

    def wait_in(self, waiting: Waiting) -> None:
        self._waiting = waiting

    def withhold(self, is_removed: Callable[[Clip], bool]) -> None:
        self._is_removed = is_removed

    def setup(self) -> None:
        # Not before: a stage is pickled on its way to a worker, and a lock cannot be.
        self._judging = threading.Lock()
        self._judges = _build_judges(self.judge)
        for judge in self._judges:
            judge.setup()

    def process_batch(self, clips: Sequence[Clip]) -> None:
        away = [clip for clip in clips if not _take_from_source_layer(clip)]
        for clip in away:
            self._check_scheme(clip)
        is_on_web = [clip.is_open and scheme_of(clip.url) in WEB_SCHEMES for clip in away]
        for clip in (on_web := list(itertools.compress(away, is_on_web))):
            self._judge(clip)
        if open_clips := [clip for clip in on_web if clip.is_open]:
            if self._web is None:
                raise ValueError("fetch needs the run's governor")
            with self._waiting() as ask_for_more:
                self._web.fetch(open_clips, self._judge, ask_for_more)
        for clip, was_visited in zip(away, is_on_web, strict=True):
            if clip.is_open and not was_visited:
                self._copy(clip)

    def _check_scheme(self, clip: Clip) -> None:
        scheme, allowed = scheme_of(clip.url), ALL_SCHEMES if self.schemes is None else self.schemes
        if scheme not in allowed:
            what = "a path of this machine" if scheme == "file" else f"{scheme}://"
            clip.fail("scheme_not_allowed", f"{what} is not among fetch.schemes ({', '.join(allowed)})")

    def _copy(self, clip: Clip) -> None:
        if clip.work.folder is None:
            raise ValueError("fetch needs a private folder for the clip")
        target = clip.work.folder / "source"
        try:
            clip.source_bytes, clip.source_sha256 = files.copy(
                clip.url, target, base=self.base, max_bytes=self.max_bytes
            )
        except ClipError as error:
            clip.fail(error.reason, error.detail, is_transient=error.transient)
            return
        clip.work.source_path = target

    def _judge(self, clip: Clip) -> None:
        """Let each filter decide that finds what it reads, after the list of removals; called from many threads."""
        if self._is_removed is not None and self._is_removed(clip):
            clip.reject(REASON, "on the list of removals")
        with self._judging:
            for judge in self._judges:
                if clip.is_open and all(getattr(clip, name, None) is not None for name in judge.reads):
                    judge.process(clip)


def _build_judges(lines: Sequence[Any]) -> list[Stage]:
    judges: list[Stage] = []
    for line in lines:
        name, settings = (line, {}) if isinstance(line, str) else next(iter(line.items()))
        step = step_class(name).model_validate(settings or {})
        if not isinstance(step, Stage) or step.layers or "source_file" in step.reads:
            raise ValueError(f"{name} is no filter on what is known before a file is fetched")
        judges.append(step)
    return judges


def _take_from_source_layer(clip: Clip) -> bool:
    """Take the file that a clip of a crawl's dataset carries."""
    # The names of subtitles and thumbnails have dots.
    member = next((m for m in clip.work.members if m.layer == "source" and "." not in m.suffix), None)
    if member is None:
        return False
    if clip.work.folder is None:
        raise ValueError("fetch needs a private folder for the clip")
    clip.work.source_path = clip.work.folder / "source"
    clip.work.source_path.write_bytes(member.data)
    clip.source_bytes = len(member.data)
    return True
