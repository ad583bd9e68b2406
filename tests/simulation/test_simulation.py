"""Seeded schedules of processes that build, rewrite and read one dataset, over a store that fails them.

`make simulate SEED=… SCHEDULES=…` plays others; a schedule that breaks a promise is printed with the command that plays
it again, request by request.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.simulation.planted import FAULTS
from tests.simulation.schedule import play


def broken(seed: int, schedules: int) -> list[str]:
    played = (play(seed, number) for number in range(schedules))
    return [f"{each.command}: {each.faults}" for each in played if each.faults]


def test_no_schedule_breaks_a_promise_of_the_commit() -> None:
    assert broken(seed=1, schedules=500) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nor_does_one_of_ten_thousand() -> None:
    assert broken(seed=2, schedules=10_000) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_within_a_thousand_schedules(name: str) -> None:
    fault = FAULTS[name]
    with fault.plant():
        played = (play(fault.seed, number) for number in fault.among)
        assert any(re.search(fault.says, line) for each in played for line in each.faults)


def test_a_schedule_is_a_function_of_its_seed() -> None:
    """Whatever has run before it, and whatever order the process gives to sets."""
    again = "from tests.simulation.schedule import play; print('\\n'.join(play(3, 19).log))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", again], env={"PYTHONHASHSEED": "5", "PATH": ""}, cwd=ROOT, capture_output=True, text=True
    )
    log = play(3, 19).log
    assert len(log) > 100
    assert elsewhere.stdout.splitlines() == log == play(3, 19).log
    assert play(3, 29).log != log
