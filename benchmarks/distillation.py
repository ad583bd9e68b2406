"""Whether distillation pays: students of video in few steps, with and without a teacher of depth, on the rendered set.

    nice python benchmarks/distillation.py --work build/distillation

The teacher is trained on depth in more steps, and its embeddings are stored once. Each student is trained on video in
the same few steps, from the same weights and on the same batches, for each seed and weight of the teacher. Prints R@1,
the mean of text to video and video to text, among held-out clips of known scenes and among clips of held-out scenes.
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
from learning import PARTS, QUICK_SET, ROOT, vidal

SET = ("--clips", "800", "--scenes", "64", "--workers", "1")
TEACHER_STEPS, STUDENT_STEPS, WEIGHTS, SEEDS = 150, 50, (0.0, 0.5, 0.9), (0, 1, 2)


def recipe(work: Path, modality: str, tune: str = "full", **change: Any) -> Path:
    """The recipe of `pipelines/train/learning.yaml` with one tower."""
    learning = yaml.safe_load((ROOT / "pipelines" / "train" / "learning.yaml").read_text())
    towers = {modality: learning["towers"][modality] | {"tune": tune}}
    path = work / f"{modality}.yaml"
    path.write_text(yaml.safe_dump({**learning, "epochs": None, "towers": towers, "threads": 1, **change}))
    return path


def trained(work: Path, name: str, modality: str, **change: Any) -> Path:
    """A run, which is resumed if it is there."""
    given = recipe(work, modality, **change)
    vidal("train", given, "--data", work / "set", "--out", work / name, "--resume", "--where", "not scene_is_held_out")
    return work / name


def recall(run: Path, work: Path, modality: str) -> dict[str, float]:
    """R@1 by part."""
    told = {
        part: json.loads(vidal("eval", run, "--data", work / "set", *which, "--json")) for part, which in PARTS.items()
    }
    return {
        part: (rows[f"text_to_{modality}"]["R@1"] + rows[f"{modality}_to_text"]["R@1"]) / 2
        for part, rows in told.items()
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, help="folder of the set and the runs, resumed if they are there")
    given = parser.parse_args()
    steps, seeds, weights = (STUDENT_STEPS, SEEDS, WEIGHTS) if not given.quick else (2, SEEDS[:1], WEIGHTS[1:2])
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch if given.quick else ROOT / "build" / "distillation")).resolve()
        tool = [sys.executable, "-m", "tools.rendering.learning_set", "--out", work / "set"]
        if not (work / "set" / "dataset.json").exists():
            work.mkdir(parents=True, exist_ok=True)
            made = [*tool, *(QUICK_SET if given.quick else SET)]
            subprocess.run(made, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        change = {"batch_size": 8} if given.quick else {}
        teacher = trained(work, "teacher", "depth", steps=2 if given.quick else TEACHER_STEPS, **change)
        views = ("--views", "caption,video_caption")
        vidal("reinforce", work / "set", "--checkpoint", teacher, *views)
        figures["teacher, depth"] = recall(teacher, work, "depth")
        for seed in seeds:
            for weight in weights:
                distil = {"teachers": ["teacher"], "weight": weight, "instead": {"video": "depth"}}
                student = trained(
                    work, f"student-{weight}-{seed}", "video", steps=steps, seed=seed,
                    distil=distil if weight else None, **change,
                )  # fmt: skip
                figures[f"video, weight {weight}, seed {seed}"] = recall(student, work, "video")
                log(f"weight {weight}, seed {seed}: {figures[f'video, weight {weight}, seed {seed}']}")
    for weight in weights:
        of_seeds = [figures[f"video, weight {weight}, seed {seed}"] for seed in seeds]
        figures[f"video, weight {weight}, mean"] = {p: sum(row[p] for row in of_seeds) / len(seeds) for p in PARTS}
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
