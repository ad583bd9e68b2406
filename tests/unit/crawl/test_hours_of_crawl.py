"""Hours of a crawl in seconds: the real governor, schedule and retries on a virtual clock; only the fetching is played."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vidal.clip import Clip
from vidal.crawl.admission import Admission
from vidal.crawl.ask import Answer, Ask, host_of
from vidal.crawl.child import FetchChild
from vidal.crawl.governor import Governor
from vidal.crawl.schedule import Schedule
from vidal.crawl.settings import HostRules, WebSettings
from vidal.crawl.web import Judge, WebFetcher
from vidal.stage import Direct

THREADS = 8
SILENT = "no connection within 20 s"

Play = Callable[[str, float], Answer]
"""What comes of an address at a time."""


class VirtualTime:
    """Time passes when every thread sleeps."""

    def __init__(self, threads: int) -> None:
        self.now = 1_800_000_000.0
        self._awake = threads
        self._sleeping: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        event = threading.Event()
        with self._lock:
            heapq.heappush(self._sleeping, (self.now + seconds, next(self._numbers), event))
            self._rest()
        event.wait()

    def leave(self) -> None:
        with self._lock:
            self._rest()

    def _rest(self) -> None:
        self._awake -= 1
        if self._awake == 0 and self._sleeping:
            at, _, event = heapq.heappop(self._sleeping)
            self.now = max(self.now, at)
            self._awake = 1
            event.set()


class PlayedChild(FetchChild):
    """A request, and the answer half a tenth of a second later."""

    def __init__(self, time: VirtualTime, play: Play, hits: list[tuple[str, float]]) -> None:
        self._time, self._play, self._hits = time, play, hits

    def ask(self, ask: Ask, admission: Admission | None = None) -> Answer:
        assert admission is not None
        go = admission.admit(host_of(ask.url), "page")
        if "reason" in go:
            return Answer.failed(go["reason"], go["detail"])
        self._hits.append((ask.url, self._time.now))
        answer = self._play(ask.url, self._time.now)
        self._time.sleep(20.0 if answer.detail == SILENT else 0.05)
        return answer


class Fetcher(WebFetcher):
    def _work(self, schedule: Schedule, judge: Judge) -> None:
        super()._work(schedule, judge)
        self._clock.leave()


def crawled(
    urls: list[str], play: Play, folder: Path, **settings: Any
) -> tuple[list[Clip], list[tuple[str, float]], float]:
    """The clips, every request with its second, and how long all took."""
    time = VirtualTime(min(THREADS, len(urls)))
    start, hits = time.now, []
    given = WebSettings(**{"via": "direct", "concurrency": THREADS, **settings})
    fetcher = Fetcher(given, Direct(Governor(folder, clock=time)), clock=time, sleep=time.sleep)
    fetcher._visitor._children = [PlayedChild(time, play, hits) for _ in range(THREADS)]
    clips = [Clip(url=url) for url in urls]
    for clip in clips:
        clip.work.folder = folder
    fetcher.fetch(clips, lambda clip: None)
    return clips, [(url, at - start) for url, at in hits], time.now - start


def good() -> Answer:
    return Answer(ok=True, file="source", sha256="0", bytes=1)


def test_two_thousand_addresses_with_faults_take_the_time_that_their_rates_allow(tmp_path: Path) -> None:
    urls = [f"http://host{n % 3}.org/{n}" for n in range(2000)]
    visits: Counter[str] = Counter()

    def play(url: str, now: float) -> Answer:
        number = int(urlsplit(url).path[1:])
        visits[url] += 1
        if number % 15 == 0:
            return Answer.failed("gone", status=404)
        if number % 20 == 1 and visits[url] < 3:
            return Answer.failed("server_error", status=503)
        if number % 50 == 2 and visits[url] < 2:
            return Answer.failed("network")
        return good()

    clips, hits, took_s = crawled(urls, play, tmp_path)
    busiest = max(Counter(host_of(url) for url, _ in hits).values())
    assert {clip.reason for clip in clips} == {None, "gone"}
    assert took_s <= 1.2 * busiest / 2.0, (took_s, busiest)
    for host in range(3):
        times = sorted(at for url, at in hits if host_of(url) == f"host{host}.org")
        assert all(times[n + 3] - times[n] > 1 for n in range(len(times) - 3)), "three in a second at most"


def test_addresses_that_always_fail_pause_no_host_whose_others_are_good(tmp_path: Path) -> None:
    urls = [f"http://host.org/{n}" for n in range(200)]
    failing = set(urls[::10])

    def play(url: str, now: float) -> Answer:
        if url == urls[7] and not asked[url]:
            asked[url] += 1
            return Answer.failed("rate_limited", status=429, retry_after_s=1)
        return Answer.failed("server_error", status=503) if url in failing else good()

    asked: Counter[str] = Counter()
    clips, hits, took_s = crawled(urls, play, tmp_path)
    assert {clip.url for clip in clips if clip.reason == "server_error"} == failing
    assert all(clip.is_open for clip in clips if clip.url not in failing)
    tries = Counter(url for url, _ in hits if url in failing)
    # A visit that was under way when the host asked for its pause does not count as a try.
    assert set(tries.values()) <= {4, 5} and len(tries) == 20, "a host that answers is not down"
    # The last address to fail waits between its tries.
    assert took_s < 1.2 * len(hits) / 2.0 + 14, (took_s, len(hits))


def test_twelve_lone_clips_whose_hosts_are_down_for_ten_seconds_are_all_fetched(tmp_path: Path) -> None:
    urls = [f"http://host{n}.org/clip" for n in range(12)]
    start = VirtualTime(1).now
    clips, _, took_s = crawled(
        urls, lambda url, now: good() if now - start > 10 else Answer.failed("network"), tmp_path
    )
    assert [clip.reason for clip in clips] == [None] * 12
    assert took_s < 120


def test_a_host_that_is_down_or_refuses_everything_ends_its_clips_and_delays_no_other(tmp_path: Path) -> None:
    bad = {
        "blocked.org": Answer.failed("blocked", status=403), "dead.invalid": Answer.failed("dns"),
        "busy.org": Answer.failed("rate_limited", status=429, retry_after_s=86400), "down.org": Answer.failed("timeout"),
    }  # fmt: skip
    urls = [f"http://{host}/{n}" for n in range(40) for host in (*bad, "good.org", "fine.org")]
    clips, hits, took_s = crawled(urls, lambda url, now: bad.get(host_of(url)) or good(), tmp_path)
    requests = Counter(host_of(url) for url, _ in hits)
    assert all(clip.is_open == (host_of(clip.url) not in bad) for clip in clips)
    assert {clip.reason for clip in clips if "busy" in clip.url} == {"rate_limited"} and requests["busy.org"] <= 2
    assert {clip.reason for clip in clips if "down" in clip.url} == {"timeout", "host_unavailable"}
    assert all(clip.is_transient for clip in clips if clip.reason)
    # Five clips pause a host, of which the first four may have been tried four times by then, and each pause ends in one
    # visit: 30 and 60 s, and the next one is beyond the patience. Without pauses it would be 160.
    assert max(requests[host] for host in bad) <= 4 * 4 + 1 + 3, requests
    assert max(at for url, at in hits if "good" in url) < 40 * 0.5 * 1.2 and took_s < 200


def test_short_pauses_between_which_a_host_answers_end_no_clip_that_waits_behind_them(tmp_path: Path) -> None:
    urls = [f"http://host.org/{n}" for n in range(200)]
    asked: Counter[str] = Counter()

    def play(url: str, now: float) -> Answer:
        asked[url] += 1
        if url in urls[::10] and asked[url] == 1:
            return Answer.failed("rate_limited", status=429, retry_after_s=3)
        return good()

    rules = HostRules(per_s=9, concurrent=8, patience_s=10)
    clips, hits, took_s = crawled(urls, play, tmp_path, any_host=rules)
    assert {clip.reason for clip in clips} == {None}
    assert took_s < 1.2 * (len(hits) / 9 + 20 * 3), "and each pause is one, however many visits are told of it"


def test_a_host_that_answers_no_more_is_waited_for_as_long_as_the_patience(tmp_path: Path) -> None:
    urls, start = [f"http://host.org/{n}" for n in range(200)], VirtualTime(1).now

    def play(url: str, now: float) -> Answer:
        return good() if now - start < 30 else Answer.failed("rate_limited", status=429, retry_after_s=3)

    clips, _, took_s = crawled(urls, play, tmp_path, any_host=HostRules(patience_s=10))
    assert {clip.reason for clip in clips[100:]} == {"rate_limited"} and 36 < took_s < 45


def test_silent_hosts_hold_up_no_host_that_answers(tmp_path: Path) -> None:
    urls = [f"http://{'good.org' if n % 2 else f'silent{n}.org'}/{n}" for n in range(200)]
    clips, hits, _ = crawled(
        urls, lambda url, now: good() if "good" in url else Answer.failed("network", SILENT), tmp_path
    )
    assert [clip.is_open for clip in clips] == [False, True] * 100
    assert max(at for url, at in hits if "good" in url) < 1.2 * 100 * 0.5
    assert all(hits[0][1] == at for _, at in hits[:THREADS]), "as long as no host has answered, no thread is spared"


def test_a_rerun_asks_a_host_that_wants_to_be_left_alone_for_nothing(tmp_path: Path) -> None:
    urls = [f"http://busy.org/{n}" for n in range(10)]
    for requests in (1, 0):
        clips, hits, took_s = crawled(
            urls, lambda url, now: Answer.failed("rate_limited", retry_after_s=86400), tmp_path,
            any_host=HostRules(concurrent=1),
        )  # fmt: skip
        assert {clip.reason for clip in clips} == {"rate_limited"} and len(hits) == requests and took_s < 5
