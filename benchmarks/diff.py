"""Time and memory of `vidal diff` over two datasets of 100,000 and of a million rows.

    python benchmarks/diff.py [--clips 100000 1000000]

The datasets are manifests only; all eight numbers differ between the two, and a tenth of the clips is rejected.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import options, show
from view import write


def measure(before: Path, after: Path) -> dict[str, float]:
    """Run the command in a process of its own, as memory is never given back."""
    # A process's own peak, and not that of all children that have ended.
    code = (
        "import resource, sys; from vidal.commands import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "diff", before, after, "--json"], capture_output=True, text=True, check=True
    )
    took_s = time.perf_counter() - begun
    shifted = [shift["column"] for shift in json.loads(done.stdout)["shifts"] if shift["distance"] > 0]
    peak_kib = int(re.findall(r"\d+", done.stderr)[-1])
    return {"diff_s": took_s, "peak_mib": peak_kib / 1024, "numbers_shifted": len(shifted)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000])
    args = parser.parse_args()
    figures = {}
    for clips in [2000] if args.quick else args.clips:
        with tempfile.TemporaryDirectory() as folder:
            sides = [Path(folder, side) for side in ("before", "after")]
            for seed, side in enumerate(sides):
                write(side, clips, seed)
            figures |= {f"{name}_{clips}": value for name, value in measure(*sides).items()}
    show(figures, as_json=args.json)


if __name__ == "__main__":
    main()
