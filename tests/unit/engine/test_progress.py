"""The progress line adds up, whatever order the counts come in, and the time left is that of all phases."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from vidal.engine.job import ShardReport
from vidal.engine.progress import LiveProgress, seconds_left


def report(shard: int, kept: int, rejected: int = 0, failed: int = 0, stage: str = "", **seconds: float) -> ShardReport:
    clips = dict.fromkeys(seconds, kept + rejected + failed)
    outcomes = Counter(kept=kept, rejected=rejected, failed=failed)
    return ShardReport(shard=shard, outcomes=outcomes, stage=stage, seconds=seconds, clips=clips)


def progress(*phases: list[str], quiet: bool = False, terminal: bool = False) -> tuple[LiveProgress, io.StringIO]:
    out = io.StringIO()
    live = LiveProgress(Console(file=out, force_terminal=terminal, width=200), quiet=quiet)
    live.begin_run(phases or [["ocr", "depth"]])
    return live, out


def counts(line: str) -> list[str]:
    return line.split(" · ")[:4]


def test_shards_under_way_and_done_are_counted_once_each() -> None:
    live, _ = progress()
    with live:
        live.begin_phase(1, 1, 100, 10)
        assert counts(live.line()) == ["building: 10/100 clips", "0 kept", "0 rejected", "0 failed"]
        live.update(report(0, 3))
        live.update(report(0, 5, 1))
        live.update(report(1, 1, 0, 2))
        assert counts(live.line()) == ["building: 19/100 clips", "6 kept", "1 rejected", "2 failed"]
        live.done(report(0, 7, 1))
        assert counts(live.line()) == ["building: 21/100 clips", "8 kept", "1 rejected", "2 failed"]
        # A count that was on its way when the shard itself arrived.
        live.update(report(0, 6, 1))
        assert counts(live.line()) == ["building: 21/100 clips", "8 kept", "1 rejected", "2 failed"]


def test_a_new_phase_starts_from_what_is_there() -> None:
    live, _ = progress(["ocr"], ["depth"])
    with live:
        live.begin_phase(1, 2, 8, 0)
        live.done(report(0, 8))
        live.begin_phase(2, 2, 8, 4)
        assert counts(live.line()) == ["phase 2/2: 4/8 clips", "0 kept", "0 rejected", "0 failed"]
        live.update(report(0, 1))
        assert counts(live.line())[0] == "phase 2/2: 5/8 clips"


def test_the_stage_under_way_and_the_slowest_are_named() -> None:
    live, _ = progress()
    with live:
        live.begin_phase(1, 1, 8, 0)
        assert live.line().endswith("elapsed · loading models")
        live.done(report(0, 4, depth=3.0, ocr=1.0))
        live.update(report(1, 4, depth=0.0, ocr=4.0, stage="depth"))
        assert live.line().endswith("now: depth · slowest: ocr (62%)")


def test_before_the_plan_is_made_a_line_says_so() -> None:
    assert progress()[0].line() == "planning · 0:00 elapsed"


PHASES = [["probe", "media"], ["ocr", "depth"]]
# Seconds and clips of each stage so far, clips of the phase that went through each stage, phases to come, seconds left
# of 10 clips where one worker has been busy all the time.
LEFT = {
    "half of the only phase": ({"a": (10, 5)}, {"a": 5}, [["a"]], 10),
    "a dear last stage that nobody has reached costs the mean": ({"a": (5, 5)}, {"a": 5}, [["a", "b"]], 15),
    "clips that an early stage rejects do not reach a later one": ({"a": (5, 5), "b": (8, 2)}, {"a": 5, "b": 2}, [["a", "b"]], 13),
    "the phases to come count": ({"probe": (5, 5), "media": (15, 5)}, {"probe": 5, "media": 5}, PHASES, 60),
    "what an earlier phase measured serves a later one": ({"probe": (10, 10), "ocr": (4, 2)}, {"ocr": 2}, [["ocr", "probe"]], 26),
    "nothing is left": ({"a": (10, 10)}, {"a": 10}, [["a"]], 0),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT.values(), ids=LEFT.keys())
def test_the_time_left_is_that_of_the_work_left(
    case: tuple[dict[str, tuple[float, int]], dict[str, int], list[list[str]], float],
) -> None:
    spent, reach, stages, wanted = case
    account = {n: s for n, (s, _) in spent.items()}, {n: c for n, (_, c) in spent.items()}
    busy_s = sum(account[0].values())
    assert seconds_left(*account, stages=stages, clips=10, reach=reach, wall_s=busy_s) == pytest.approx(wanted)
    # Two workers need half the time.
    assert seconds_left(*account, stages=stages, clips=10, reach=reach, wall_s=busy_s / 2) == pytest.approx(wanted / 2)


def test_nothing_is_said_of_the_time_left_before_anything_is_known() -> None:
    assert seconds_left({}, {}, stages=[["a"]], clips=10, reach={}, wall_s=1) is None


@pytest.mark.parametrize(
    ("quiet", "terminal", "is_silent"), [(True, True, True), (True, False, True), (False, True, False)]
)
def test_json_output_is_disturbed_by_nothing(quiet: bool, terminal: bool, is_silent: bool) -> None:
    live, out = progress(quiet=quiet, terminal=terminal)
    with live:
        live.begin_phase(1, 1, 8, 0)
        live.done(report(0, 4))
    assert (out.getvalue() == "") is is_silent
