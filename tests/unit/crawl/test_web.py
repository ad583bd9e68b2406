"""Many clips on many hosts, good and bad, through the stage itself: a failing host fails its own clips alone."""

from __future__ import annotations

import math
import queue
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site
from vidal.clip import Clip
from vidal.crawl.schedule import Schedule, Turn
from vidal.crawl.settings import WebSettings
from vidal.crawl.visitor import Later, Tries
from vidal.errors import NotNowError
from vidal.stage import Direct
from vidal.stages.fetch import Fetch

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
GOOD, REFUSING, BUSY = range(3)
DEAD = ("127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7")


def fetched(urls: list[str], folder: Path, **settings: Any) -> list[Clip]:
    """The clips of the addresses, once fetch is done with them."""
    clips = []
    for number, url in enumerate(urls):
        clips.append(Clip(url=url, extra=dict.fromkeys(Fetch.columns)))
        clips[-1].work.folder = folder / str(number)
        (folder / str(number)).mkdir()
    rules = {"per_s": 100, "concurrent": 4, "jitter": 0, **settings.pop("any_host", {})}
    told = {
        "allow_addresses": ["127.0.0.0/29"],
        "via": "direct",
        "socket_timeout_s": 1,
        "back_off_s": 0.1,
        "outage_s": 3,
        **settings,
    }
    stage = Fetch(any_host=rules, **told)
    stage.bind(Direct(stage.shared()))
    stage.setup()
    stage.process_batch(clips)
    return clips


def test_failing_hosts_delay_no_clip_of_another_and_stop_nothing(tmp_path: Path) -> None:
    with Site(hosts=HOSTS) as site:
        bad = {
            "blocked": [site.url(f"/fault/forbidden/{n}", REFUSING) for n in range(8)],
            "rate_limited": [site.url(f"/fault/leave_alone/{n}", BUSY) for n in range(8)],
            "network": [f"http://{host}:9/{n}.mp4" for n in range(4) for host in DEAD],
            "dns": [f"http://{n}.nowhere.invalid/a.mp4" for n in range(4)],
        }
        good = [site.url(f"/v/{n}.mp4", GOOD) for n in range(40)]
        site.plan = type(site.plan)(share=0)
        started = time.monotonic()
        rules = {"failures_to_pause": 1, "pause_s": 1.0, "patience_s": 4.0}
        clips = fetched([url for urls in bad.values() for url in urls] + good, tmp_path, concurrency=4, any_host=rules)
        took_s = time.monotonic() - started
        good_hits = [hit.at for hit in site.hits if hit.host == HOSTS[GOOD]]
        good_s = max(good_hits) - min(good_hits)
    reason_of = {clip.url: clip.reason for clip in clips}
    assert all(clip.is_open and clip.source_bytes for clip in clips if clip.url in good)
    for reason, urls in bad.items():
        assert {reason_of[url] for url in urls} <= {reason, "host_unavailable"}, reason
    assert all(clip.is_transient for clip in clips if clip.status == "failed")
    assert "host_unavailable" in {clip.reason for clip in clips}
    assert good_s < took_s / 2 and took_s < 30, (good_s, took_s)


