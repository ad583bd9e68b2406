"""CPU of starting: what a user waits for before anything is done.

    python benchmarks/start.py [--repeat 5]

User and system time of a fresh process, the median of several; a process is run once before, so that files are in
memory and compiled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from figures import cpu_s, options, show, spread

TARGETS_S = {"import vidal": 0.3, "import vidal.build": 2.0, "vidal --help": 0.7, "vidal status DIR": 1.5}


def commands(dataset: Path) -> dict[str, list[str]]:
    python = [sys.executable, "-c"]
    return {
        "import vidal": [*python, "import vidal"],
        "import vidal.build": [*python, "import vidal.build"],
        "vidal --help": [sys.executable, "-m", "vidal", "--help"],
        "vidal status DIR": [sys.executable, "-m", "vidal", "status", str(dataset)],
    }


def build(folder: Path) -> Path:
    """A dataset of one candidate that is not there, which is as good to ask for its status as any."""
    (folder / "list.csv").write_text("url\nnone.mp4\n")
    (folder / "recipe.yaml").write_text("source: {list: list.csv}\nstages: [fetch, probe]\n")
    command = [sys.executable, "-m", "vidal", "build", "recipe.yaml", "--out", "out", "--engine", "local"]
    # It fails, with its only candidate; the dataset is there all the same.
    done = subprocess.run([*command, "--workers", "0"], cwd=folder, capture_output=True, text=True)
    assert (folder / "out" / "dataset.json").is_file(), done.stderr
    return folder / "out"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    repeat = 1 if args.quick else args.repeat
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands(build(Path(folder))).items():
            if not args.quick:
                cpu_s(command)
            figures[f"{name}, CPU s"] = spread([cpu_s(command) for _ in range(repeat)])
            if not args.quick:
                figures[f"{name}, target s"] = TARGETS_S[name]
    show(figures, as_json=args.json)


if __name__ == "__main__":
    main()
