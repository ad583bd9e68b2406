"""The memory of planning hardly grows with the number of candidates: what is not needed lies in temporary files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def peak_mb(folder: Path, candidates: int, kind: str) -> float:
    """Return the peak memory of a process that plans a list of which each candidate has 2 KB of text."""
    folder.mkdir()
    row = {"csv": "https://example.org/{},{}\n", "jsonl": '{{"url": "https://example.org/{}", "own": "{}"}}\n'}[kind]
    with (folder / f"list.{kind}").open("w") as file:
        # Not joined first: a child's peak is at least what its parent had when it was started.
        file.write("url,title\n" if kind == "csv" else "")
        file.writelines(row.format(n, f"{n:08d}{'title' * 400}") for n in range(candidates))
    command = [sys.executable, "-c", _PLAN, str(folder / f"list.{kind}")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_four_times_as_many_candidates_need_hardly_more_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    few, many = peak_mb(tmp_path / "few", 15_000, kind), peak_mb(tmp_path / "many", 60_000, kind)
    # Their texts alone are 90 MB more.
    assert many - few < 60, (few, many)
