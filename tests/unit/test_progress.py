"""The progress line adds up, whatever order the counts come in."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vidal.engine.job import ShardReport
from vidal.engine.progress import LiveProgress


def report(shard: int, kept: int, rejected: int = 0, failed: int = 0, **seconds: float) -> ShardReport:
    return ShardReport(shard=shard, kept=kept, rejected=rejected, failed=failed, seconds=seconds)


def progress(*, quiet: bool = False, terminal: bool = False) -> tuple[LiveProgress, io.StringIO]:
    out = io.StringIO()
    return LiveProgress(Console(file=out, force_terminal=terminal, width=200), quiet=quiet), out


def counts(line: str) -> list[str]:
    return line.split(" · ")[:4]


def test_shards_under_way_and_done_are_counted_once_each() -> None:
    live, _ = progress()
    with live:
        live.begin_phase(1, 1, 100, 10)
        assert counts(live.line()) == ["building: 10/100 done", "0 kept", "0 rejected", "0 failed"]
        live.update(report(0, 3))
        live.update(report(0, 5, 1))
        live.update(report(1, 1, 0, 2))
        assert counts(live.line()) == ["building: 19/100 done", "6 kept", "1 rejected", "2 failed"]
        live.done(report(0, 7, 1))
        assert counts(live.line()) == ["building: 21/100 done", "8 kept", "1 rejected", "2 failed"]
        # A count that was on its way when the shard itself arrived.
        live.update(report(0, 6, 1))
        assert counts(live.line()) == ["building: 21/100 done", "8 kept", "1 rejected", "2 failed"]


def test_a_new_phase_starts_from_what_is_there() -> None:
    live, _ = progress()
    with live:
        live.begin_phase(1, 2, 8, 0)
        live.done(report(0, 8))
        live.begin_phase(2, 2, 8, 4)
        assert counts(live.line()) == ["phase 2/2: 4/8 done", "0 kept", "0 rejected", "0 failed"]
        live.update(report(0, 1))
        assert counts(live.line())[0] == "phase 2/2: 5/8 done"


def test_the_slowest_stage_is_named_with_its_share() -> None:
    live, _ = progress()
    with live:
        live.begin_phase(1, 1, 8, 0)
        live.done(report(0, 4, depth=3.0, ocr=1.0))
        live.update(report(1, 4, depth=0.0, ocr=4.0))
        assert live.line().endswith("slowest: ocr (62%)")


@pytest.mark.parametrize(
    ("quiet", "terminal", "is_silent"), [(True, True, True), (True, False, True), (False, True, False)]
)
def test_json_output_is_disturbed_by_nothing(quiet: bool, terminal: bool, is_silent: bool) -> None:
    live, out = progress(quiet=quiet, terminal=terminal)
    with live:
        live.begin_phase(1, 1, 8, 0)
        live.done(report(0, 4))
    assert (out.getvalue() == "") is is_silent
