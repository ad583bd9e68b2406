"""A host that rate-limits or fails is paused, and what comes after a pause."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.crawl.clocked import Clock, rules
from vidal.crawl.governor import Governor, Outcome


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
