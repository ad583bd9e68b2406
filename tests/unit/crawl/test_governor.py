"""One budget per host for the whole run: never above the rate, patient in an outage, fair to who asked first."""

from __future__ import annotations

import pytest

from vidal.crawl.governor import Governor, HostRules


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def crowd(
    governor: Governor, clock: Clock, hosts: list[str], visit_s: float, until_s: float
) -> list[tuple[float, str]]:
    """One caller a name in ``hosts``, all at once, each of them asking again when told to; gives the admissions."""
    start, admissions = clock.now, []
    callers = [[host, None, clock.now] for host in hosts]
    visits: list[tuple[float, str]] = []
    while (callers or visits) and clock.now < start + until_s:
        for end, ticket in [v for v in visits if v[0] <= clock.now]:
            governor.report(ticket, "ok")
            visits.remove((end, ticket))
        for caller in [c for c in callers if c[2] <= clock.now]:
            caller[1], wait_s, _ = governor.admit(caller[0], caller[1])
            caller[2] = clock.now + wait_s
            if wait_s == 0:
                callers.remove(caller)
                visits.append((clock.now + visit_s, caller[1]))
                admissions.append((clock.now - start, caller[0]))
        due = [c[2] for c in callers] + [v[0] for v in visits]
        clock.now = max(clock.now + 1e-4, min(due, default=clock.now))
    return admissions


@pytest.mark.parametrize(("per_s", "concurrent", "visit_s", "wanted_s"), [
    (10.0, 4, 0.05, 10.0),   # the rate decides: 100 admissions at 10 a second
    (100.0, 2, 0.2, 10.0),   # the visits decide: 100 of 0.2 s, two at a time
])  # fmt: skip
def test_a_host_is_visited_as_often_as_its_rules_allow_and_no_oftener(
    per_s: float, concurrent: int, visit_s: float, wanted_s: float
) -> None:
    clock = Clock()
    rules = HostRules(per_s=per_s, concurrent=concurrent, jitter=0.0)
    governor = Governor({}, default=rules, clock=clock)
    times = [at for at, _ in crowd(governor, clock, ["a"] * 100, visit_s, 100)]
    assert len(times) == 100
    assert wanted_s * 0.95 <= times[-1] <= wanted_s * 1.1
    assert all(sum(at <= t < at + 1 for t in times) <= per_s + 1 for at in times)


def test_hosts_do_not_wait_for_each_other_and_a_subdomain_shares_its_domains_budget() -> None:
    clock = Clock()
    governor = Governor({"slow.org": HostRules(per_s=0.1, jitter=0.0)}, default=HostRules(per_s=10), clock=clock)
    admissions = crowd(governor, clock, ["www.slow.org"] * 3 + ["fast.org"] * 20, 0.01, 100)
    assert max(at for at, host in admissions if host == "fast.org") < 2.5
    assert [round(at) for at, host in admissions if host == "www.slow.org"] == [0, 10, 20]


def test_who_asked_first_goes_first() -> None:
    clock = Clock()
    governor = Governor({}, default=HostRules(per_s=1, jitter=0.5), clock=clock)
    tickets = [governor.admit("a", None)[0] for _ in range(5)]
    order = []
    while len(order) < 4:
        clock.now += 0.1
        for ticket in reversed(tickets[1:]):
            if ticket not in order and governor.admit("a", ticket)[1] == 0:
                order.append(ticket)
                governor.report(ticket, "ok")
    assert order == tickets[1:]


@pytest.mark.parametrize(("outcomes", "retry_after_s", "wanted_s"), [
    (["rate_limited"], 90.0, 90.0),                 # the host's own word
    (["rate_limited"], None, 30.0),                 # the first pause
    (["trouble"] * 2, None, 0.0),                   # two failures are no outage
    (["trouble"] * 3, None, 30.0),                  # three are
    (["trouble", "trouble", "ok", "trouble"], None, 0.0),
])  # fmt: skip
def test_a_host_that_rate_limits_or_fails_is_paused(
    outcomes: list[str], retry_after_s: float | None, wanted_s: float
) -> None:
    clock = Clock()
    rules = HostRules(per_s=1000, jitter=0.0, failures_to_pause=3, pause_s=30)
    governor = Governor({}, default=rules, clock=clock)
    for outcome in outcomes:
        clock.now += 1
        ticket, wait_s, _ = governor.admit("a", None)
        assert wait_s == 0
        governor.report(ticket, outcome, retry_after_s)
    assert governor.snapshot()["a"]["paused_s"] == pytest.approx(wanted_s)


