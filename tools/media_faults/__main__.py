"""Measures 1,000 corrupted films on all cores and writes the page docs/media-faults.md (210 s of CPU)."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tools.media_faults.measure import COPIES, measure
from tools.media_faults.page import PAGE, page

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m tools.media_faults", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(measure(Path(folder), range(COPIES), os.cpu_count() or 1)), encoding="utf-8")
