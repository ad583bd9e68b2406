"""What every test may use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample clips."""
    return ROOT / "samples" / "clips"
