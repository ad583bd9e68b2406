"""Rates by the server's own log: redirects, segments, runs side by side, killed and restarted ones."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.processes import command
from tests.site import Hit, Plan, Site
from vidal.clip import Clip
from vidal.stage import Direct
from vidal.stages.fetch import Fetch

WAYS: dict[str, Any] = {
    "allow_addresses": ["127.0.0.0/29"], "generic": True, "socket_timeout_s": 5, "back_off_s": 0.2, "tries": 3,
}  # fmt: skip


def most_in_a_second(hits: list[Hit]) -> int:
    times = [hit.at for hit in hits]
    return max(sum(at <= time < at + 1 for time in times) for at in times)


class Stalled(Direct):
    """A governor whose admissions reach nobody for half a second of each one and a half, and then all at once."""

    def call(self, method: str, *arguments: Any) -> Any:
        answer = super().call(method, *arguments)
        if method == "admit" and answer[0] <= 0 and (phase_s := time.monotonic() % 1.5) < 0.5:
            time.sleep(0.5 - phase_s)
        return answer


def fetched(urls: list[str], folder: Path, of: type[Direct] = Direct, **settings: Any) -> list[Clip]:
    clips = []
    for number, url in enumerate(urls):
        clips.append(Clip(url=url, extra=dict.fromkeys(Fetch.columns)))
        clips[-1].work.folder = folder / str(number)
        (folder / str(number)).mkdir(parents=True)
    stage = Fetch(**{**WAYS, **settings})
    stage.bind(of(stage.shared()))
    stage.setup()
    stage.process_batch(clips)
    return clips


def test_redirects_are_charged_one_by_one(tmp_path: Path) -> None:
    with Site() as site:
        urls = [site.url(f"/hops/5/{name}.mp4") for name in ("bunny-wake", "bunny-apple", "bunny-flower")]
        clips = fetched(urls, tmp_path, any_host={"per_s": 2, "concurrent": 3}, via="direct")
        assert [clip.reason for clip in clips] == [None] * 3
        assert len(site.hits) >= 20 and most_in_a_second(site.hits) <= 3


def test_requests_of_processes_that_waited_for_a_core_keep_the_rate(tmp_path: Path) -> None:
    with Site(Plan(share=0)) as site:
        urls = [site.url(f"/v/{n}.mp4") for n in range(20)]
        clips = fetched(urls, tmp_path, Stalled, any_host={"per_s": 9, "concurrent": 8, "jitter": 0}, via="direct")
        assert [clip.reason for clip in clips] == [None] * 20
        assert len(site.hits) >= 22 and most_in_a_second(site.hits) <= 10


def test_segments_are_charged_one_by_one_and_may_have_a_rate_of_their_own(tmp_path: Path) -> None:
    with Site() as site:
        url = site.url("/hls/minutes/bunny-wake.mp4/index.m3u8")
        (clip,) = fetched([url], tmp_path, any_host={"per_s": 8})
        assert clip.reason is None and len(site.hits) > 40 and most_in_a_second(site.hits) <= 9
    with Site() as site:
        url = site.url("/hls/minutes/bunny-wake.mp4/index.m3u8")
        started = time.monotonic()
        (clip,) = fetched([url], tmp_path / "again", any_host={"per_s": 2, "media_per_s": 200})
        assert clip.reason is None and time.monotonic() - started < 15


def crawling(folder: Path, urls: list[str], **settings: Any) -> list[str]:
    """The words of a crawl."""
    folder.mkdir(exist_ok=True)
    recipe = folder / "crawl.yaml"
    stages = [{"fetch": {**WAYS, "via": "direct", **settings}}, "keep_source"]
    recipe.write_text(yaml.safe_dump({"source": {"urls": urls}, "shards": {"size": 4}, "stages": stages}))
    return ["crawl", str(recipe), "--out", str(folder / "out"), "--engine", "local"]


def crawl(folder: Path, urls: list[str], **settings: Any) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    words = crawling(folder, urls, **settings)
    return subprocess.Popen(
        [sys.executable, "-m", "vidal", *words, "--workers", "1"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def test_two_runs_at_once_share_the_rate_of_a_host(tmp_path: Path) -> None:
    with Site(Plan(share=0)) as site:
        runs = [
            crawl(tmp_path / f"run{run}", [site.url(f"/v/{12 * run + n}.mp4") for n in range(12)], any_host={"per_s": 4})
            for run in range(2)
        ]  # fmt: skip
        assert [run.wait(180) for run in runs] == [0, 0]
        assert len(site.hits) >= 24 and most_in_a_second(site.hits) <= 5


def test_kills_and_restarts_keep_the_rate(tmp_path: Path) -> None:
    # Room for the visits that were under way at a kill, which count for a while.
    rules = {"per_s": 8, "concurrent": 8}
    with Site(Plan(share=0)) as site:
        urls = [site.url(f"/v/{n}.mp4") for n in range(16)]
        for _ in range(2):
            kill(crawl(tmp_path / "run", urls, any_host=rules), site, requests=5)
        assert crawl(tmp_path / "run", urls, any_host=rules).wait(180) == 0
        assert most_in_a_second(site.hits) <= 9


def kill(run: subprocess.Popen[bytes], site: Site, requests: int) -> None:
    """Kill a run with all its processes as soon as the site has got so many more requests."""
    wanted, deadline = len(site.hits) + requests, time.monotonic() + 90
    while run.poll() is None and len(site.hits) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(site.hits) >= wanted, "the run was slow"
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def test_a_crawl_delay_is_kept_by_runs_side_by_side_killed_and_restarted(tmp_path: Path) -> None:
    # The first visit alone: another could ask for robots.txt before the delay is known.
    delay_s, alone, rules = 0.8, {"per_s": 50, "concurrent": 1}, {"per_s": 50, "concurrent": 8}
    with Site(Plan(share=0), robots=f"User-agent: vidal\nCrawl-delay: {delay_s}\n") as site:
        urls = [site.url(f"/v/{n}.mp4") for n in range(6)]
        kill(crawl(tmp_path / "a", urls[:4], any_host=alone), site, requests=3)
        runs = [crawl(tmp_path / "a", urls[:4], any_host=rules), crawl(tmp_path / "b", urls[4:], any_host=rules)]
        assert [run.wait(180) for run in runs] == [0, 0]
        times = [hit.at for hit in site.hits]
        # On their way requests take longer at one time than at another, which evens out.
        assert min(b - a for a, b in itertools.pairwise(times)) > 0.75 * delay_s
        assert times[-1] - times[0] > (len(times) - 1.5) * delay_s and len(times) >= 12


@pytest.mark.parametrize("when", ["transient", "open"])
def test_a_crawl_delay_beyond_the_patience_ends_clips_and_leaves_no_shard_open(tmp_path: Path, when: str) -> None:
    with Site(Plan(share=0), robots="User-agent: *\nCrawl-delay: 300\n") as site:
        alone = {"per_s": 50, "concurrent": 1}
        urls = [site.url(f"/v/{n}.mp4") for n in range(3)]
        clips = fetched(urls, tmp_path, any_host=alone, via="direct", when_unavailable=when)
        assert {clip.reason for clip in clips} == {"crawl_delay"} and all(clip.is_transient for clip in clips)
        assert all("longer than patience_s" in (clip.detail or "") for clip in clips)
        assert [hit.path for hit in site.hits] == ["/robots.txt"]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_host_that_wants_to_be_left_alone_for_a_day_stops_no_run(tmp_path: Path, is_known: bool) -> None:
    with Site(Plan(share=0)) as site:
        urls = [site.url(f"/fault/leave_alone/{n}.mp4") for n in range(4)]
        urls += [site.url(f"/v/{n}.mp4", 1) for n in range(4)]
        for _ in range(1 + is_known):
            words = crawling(tmp_path / "run", urls, any_host={"per_s": 20})
            assert command(*words, "--workers", "0").returncode == 0
        assert sum("leave_alone" in hit.path for hit in site.hits) <= 2
