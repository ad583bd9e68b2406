"""One budget per host for all runs: never above the rate, whoever asks, dies or comes back."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidal.crawl.governor import Governor, Outcome
from vidal.crawl.settings import HostRules
from vidal.errors import StorageError


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(tmp_path: Path, clock: Clock) -> Governor:
    return Governor(tmp_path, clock=clock)


def rules(**given: Any) -> dict[str, Any]:
    return HostRules(**{"jitter": 0.0, **given}).model_dump()


Sent = list[tuple[float, str]]


def visitor(
    governor: Governor, budget: str, given: dict[str, Any], sent: Sent, *, requests: int = 1, answer_s: float = 0.05,
    dies: bool = False, kind: str = "page",
) -> Iterator[float]:  # fmt: skip
    """One caller, which yields the seconds after which it goes on."""
    while True:
        visit, wait_s, _ = governor.begin("run", budget, given, kind)
        if visit:
            break
        yield wait_s
    for _ in range(requests):
        while (wait_s := governor.admit("run", visit, budget, given, kind)[0]) > 0:
            yield min(wait_s, 5.0)
        sent.append((governor._clock(), budget))
        if dies:
            return
        yield answer_s
    governor.end(visit, {budget: "ok"}, given)


def run(clock: Clock, callers: list[Iterator[float]], until_s: float = 1000.0) -> None:
    """Let callers go on, each in its time."""
    start, numbers = clock.now, itertools.count()
    due = [(clock.now, next(numbers), caller) for caller in callers]
    while due and clock.now < start + until_s:
        at, _, caller = heapq.heappop(due)
        clock.now = max(clock.now, at)
        if (wait_s := next(caller, None)) is not None:
            heapq.heappush(due, (clock.now + wait_s, next(numbers), caller))


def most_in_a_second(times: list[float]) -> int:
    return max(sum(at <= time < at + 1 for time in times) for at in times)


@pytest.mark.parametrize(("per_s", "concurrent", "requests", "answer_s", "wanted_s"), [
    (10.0, 4, 1, 0.05, 10.5),   # the rate decides: 100 requests, 5 % rarer than 10 a second
    (100.0, 2, 1, 0.2, 11.0),   # the visits decide: 100 of 0.2 s, two at a time
    (4.0, 4, 7, 0.01, 26.25),   # requests within visits count as others do
])  # fmt: skip
def test_a_host_is_asked_as_often_as_its_rules_allow_and_no_oftener(
    governor: Governor, clock: Clock, per_s: float, concurrent: int, requests: int, answer_s: float, wanted_s: float
) -> None:
    sent: Sent = []
    given, count = rules(per_s=per_s, concurrent=concurrent), 100 // requests + (100 % requests > 0)
    start = clock.now
    run(clock, [visitor(governor, "a", given, sent, requests=requests, answer_s=answer_s) for _ in range(count)])
    times = [at - start for at, _ in sent]
    assert len(times) == count * requests
    assert wanted_s * 0.93 <= times[-1] <= wanted_s * 1.15
    assert most_in_a_second(times) <= per_s + 1


def test_hosts_do_not_wait_for_each_other(governor: Governor, clock: Clock) -> None:
    sent: Sent = []
    slow, fast, start = rules(per_s=0.1), rules(per_s=10), clock.now
    run(
        clock,
        [
            *(visitor(governor, "slow", slow, sent) for _ in range(3)),
            *(visitor(governor, "fast", fast, sent) for _ in range(20)),
        ],
    )
    assert max(at for at, host in sent if host == "fast") - start < 2.5
    assert [round(at - start, 1) for at, host in sent if host == "slow"] == [0, 10.5, 21.0]


def test_who_asked_first_goes_first_and_is_told_once_how_long_to_wait(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1, concurrent=9)
    visits = [governor.begin("run", "a", given)[0] for _ in range(5)]
    waits = [governor.admit("run", visit, "a", given)[0] for visit in visits]
    assert waits == pytest.approx([0, 1.05, 2.1, 3.15, 4.2])
    for visit in visits[1:]:
        clock.now += 1.05
        assert governor.admit("run", visits[-1], "a", given)[0] > 0 or visit == visits[-1]
        assert visit == visits[-1] or governor.admit("run", visit, "a", given)[0] == pytest.approx(0)


def test_media_may_have_a_rate_of_its_own(governor: Governor, clock: Clock) -> None:
    sent: Sent = []
    given, start = rules(per_s=0.5, media_per_s=10, concurrent=2), clock.now
    callers = [visitor(governor, "a", given, sent, requests=40, kind="media") for _ in range(2)]
    run(clock, [*callers, visitor(governor, "a", given, pages := [], requests=5)])
    assert sent[-1][0] - start == pytest.approx(8.4, rel=0.05) and most_in_a_second([at for at, _ in sent]) <= 11
    assert [round(b[0] - a[0], 1) for a, b in itertools.pairwise(pages)] == [2.1] * 4


def test_two_runs_share_a_rate_and_may_have_different_rules(tmp_path: Path, clock: Clock) -> None:
    sent: Sent = []
    callers = [
        visitor(Governor(tmp_path, clock=clock), "a", rules(per_s=2, concurrent=3), sent, requests=10),
        visitor(Governor(tmp_path, clock=clock), "a", rules(per_s=2, concurrent=3), sent, requests=10),
        visitor(Governor(tmp_path, clock=clock), "a", rules(per_s=1, concurrent=3), sent, requests=2),
    ]
    run(clock, callers)
    times = [at for at, _ in sent]
    assert len(times) == 22 and most_in_a_second(times) <= 3


def test_what_a_killed_run_has_left_is_there_for_the_next(tmp_path: Path, clock: Clock) -> None:
    sent: Sent = []
    for _ in range(5):
        # Killed between its request and the report.
        run(clock, [visitor(Governor(tmp_path, clock=clock), "a", rules(per_s=2, concurrent=20), sent, dies=True)])
    assert [round(b[0] - a[0], 3) for a, b in itertools.pairwise(sent)] == [0.525] * 4


def test_a_crawl_delay_is_kept_from_the_next_request_on_by_every_run(tmp_path: Path, clock: Clock) -> None:
    def states(governor: Governor, sent: Sent, delay_s: float) -> Iterator[float]:
        yield from visitor(governor, "a", quick, sent)
        governor.delay("a", "http://a", delay_s)

    sent: Sent = []
    quick = rules(per_s=100, media_per_s=100, concurrent=9)
    one, another = Governor(tmp_path, clock=clock), Governor(tmp_path, clock=clock)
    run(clock, [states(one, sent, 10)])
    callers = [visitor(one, "a", quick, sent, requests=2), visitor(another, "a", rules(per_s=0.05), sent, requests=2)]
    run(clock, [*callers, visitor(another, "a", quick, sent, requests=2, kind="media"), visitor(one, "b", quick, [])])
    run(clock, [visitor(Governor(tmp_path, clock=clock), "a", quick, sent)])
    gaps = [round(b[0] - a[0], 2) for a, b in itertools.pairwise(sent)]
    assert len(gaps) == 7 and set(gaps) == {10.5, 21.0}, "never oftener than asked for, nor than a run's own rules"
    another.delay("a", "http://a:8080", 3)
    run(clock, [states(one, sent, 0), visitor(one, "a", quick, later := [], requests=2)])
    assert later[1][0] - later[0][0] == pytest.approx(3.15), "of its origins, the one that asks for most"


def test_a_crawl_delay_beyond_the_patience_is_a_state_of_its_own(governor: Governor, clock: Clock) -> None:
    given = rules(patience_s=60)
    visit = governor.begin("run", "a", given)[0]
    assert governor.admit("run", visit, "a", given) == (0, "open")
    governor.delay("a", "http://a", 1e9)
    wait_s, state = governor.admit("run", visit, "a", given)
    assert (wait_s, state) == (pytest.approx(86400 * 1.05), "crawl_delay"), "a day is the longest"
    assert governor.begin("run", "a", rules(patience_s=1e6))[2] == "open", "another run has more"


def test_a_caller_that_died_is_forgotten(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1, concurrent=1)
    visit = governor.begin("run", "a", given)[0]
    assert visit and governor.admit("run", visit, "a", given)[0] == 0, "goes, and is not heard of again"
    clock.now += 14
    assert not governor.begin("run", "a", given)[0]
    governor.renew(visit)
    clock.now += 14
    assert not governor.begin("run", "a", given)[0], "it was heard of"
    clock.now += 2
    assert governor.begin("run", "a", given)[0]


def test_a_caller_that_died_while_it_waited_holds_nobody_up(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1, concurrent=5)
    first, dead, alive = (governor.begin("run", "a", given)[0] for _ in range(3))
    assert [governor.admit("run", visit, "a", given)[0] > 0 for visit in (first, dead, alive)] == [False, True, True]
    waited_s = 0.0
    while (wait_s := governor.admit("run", alive, "a", given)[0]) > 0:
        clock.now += min(wait_s, 5.0)
        waited_s += wait_s
    assert waited_s <= 10


def test_a_clock_that_was_turned_back_delays_nobody(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1, failures_to_pause=1, pause_s=20)
    visit = governor.begin("run", "a", given)[0]
    governor.admit("run", visit, "a", given)
    governor.end(visit, {"a": "trouble"}, given)
    clock.now -= 3600
    assert governor.begin("run", "a", given)[1] == pytest.approx(20)
    clock.now += 20
    assert governor.begin("run", "a", given)[1] <= 1.05, "its last request seems to be to come"
    clock.now += 1.05
    visit = governor.begin("run", "a", given)[0]
    assert visit and governor.admit("run", visit, "a", given)[0] == 0


def fail(governor: Governor, given: dict[str, Any], outcome: Outcome = "trouble", wish_s: float | None = None) -> float:
    """One visit of a host that is open, which ends so; the pause that follows."""
    visit, wait_s, _ = governor.begin("run", "a", given)
    assert visit, wait_s
    assert governor.admit("run", visit, "a", given)[0] == 0
    return governor.end(visit, {"a": outcome}, given, wish_s)


@pytest.mark.parametrize(("outcomes", "retry_after_s", "wanted_s"), [
    (["rate_limited"], 90.0, 90.0),                 # the host's own word
    (["rate_limited"], 1e9, 86400.0),
    (["rate_limited"], None, 30.0),                 # the first pause
    (["trouble"] * 2, None, 0.0),                   # two failures are no outage
    (["trouble"] * 3, None, 30.0),                  # three are
    (["trouble", "trouble", "ok", "trouble"], None, 0.0),
])  # fmt: skip
def test_a_host_that_rate_limits_or_fails_is_paused(
    governor: Governor, clock: Clock, outcomes: list[Outcome], retry_after_s: float | None, wanted_s: float
) -> None:
    given, pause_s = rules(per_s=1000, failures_to_pause=3, pause_s=30), 0.0
    for outcome in outcomes:
        clock.now += 1
        pause_s = fail(governor, given, outcome, retry_after_s)
    assert pause_s == pytest.approx(wanted_s)
    state = governor.begin("run", "a", given)[2]
    assert state == ("open" if not wanted_s else "rate_limited" if "rate_limited" in outcomes else "host_unavailable")


def test_after_a_pause_one_request_goes_first_and_each_further_pause_is_twice_as_long(
    governor: Governor, clock: Clock
) -> None:
    given = rules(per_s=1000, concurrent=4, pause_s=10, max_pause_s=35, failures_to_pause=1)
    fail(governor, given)
    for pause_s, next_s in ((10, 20), (20, 35), (35, 35)):
        assert governor.begin("run", "a", given)[1] == pytest.approx(pause_s)
        clock.now += pause_s
        probe = governor.begin("run", "a", given)[0]
        assert probe and governor.admit("run", probe, "a", given)[0] == 0
        assert governor.begin("run", "a", given) == ("", 1.0, governor.begin("run", "a", given)[2]), "one alone"
        assert governor.end(probe, {"a": "trouble"}, given) == pytest.approx(next_s)
    clock.now += 35
    probe = governor.begin("run", "a", given)[0]
    governor.admit("run", probe, "a", given)
    governor.answered("a")
    clock.now += 0.01
    assert governor.begin("run", "a", given)[0], "well again, before the probe's file has come"


def test_a_visit_under_way_when_its_host_is_paused_sends_nothing_more(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1000, concurrent=4, pause_s=10)
    long = governor.begin("run", "a", given)[0]
    assert governor.admit("run", long, "a", given)[0] == 0
    clock.now += 1
    assert fail(governor, given, "rate_limited", 50.0) == 50
    assert governor.admit("run", long, "a", given)[0] == pytest.approx(50)
    assert governor.end(long, {"a": "trouble"}, given) == pytest.approx(50), "an older request is no second outage"
    clock.now += 50
    assert governor.begin("run", "a", given)[0]


def test_a_long_download_from_before_a_pause_delays_no_probe_and_its_failure_is_no_second_outage(
    governor: Governor, clock: Clock
) -> None:
    given = rules(per_s=1000, concurrent=4, pause_s=10)
    long = governor.begin("run", "a", given)[0]
    assert governor.admit("run", long, "a", given)[0] == 0
    clock.now += 1
    fail(governor, given, "rate_limited")
    clock.now += 10
    governor.renew(long)
    probe = governor.begin("run", "a", given)[0]
    assert probe and governor.begin("run", "a", given)[:2] == ("", 1.0), "one alone, before its first request, too"
    assert governor.admit("run", probe, "a", given)[0] == 0
    assert governor.end(long, {"a": "trouble"}, given) == 0
    assert governor.end(probe, {"a": "ok"}, given) == 0
    clock.now += 0.01
    assert governor.begin("run", "a", given)[0]


@pytest.mark.parametrize(("outcomes", "wanted_s"), [
    # Without a pause, an address is no host: only others that fail are.
    (["trouble", *["trouble_again"] * 9, "trouble", "trouble"], [0] * 11 + [10]),
    # A host that was paused for trouble is down as long as its probes fail.
    (["trouble"] * 4, [0, 0, 10, 20]),
    (["trouble"] * 3 + ["trouble_again"], [0, 0, 10, 20]),
    # After a pause that it asked for, a probe is one address among others, be it the first time that this one fails.
    (["rate_limited", "trouble_again", "trouble_again", "trouble", "ok", "trouble"], [10, 0, 0, 0, 0, 0]),
    (["rate_limited", "trouble", "trouble", "trouble", "trouble"], [10, 0, 0, 20, 40]),
    (["rate_limited", "trouble", "rate_limited", "rate_limited"], [10, 0, 20, 40]),
])  # fmt: skip
def test_the_trouble_of_an_address_is_told_from_that_of_its_host(
    governor: Governor, clock: Clock, outcomes: list[Outcome], wanted_s: list[float]
) -> None:
    given, pauses = rules(per_s=1000, failures_to_pause=3, pause_s=10), []
    for outcome in outcomes:
        pauses.append(fail(governor, given, outcome))
        clock.now += 1 + pauses[-1]
    assert pauses == wanted_s


def test_a_probe_that_died_is_followed_by_another(governor: Governor, clock: Clock) -> None:
    given = rules(per_s=1000, failures_to_pause=1, pause_s=10)
    fail(governor, given)
    clock.now += 10
    probe = governor.begin("run", "a", given)[0]
    governor.admit("run", probe, "a", given)
    clock.now += 10
    assert not governor.begin("run", "a", given)[0]
    clock.now += 6
    assert governor.begin("run", "a", given)[0]


def test_ten_thousand_pauses_are_no_longer_than_the_longest(governor: Governor, clock: Clock) -> None:
    given = rules(failures_to_pause=1, max_pause_s=60)
    for _ in range(10_000):
        clock.now += fail(governor, given)
    assert fail(governor, given) == pytest.approx(60)


def test_requests_and_waits_are_counted_by_run_and_budget_and_outlive_the_process(
    governor: Governor, clock: Clock, tmp_path: Path
) -> None:
    given, began = rules(per_s=2), clock.now
    run(clock, [visitor(governor, "a", given, [], requests=3)])
    counted = governor.counts("run")["a"]
    assert {name: counted[name] for name in ("visits", "requests", "waited_s", "per_s")} == {
        "visits": 1, "requests": 3, "waited_s": 0, "per_s": 2,
    }  # fmt: skip
    assert counted["first_at"] == began and counted["used_at"] == pytest.approx(began + 2 * 1.05 / 2, abs=0.01)
    assert governor.counts("another") == {}


def test_media_with_a_rate_of_its_own_is_counted_apart_and_a_request_admitted_twice_once(
    governor: Governor, clock: Clock
) -> None:
    given = rules(per_s=2, media_per_s=7)
    visit, _, _ = governor.begin("run", "a", given, "media")
    assert governor.admit("run", visit, "a", given, "media")[0] == 0
    assert governor.admit("run", visit, "a", given)[0] == 0
    clock.now += 1
    assert governor.admit("run", visit, "a", given, is_again=True)[0] == 0
    counted = {lane: (counts["requests"], counts["per_s"]) for lane, counts in governor.counts("run").items()}
    assert counted == {"a": (1, 2), "a media": (1, 7)}


@pytest.mark.parametrize("damage", ["folder", "bytes"])
def test_a_file_that_cannot_be_kept_is_one_line(tmp_path: Path, damage: str) -> None:
    if damage == "folder":
        (tmp_path / "crawl").write_text("a file")
    else:
        (tmp_path / "crawl").mkdir()
        (tmp_path / "crawl" / "budgets-1.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"budgets.*VIDAL_CACHE") as raised:
        Governor(tmp_path / "crawl").begin("run", "a", rules())
    assert isinstance(raised.value.__cause__, sqlite3.Error)