def test_after_a_pause_one_caller_goes_first_and_each_further_pause_is_twice_as_long() -> None:
    clock = Clock()
    rules = HostRules(per_s=1000, jitter=0.0, concurrent=4, pause_s=10, max_pause_s=35)
    governor = Governor({}, default=rules, clock=clock)
    governor.report(governor.admit("a", None)[0], "rate_limited")
    callers = [governor.admit("a", None)[0] for _ in range(4)]
    for wanted_s in (20, 35, 35):
        clock.now += governor.snapshot()["a"]["paused_s"]
        assert [governor.admit("a", ticket)[1] == 0 for ticket in callers] == [True] + [False] * (len(callers) - 1)
        governor.report(callers.pop(0), "trouble")
        assert governor.snapshot()["a"]["paused_s"] == pytest.approx(wanted_s)
    clock.now += 35
    assert governor.admit("a", callers[0])[1] == 0
    governor.report(callers[0], "ok")
    clock.now += 1
    assert governor.admit("a", None)[1] == 0
    clock.now += 0.001
    assert governor.admit("a", None)[1] == 0, "well again: as many at once as before"


def test_a_caller_that_died_holds_nobody_up() -> None:
    clock = Clock()
    governor = Governor({}, default=HostRules(per_s=1, concurrent=1, max_visit_s=100), clock=clock)
    governor.admit("a", None)  # goes, and never reports
    governor.admit("a", None)  # waits, and never asks again
    clock.now += 200
    assert governor.admit("a", None)[1] == 0


@pytest.mark.parametrize(("requests", "next_after_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (7, 3.5)])
def test_a_visit_of_several_requests_takes_the_time_of_as_many(requests: int, next_after_s: float) -> None:
    clock = Clock()
    governor = Governor({}, default=HostRules(per_s=2.0, jitter=0.0), clock=clock)
    ticket, _, _ = governor.admit("a", None)
    governor.report(ticket, "ok", requests=requests)
    assert governor.admit("a", None)[1] == pytest.approx(next_after_s)


@pytest.mark.parametrize(("outcome", "retry_after_s", "state"), [
    ("rate_limited", 50.0, "paused"),
    ("rate_limited", 86400.0, "rate_limited"),        # asks for longer than anybody waits
    ("rate_limited", None, "paused"),
    ("trouble", None, "paused"),
])  # fmt: skip
def test_a_host_that_asks_for_more_than_our_patience_is_given_up_at_once(
    outcome: str, retry_after_s: float | None, state: str
) -> None:
    clock = Clock()
    rules = HostRules(per_s=1000, jitter=0.0, failures_to_pause=1, pause_s=30, patience_s=100)
    governor = Governor({}, default=rules, clock=clock)
    governor.report(governor.admit("a", None)[0], outcome, retry_after_s)
    assert governor.admit("a", None)[2] == state
    assert governor.snapshot()["a"]["waiting"] == 0, "who is put off holds no place"


def test_a_host_that_stays_down_is_given_up_between_single_trials_and_taken_up_when_it_is_well() -> None:
    clock = Clock()
    rules = HostRules(per_s=1000, jitter=0.0, failures_to_pause=1, pause_s=10, max_pause_s=40, patience_s=60)
    governor = Governor({}, default=rules, clock=clock)
    states = []
    for _ in range(5):
        governor.report(governor.admit("a", None)[0], "trouble")
        states.append(governor.admit("a", None)[2])
        clock.now += governor.snapshot()["a"]["paused_s"]
    assert states == ["paused", "paused", "host_unavailable", "host_unavailable", "host_unavailable"]
    trial, wait_s, _ = governor.admit("a", None)
    assert wait_s == 0 and governor.admit("a", None)[2] == "paused", "one goes, the others wait for what it finds"
    governor.report(trial, "ok")
    clock.now += 1
    assert governor.admit("a", None)[1:] == (0.0, "open")


def test_pauses_without_end_are_no_longer_than_the_longest() -> None:
    clock = Clock()
    governor = Governor({}, default=HostRules(failures_to_pause=1, jitter=0.0, max_pause_s=60), clock=clock)
    for _ in range(2000):
        governor.report(governor.admit("a", None)[0], "trouble")
        clock.now += governor.snapshot()["a"]["paused_s"]
    governor.report(governor.admit("a", None)[0], "trouble")
    assert governor.snapshot()["a"]["paused_s"] == pytest.approx(60)
