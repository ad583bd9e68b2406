"""Time and peak memory of `vidal export --format lance`, by the size of the table: it is to hold a batch at a time.

    python benchmarks/export.py [--clips 220 660] [--mp4-mb 8]

The clips are those of `benchmarks/loader.py`, with 8 MB of random bytes for a video, 32 clips a shard. The command is a
process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import options, show

SHARD_SIZE = 32
# In a process of its own, too: the peak of one is at least what the one that starts it holds.
WRITE = (
    "import sys; from pathlib import Path; from loader import write_set\n"
    "write_set(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), 1)"
)


def measure(data: Path, out: Path) -> dict[str, float]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "vidal", "export", str(data), "--format", "lance", "--out", str(out)]
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    cpu_s = usage.ru_utime + usage.ru_stime
    return {
        "table_mb": size / 1e6, "s": time.perf_counter() - started, "cpu_s": cpu_s, "peak_mb": usage.ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[220, 660])
    parser.add_argument("--mp4-mb", type=float, default=8)
    given = parser.parse_args()
    sizes, mp4_bytes = ([2], 1000) if given.quick else (given.clips, int(given.mp4_mb * 1e6))
    figures = {}
    for clips in sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder, "data")
            numbers = [str(number) for number in (clips, SHARD_SIZE, mp4_bytes)]
            subprocess.run([sys.executable, "-c", WRITE, data, *numbers], check=True, cwd=Path(__file__).parent)
            figures[f"{clips}_clips"] = measure(data, Path(folder, "lance"))
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
