"""The memory of planning hardly grows with the number of candidates: what is not needed lies in temporary files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

_PLAN = """
import resource, sys
from pathlib import Path
from vidal import listing, rows
from vidal.dataset import plan, planning
from vidal.dataset.storage import Storage
from vidal.sources.list import ListSource

# Small, so that a small list has many of them.
listing.PART_ROWS = rows.PART_ROWS = planning._BUCKET_ROWS = 4_000
made = planning.make(ListSource(list=sys.argv[1]).candidates(), shard_size=128, seed=0)
plan.write(Storage(str(Path(sys.argv[1]).parent)), made, 128)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

# All that `vidal grow` does but the shards themselves, which are made one at a time: what is known, the plan of the new
# candidates, and the plan of both.
_GROW = """
import resource, sys
from pathlib import Path
from tests.runs import LETTERS, Silence, run, write_recipe
from vidal import listing, rows
from vidal.dataset import planning
from vidal.dataset.dataset import Dataset
from vidal.revisions import grow
from vidal.engine.driver import Run
from vidal.engine.local import InProcessEngine

listing.PART_ROWS = rows.PART_ROWS = planning._BUCKET_ROWS = 4_000
folder = Path(sys.argv[1]).parent
run(write_recipe(folder, [LETTERS], 4), folder / "out", InProcessEngine())

class Planned(Exception):
    pass

class UntilPlanned(InProcessEngine):
    def run(self, *_):
        raise Planned

base, source = Dataset.open(str(folder / "out")), ["list=" + sys.argv[1]]
try:
    grow.grow(Run(grow.load(base, source, []), base.storage, UntilPlanned(), Silence()), base, source)
except Planned:
    grow._begin(base, Dataset.at(base.storage.child("revisions/1/grown")), 1, "vidal grow")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(folder: Path, candidates: int, kind: str, script: str = _PLAN) -> float:
    """Return the peak memory of a process that plans a list of which each candidate has 2 KB of text."""
    folder.mkdir()
    row = {"csv": "https://example.org/{},{}\n", "jsonl": '{{"url": "https://example.org/{}", "own": "{}"}}\n'}[kind]
    with (folder / f"list.{kind}").open("w") as file:
        # Not joined first: a child's peak is at least what its parent had when it was started.
        file.write("url,title\n" if kind == "csv" else "")
        file.writelines(row.format(n, f"{n:08d}{'title' * 400}") for n in range(candidates))
    command = [sys.executable, "-c", script, str(folder / f"list.{kind}")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_four_times_as_many_candidates_need_hardly_more_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    few, many = peak_mb(tmp_path / "few", 15_000, kind), peak_mb(tmp_path / "many", 60_000, kind)
    # Their texts alone are 90 MB more.
    assert many - few < 60, (few, many)


def test_nor_does_growing_by_four_times_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    few, many = (peak_mb(tmp_path / str(count), count, "jsonl", _GROW) for count in (15_000, 60_000))
    assert many - few < 60, (few, many)
