"""One budget per host for all runs: never above the rate, whoever asks, dies or comes back."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.crawl.clocked import Clock, Sent, rules, run, visitor
from vidal.crawl.governor import Governor
from vidal.errors import StorageError


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