def test_a_plain_download_tells_which_secrets_it_had(tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    with Site() as site:
        urls, told = [site.url("/clip/bunny-wake.mp4")], []
        nobody = "http://127.0.0.1:9"
        for number, settings in enumerate([{}, {"cookies": str(cookies)}, {"cookies": str(cookies), "proxy": nobody}]):
            folder = tmp_path / str(number)
            folder.mkdir()
            (clip,) = fetched(urls, folder, outage_s=0.1, **settings)
            told.append((clip.is_open, clip["fetched_with"]))
    assert told == [(True, None), (True, ["direct", "cookies"]), (False, ["direct", "cookies", "proxy"])]


def test_a_host_that_stays_paused_ends_the_visits_of_a_shard_that_is_to_stay_open(tmp_path: Path) -> None:
    rules = {"failures_to_pause": 1, "pause_s": 900.0, "jitter": 0, "patience_s": 30.0, "per_s": 5.0}
    with Site(hosts=HOSTS) as site:
        site.plan = type(site.plan)(share=0)
        urls = [f"http://{DEAD[0]}:9/a.mp4", *(site.url(f"/v/{n}.mp4", GOOD) for n in range(40))]
        with pytest.raises(NotNowError) as error:
            fetched(urls, tmp_path, any_host=rules, when_unavailable="open")
        assert len({hit.path for hit in site.hits}) < 20, "what comes now is fetched again with the shard"
    assert (error.value.what, error.value.reason) == (DEAD[0], "host_unavailable")
    assert 890 < error.value.at - time.time() <= 900


@pytest.mark.parametrize("down_s", [0.3, 1.0])
def test_a_lone_clip_on_a_host_that_is_down_for_a_while_is_kept(down_s: float, tmp_path: Path) -> None:
    with Site() as site:
        port = site.port
    sites: list[Site] = []
    up = threading.Timer(down_s, lambda: sites.append(Site(port=port)))
    up.start()
    (clip,) = fetched([f"http://127.0.0.1:{port}/clip/bunny-wake.mp4"], tmp_path, back_off_s=0.2)
    up.join()
    sites[0].close()
    assert clip.is_open and clip.source_bytes, clip.reason


def test_a_clip_that_is_put_off_lets_others_go_and_comes_back_in_its_time() -> None:
    now = 0.0
    turns = [Turn(host, Clip(url=f"http://{host}/{n}"), Tries(WebSettings())) for n, host in enumerate(["a", "a", "b"])]
    schedule = Schedule(turns, clock=lambda: now)
    first = schedule.take()
    assert first is turns[0]
    schedule.done(turns[0], Later(10.0))
    assert [schedule.take(), schedule.take()] == [turns[1], turns[2]]
    assert schedule.take() == 10.0
    for turn in turns[1:]:
        schedule.done(turn, None)
    now = 10.0
    assert schedule.take() is turns[0]
    schedule.done(turns[0], None)
    assert schedule.take() is None


def test_who_waits_for_idle_threads_is_woken_by_the_turn_that_ends() -> None:
    turns = [Turn("a", Clip(url=f"http://a/{n}"), Tries(WebSettings())) for n in range(3)]
    schedule, told = Schedule(turns, threads=4), queue.SimpleQueue[bool]()
    assert [schedule.take(), schedule.take(), schedule.wait_until_idle(0.0)] == [*turns[:2], False]
    threading.Thread(target=lambda: told.put(schedule.wait_until_idle(3600.0)), daemon=True).start()
    schedule.done(turns[0], None)
    assert not schedule.wait_until_idle(0.0), "one clip has a thread, and one is due"
    schedule.done(turns[1], Later(60.0))
    assert told.get(timeout=60), "another is due, and one in a minute"


@pytest.mark.parametrize("of", ["budget", "pause"])
def test_the_clips_of_a_budget_that_has_to_wait_are_not_asked_about_one_by_one(of: str) -> None:
    now = 0.0
    turns = [Turn(host, Clip(url=f"http://{host}/{n}"), Tries(WebSettings())) for n, host in enumerate(["a", "a", "b"])]
    schedule = Schedule(turns, clock=lambda: now)
    first = schedule.take()
    assert first is turns[0]
    schedule.done(turns[0], Later(10.0, of))
    assert schedule.take() is turns[2] and schedule.take() == 10.0
    now = 10.0
    assert [schedule.take(), schedule.take()] == turns[:2], "in plan order"


def test_attempts_end_after_so_many_and_those_of_a_host_that_is_down_after_so_long() -> None:
    now = 0.0
    tries = Tries(WebSettings(tries=4, back_off_s=2.0), clock=lambda: now)
    waits = [tries.back_off_s("truncated", -math.inf) for _ in range(4)]
    assert waits[3] is None
    assert all(0 <= wait_s <= longest_s for wait_s, longest_s in zip(waits[:3], (2, 4, 8), strict=True) if wait_s)
    tries = Tries(WebSettings(tries=2, outage_s=30.0), clock=lambda: now)
    while (wait_s := tries.back_off_s("network", -math.inf)) is not None:
        assert wait_s <= 16.0
        now += wait_s + 0.1
    assert 30 <= now <= 47


def test_back_offs_without_end_do_not_overflow() -> None:
    tries = Tries(WebSettings(tries=100_000))
    assert all((tries.back_off_s("truncated", -math.inf) or 0.0) <= 16 for _ in range(10_000))


def test_the_pauses_of_a_clips_own_visits_count_in_all_and_those_of_its_host_until_it_answers() -> None:
    now, of = 0.0, ("example.org", "rate_limited")
    tries = Tries(WebSettings(), clock=lambda: now)
    for pause_s, is_answered, waits in [(60, False, True), (50, False, True), (20, False, False), (20, True, True)]:
        if is_answered:
            tries.pauses.end("example.org", now)
        assert tries.waits_for(*of, pause_s, 120.0) == waits
        assert tries.waits_for(*of, pause_s, 120.0) == waits, "one pause, told of twice"
        now += pause_s
    own = [tries.waits_for(*of, pause_s, 120.0, is_own=True) for pause_s in (60.0, 50.0, 20.0, 9.0)]
    assert own == [True, True, False, True]
    assert [tries.waits_for(*of, 0.0, 120.5, is_own=True) for _ in range(3)] == [True, True, False], (
        "a pause of nothing is one of a second"
    )
