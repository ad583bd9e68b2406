"""A governor by a clock of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.crawl.clocked import Clock
from vidal.crawl.governor import Governor


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(tmp_path: Path, clock: Clock) -> Governor:
    return Governor(tmp_path, clock=clock)
