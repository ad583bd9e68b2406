"""`vidal eval`: retrieval and zero-shot metrics of a trained run, alongside those of its untrained towers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.table import Table

import vidal
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken, Indices
from vidal.train.evaluate.retrieval import retrieval
from vidal.train.evaluate.zero_shot import read_templates, zero_shot
from vidal.train.preprocessing import transforms_of
from vidal.train.run import build_encoder
from vidal.train.run_folder import RunFolder
from vidal.train.towers.load import load_encoder

Split = Literal["auto", "held_out", "train", "all"]


@dataclass(slots=True, kw_only=True)
class Evaluation:
    """The metrics of a run; each row has those of the untrained encoder under ``baseline``."""

    figures: dict[str, dict[str, Any]]
    """Retrieval metrics by direction (``text_to_depth``)."""
    split: str
    """The part of the dataset that was evaluated: ``held_out``, ``train`` or ``all``."""
    clips: int
    """Clips that were evaluated."""
    zero_shot: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Classification metrics by modality; empty without a column of classes."""
    broken: list[Broken] = field(default_factory=list)
    """Samples that could not be read."""

    def lines(self) -> Iterator[str | Table]:
        table = Table(title=f"{self.clips} clips, {self.split.replace('_', ' ')}")
        for column in ("direction", "", "R@1", "R@5", "R@10", "median rank", "n", "untrained R@1"):
            table.add_column(column)
        # Trained directions first; sorting is stable.
        for name, row in sorted(self.figures.items(), key=lambda item: not item[1]["trained"]):
            low, high = row["ci95_R@1"]
            table.add_row(
                name.replace("_", " "), "" if row["trained"] else "emergent",
                f"{row['R@1']:.1%} ({low:.0%}-{high:.0%})",
                f"{row['R@5']:.1%}", f"{row['R@10']:.1%}", f"{row['median_rank']:g}", str(row["n"]),
                f"{row['baseline']['R@1']:.1%}",
            )  # fmt: skip
        yield table
        for modality, row in self.zero_shot.items():
            yield (
                f"zero-shot by {modality}: top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%} of {row['classes']} "
                f"classes (untrained {row['baseline']['top1']:.1%})"
            )
        yield from (f"skipped broken sample: {broken.clip_id} ({broken.why})" for broken in self.broken)

    def as_json(self) -> dict[str, Any]:
        return {
            **self.figures, **({"zero_shot": self.zero_shot} if self.zero_shot else {}), "split": self.split,
            "clips": self.clips, "broken": [
                {"clip_id": sample.clip_id, "dataset": sample.dataset, "why": sample.why} for sample in self.broken
            ],
        }  # fmt: skip


def evaluate(
    run: str, data: str, *, where: str | None = None, split: Split = "auto", one_per_caption: bool = False,
    max_clips: int | None = None, classes: str | None = None, templates: Path | None = None, workers: int = 0,
) -> Evaluation:  # fmt: skip
    """Evaluate a run on a dataset.

    ``auto`` selects the held-out part of a dataset that the run was trained on, and all of any other. ``classes`` names
    a manifest column for zero-shot classification, ``templates`` a file of prompts. Raises `OutputError` if ``run`` is
    no training run, `SourceError` if there is nothing to evaluate.
    """
    recipe = RunFolder(run).read().settings()
    # As in the run: another number of threads adds floats in another order.
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    trained, untrained = load_encoder(run), build_encoder(recipe).eval()
    transforms = transforms_of(recipe.transforms, trained)
    samples = vidal.open(data, where=where)
    if classes is not None:
        samples.check_column(classes, "--classes")
    part, numbers = _part(RunFolder(run), samples, split)
    results = [
        retrieval(
            encoder, samples, numbers.tolist(), transforms, recipe.text.views, one_per_caption=one_per_caption,
            max_clips=max_clips, workers=workers,
        )
        for encoder in (trained, untrained)
    ]  # fmt: skip
    figures = {name: {**row, "baseline": results[1].figures[name]} for name, row in results[0].figures.items()}
    for row in figures.values():
        row["baseline"].pop("trained")
    evaluation = Evaluation(figures=figures, split=part, clips=results[0].clips, broken=results[0].broken)
    if classes is not None:
        prompts = read_templates(templates) if templates else None
        rows, baseline = (
            zero_shot(encoder, samples, numbers.tolist(), transforms, classes, templates=prompts, workers=workers)
            for encoder in (trained, untrained)
        )
        evaluation.zero_shot = {modality: {**row, "baseline": baseline[modality]} for modality, row in rows.items()}
    return evaluation


def _part(folder: RunFolder, samples: Samples, split: Split) -> tuple[str, Indices]:
    """The resolved name of the split, and the indices of its samples, by the run's record of each clip.

    After a dataset was rebuilt, clips that the run never saw are in neither part: they may be near-duplicates of clips
    that it trained on.
    """
    if split == "all":
        return split, np.arange(len(samples))
    recorded = folder.split()
    held = [recorded.get(samples.clip_id(i)) for i in range(len(samples))]
    if split == "auto":
        is_known, holds_out = any(one is not None for one in held), any(recorded.values())
        if not (is_known and holds_out):
            return "all", np.arange(len(samples))
        split = "held_out"
    numbers = np.asarray([i for i, one in enumerate(held) if one is (split == "held_out")], np.int64)
    if not len(numbers):
        raise SourceError(
            f"{samples.address}: none of {len(samples)} clips is in the run's {split} part; try --split all"
        )
    return split, numbers
