"""`vidal eval`: retrieval and zero-shot metrics of a trained run, alongside those of its untrained towers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.table import Table

import vidal
from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.assemble import build_encoder
from vidal.train.data.rows import Broken, Indices
from vidal.train.data.text_views import TextViews
from vidal.train.distributed import world
from vidal.train.evaluate.clips import choose, embed, embed_all_texts, of_clips
from vidal.train.evaluate.retrieval import retrieval
from vidal.train.evaluate.zero_shot import labels_of, read_class_names, read_templates, zero_shot
from vidal.train.preprocessing import transforms_for, transforms_of
from vidal.train.run_folder import RunFolder
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import joined, load_encoder, run_of

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
                f"{row['baseline']['R@1']:.1%}" if "baseline" in row else "",
            )  # fmt: skip
        yield table
        for modality, row in self.zero_shot.items():
            yield (
                f"zero-shot by {modality}: top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%} of {row['classes']} "
                "classes" + (f" (untrained {row['baseline']['top1']:.1%})" if "baseline" in row else "")
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
    checkpoints: Sequence[str], data: str, *, where: str | None = None, split: Split = "auto",
    one_per_caption: bool = False, max_clips: int | None = None, views: TextViews | None = None,
    classes: str | None = None, class_names: Path | None = None, templates: Path | None = None, workers: int = 0,
    device: str = "auto",
) -> Evaluation:  # fmt: skip
    """Evaluate a training run, an encoder folder or hub id, or several of these with one text tower, on a dataset.

    ``RUN@best`` is a run's best checkpoint. A run is compared with its untrained encoder. ``auto`` selects the held-out
    part of a dataset that the run was trained on, and all of any other. ``views`` are the texts to retrieve by; those
    of the run's recipe, or captions, by default. ``classes`` names a manifest column for zero-shot classification,
    ``class_names`` a file of all classes, ``templates`` one of prompts. Under torchrun the ranks share the work.

    Raises `ModelError` for an encoder that cannot be loaded, `SourceError` if there is nothing to evaluate.
    """
    subject = _Subject.load(checkpoints)
    samples = vidal.open(data, where=where)
    if classes is not None:
        samples.check_column(classes, "--classes")
    part, numbers = part_of(subject.folder, samples, split)
    clips = choose(
        samples, numbers.tolist(), views or subject.views, one_per_caption=one_per_caption, max_clips=max_clips
    )
    wanted = list(clips.captions)
    labels: dict[int, str] = {}
    if classes is not None:
        names = read_class_names(class_names) if class_names else None
        prompts = read_templates(templates) if templates else None
        labels, classes_of = labels_of(samples, numbers.tolist(), classes, names)
        # Clips without a text count here, too.
        wanted = sorted({*wanted, *labels})
    with world(device) as here, torch.inference_mode():
        encoders = [encoder.to(here.device).eval() for encoder in subject.encoders]
        sides = embed(
            encoders, samples, wanted, subject.transforms, workers=workers, is_bf16=subject.is_bf16 and here.is_gpu
        )
        tables, accuracies = [], []
        for k, encoder in enumerate(encoders):
            texts = embed_all_texts(encoder.encode_texts, clips.texts())
            tables.append(retrieval(clips, of_clips(clips, sides, k), texts, subject.trained_pairs))
            if classes is not None:
                rows = {modality: (side.numbers, side.rows[k]) for modality, side in sides.items()}
                accuracies.append(zero_shot(rows, encoder.encode_texts, labels, classes_of, templates=prompts))
    for table in (tables, accuracies):
        for name, row in table[0].items() if len(table) > 1 else ():
            row["baseline"] = {key: value for key, value in table[1][name].items() if key != "trained"}
    return Evaluation(
        figures=tables[0], split=part, clips=len(clips.captions), zero_shot=accuracies[0] if accuracies else {},
        broken=[broken for side in sides.values() for broken in side.broken],
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is evaluated."""

    encoders: list[Encoder]
    """The encoder, and the one of a run before its first step."""
    transforms: dict[str, Transform]
    views: TextViews
    trained_pairs: set[str]
    folder: RunFolder | None = None
    """The folder of a training run."""
    is_bf16: bool = False

    @classmethod
    def load(cls, checkpoints: Sequence[str]) -> _Subject:
        run = run_of(checkpoints[0]) if len(checkpoints) == 1 else None
        if run is None:
            encoders = {checkpoint: load_encoder(checkpoint) for checkpoint in checkpoints}
            transforms = {m: t for encoder in encoders.values() for m, t in transforms_for(encoder).items()}
            trained = {pair for encoder in encoders.values() for pair in encoder.logit_scale}
            return cls(encoders=[joined(encoders)], transforms=transforms, views=TextViews(), trained_pairs=trained)
        folder = RunFolder(run[0])
        recipe = folder.read().settings()
        # As in the run: another number of threads adds floats in another order.
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        encoder = load_encoder(checkpoints[0])
        return cls(
            encoders=[encoder, build_encoder(recipe)], transforms=transforms_of(recipe.transforms, encoder),
            views=recipe.text.views, trained_pairs=set(encoder.logit_scale), folder=folder,
            is_bf16=recipe.precision == "bf16",
        )  # fmt: skip


def part_of(folder: RunFolder | None, samples: Samples, split: Split) -> tuple[str, Indices]:
    """Return the resolved name of the split, and the indices of its samples, by the run's record of each clip.

    Without a run, ``auto`` is all. Raises `SourceError` for a part without clips, or of no run.

    After a dataset was rebuilt, clips that the run never saw are in neither part: they may be near-duplicates of clips
    that it trained on.
    """
    if split == "all" or (split == "auto" and folder is None):
        return "all", np.arange(len(samples))
    if folder is None:
        raise SourceError(f"--split {split}: only one training run has such a part")
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
