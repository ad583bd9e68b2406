"""Whether a run learns the same in bfloat16, compiled, and in float8: its loss on the rendered set, step by step.

    nice python benchmarks/precision.py --work build/precision

Each way trains the depth tower of `pipelines/train/learning.yaml` from the same weights on the same batches, on the
CPU, where float8 is emulated: the roundings are those of a GPU, the speed is not. Prints the mean loss of each tenth of
the steps, the R@1 of text to depth and back among held-out clips of known scenes, evaluated without float8, and the CPU
time of the run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from distillation import recall, trained
from figures import log, options, show
from learning import QUICK_SET, ROOT

SET = ("--clips", "320", "--scenes", "64", "--size", "48", "--workers", "1")
STEPS = 60
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, compiled": {"compile": True},
    "bf16": {"precision": "bf16"},
    "bf16, compiled": {"precision": "bf16", "compile": True},
    "float8": {"precision": "bf16", "float8": True},
    "float8, compiled": {"precision": "bf16", "float8": True, "compile": True},
    "lora, fp32": {"tune": "lora"},
    "lora, bf16": {"tune": "lora", "precision": "bf16"},
}


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    events = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["event"] == "step"]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, help="folder of the set and the runs, resumed if they are there")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    given = parser.parse_args()
    # To compile takes a minute.
    ways = ["fp32", "bf16", "float8"] if given.quick else given.ways
    if find_spec("torchao") is None:
        log("without float8: pip install 'vidal[float8]'")
        ways = [way for way in ways if not way.startswith("float8")]
    change = {"batch_size": 8, "steps": 10} if given.quick else {"steps": STEPS}
    figures: dict[str, Any] = {}
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch if given.quick else ROOT / "build" / "precision")).resolve()
        if not (work / "set" / "dataset.json").exists():
            work.mkdir(parents=True, exist_ok=True)
            tool = [sys.executable, "-m", "tools.rendering.learning_set", "--out", work / "set"]
            made = [*tool, *(QUICK_SET if given.quick else SET)]
            subprocess.run(made, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for way in ways:
            before = cpu_s()
            run = trained(work, way.replace(", ", "-"), "depth", **change, **WAYS[way])
            spent, curves[way] = cpu_s() - before, losses(run)
            tenths = [float(part.mean()) for part in np.array_split(np.asarray(curves[way]), 10)]
            figures[way] = {"loss": tenths, "R@1": recall(run, work, "depth")["known scenes"], "cpu_s": spent}
            log(f"{way}: {figures[way]}")
    for way in ways[1:]:
        if way == "lora, fp32":
            continue
        plain = "lora, fp32" if way == "lora, bf16" and "lora, fp32" in ways else ways[0]
        apart = np.abs(np.asarray(curves[way]) - np.asarray(curves[plain]))
        figures[f"{way}, apart from {plain}"] = {"mean": float(apart.mean()), "largest": float(apart.max())}
    show(figures, as_json=given.json)


def cpu_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    main()
