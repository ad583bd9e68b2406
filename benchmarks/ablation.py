"""That an ablation finds what is known to be there: noise planted in captions, and a filter that sees it imperfectly.

    python benchmarks/ablation.py --work build/ablation      the set, 42 short trainings, the figures
    python benchmarks/ablation.py --work build/ablation --plot docs/ablation.svg

On the rendered set, 30 % of the clips have another scene's texts, and 20 % are copies. `match_score` is drawn from two
normal distributions that overlap, one for right captions and one for wrong ones. Ends with 1 if an interval says
something else: that noise costs nothing, alone or with the copies, or that the filter does not pay.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from figures import log, options, show
from learning import ROOT, vidal

SEEDS = "6"
ARMS = ROOT / "benchmarks" / "ablation-arms.yaml"
RANDOM, FILTERED = "as-few-at-random", "filtered-no-copies"
FOUND = ("oracle", "clean", "filtered", "filtered-no-copies")
"""Arms that must be better than the data as they are. Copies alone are not found to cost, not on 4,800 clips either."""
SET = ("--clips", "2400", "--scenes", "64", "--size", "32")
QUICK_SET = ("--clips", "80", "--scenes", "8", "--size", "16")
QUICK_TRAINING = ("--steps", "2", "--set", "batch_size=8")


def ablation(work: Path, *, quick: bool) -> dict[str, Any]:
    """What `vidal ablate --json` prints; what is done already is not done again."""
    if not (work / "set" / "dataset.json").exists():
        tool = [sys.executable, "-m", "tools.rendering.learning_set", "--out", work / "set", "--workers", "1"]
        planted = ("--wrong", "0.3", "--copies", "0.2", *(QUICK_SET if quick else SET))
        subprocess.run([*tool, *planted], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    where = ("--data", work / "set", "--out", work / "ablation")
    seeds = ("--seeds", "1" if quick else SEEDS, *(QUICK_TRAINING if quick else ()))
    # The same runs with another arm as the first; what all arms are compared in comes last, as it leaves its plot.
    given = yaml.safe_load(ARMS.read_text())
    fair = work / "against-random.yaml"
    fair.write_text(
        yaml.safe_dump(given | {"arms": {n: given["arms"][n] for n in (RANDOM, FILTERED)}}, sort_keys=False)
    )
    against_random, told = (
        json.loads(vidal("ablate", "benchmarks/ablation-recipe.yaml", "--arms", arms, *where, *seeds, "--json"))
        for arms in (fair, ARMS)
    )
    return {**told, "against_random": against_random["arms"][FILTERED]["difference"]}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, help="folder of the set and the runs, resumed if they are there")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch if given.quick else ROOT / "build" / "ablation")).resolve()
        told = ablation(work, quick=given.quick)
        svg = (work / "ablation" / "ablation.svg").read_text()
    figures = {
        name: {"R@1": arm["mean_recall"], **(arm["difference"] or {}), "clips": arm["clips"], "CPU s": arm["cpu_s"]}
        for name, arm in told["arms"].items()
    }
    cpu_s = told["seeds"] * sum(arm["cpu_s"] for arm in told["arms"].values())
    figures["filtered-no-copies against as few at random"] = told["against_random"]
    show({**figures, "chosen": told["chosen"], "held out": told["held_out"], "CPU s": cpu_s}, as_json=given.json)
    if given.plot:
        given.plot.write_text(svg)
    lows = {name: told["arms"][name]["difference"]["low"] for name in FOUND}
    if not given.quick and min(lows.values()) <= 0:
        log(f"not found: lower ends of the intervals {lows}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
