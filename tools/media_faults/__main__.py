"""Measures 1,000 corrupted films and writes the page: ``python -m tools.media_faults`` (210 s of CPU)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tools.media_faults.measure import COPIES, measure
from tools.media_faults.page import PAGE, page

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(measure(Path(folder), range(COPIES), os.cpu_count() or 1)), encoding="utf-8")
