"""What an ablation found: each arm's retrieval, its difference to the first arm, its cost, and the arm to choose."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel
from rich.table import Table

from vidal.ablate.arms import Design
from vidal.ablate.queries import Queries
from vidal.ablate.score import Answered
from vidal.ablate.statistics import Difference, difference, recall
from vidal.errors import OutputError

_MOST_BESIDE = 4
"""Directions with columns of their own in the table of the arms, which a terminal has no room for more of."""


class Scored(BaseModel):
    """One finished run: an arm with a seed."""

    directions: dict[str, Answered]
    """By direction (``text_to_depth``)."""
    cpu_s: float | None
    """Processor time of the training; None of a run that was resumed."""
    gpu_s: float | None
    """Wall time on a GPU; None without one, and of a run that was resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm over all seeds."""

    clips: int
    """Clips that it trained on."""
    passes: float
    """How often each pair saw a clip, on average over clips."""
    recall: dict[str, float]
    """R@1 by direction, the mean over seeds."""
    mean_recall: float
    """The mean over directions."""
    by_seed: list[float]
    """``mean_recall`` of each seed."""
    difference: Difference | None
    """Of ``mean_recall`` to the first arm's; None for the first arm."""
    differences: dict[str, Difference]
    """By direction."""
    cpu_s: float | None
    """Processor time of a run, the median over seeds that were trained without a break."""
    gpu_s: float | None
    """Wall time of a run on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """The arms, the first one first."""

    arms: dict[str, ArmResult]
    seeds: int
    held_out: int
    """Evaluated clips."""
    units: int
    """Groups of clips that share a text or are near-duplicates: what the bootstrap resamples."""
    steps: int
    batch_size: int

    @property
    def chosen(self) -> str:
        """The arm of the highest mean R@1 among those whose interval is above zero; the first arm if there is none."""
        better = {name: arm.mean_recall for name, arm in self.arms.items() if arm.difference and arm.difference.low > 0}
        return max(better, key=lambda name: better[name]) if better else next(iter(self.arms))

    def chosen_recipe(self, design: Design) -> str:
        """Return the recipe of the chosen arm as YAML; which data it trains on is a comment."""
        training = design.trainings[self.chosen]
        where = f' --where "{" ".join(training.where.split())}"' if training.where else ""
        recipe = yaml.safe_dump(training.recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        data = " ".join(" ".join(address.split()) for address in training.data)
        return f"# Arm {self.chosen} of an ablation. Its data: --data {data}{where}\n{recipe}"

    def lines(self) -> Iterator[str | Table]:
        table = Table(
            title=f"{self.held_out} held-out clips, {self.seeds} seeds, {self.steps} steps of {self.batch_size} clips"
        )
        directions = list(next(iter(self.arms.values())).recall)
        unit = "GPU s" if any(arm.gpu_s is not None for arm in self.arms.values()) else "CPU s"
        beside = directions if len(directions) <= _MOST_BESIDE else []
        for column in ("arm", "mean R@1", "to the first (95 %)", *(d.replace("_", " ") for d in beside)):
            table.add_column(column)
        for column in ("clips", "passes", f"{unit} a run"):
            table.add_column(column, justify="right")
        for name, arm in self.arms.items():
            cost, to_first = arm.gpu_s if arm.gpu_s is not None else arm.cpu_s, ""
            if found := arm.difference:
                to_first = f"{found.mean * 100:+.1f} ({found.low * 100:+.1f} to {found.high * 100:+.1f})"
            table.add_row(
                name, f"{arm.mean_recall:.1%}", to_first,
                *(f"{arm.recall[d]:.1%}" for d in beside), f"{arm.clips:,}", f"{arm.passes:.1f}",
                f"{cost:,.0f}" if cost is not None else "",
            )  # fmt: skip
        yield table
        if not beside:
            below = Table("R@1", *self.arms)
            for direction in directions:
                below.add_row(
                    direction.replace("_", " "), *(f"{arm.recall[direction]:.1%}" for arm in self.arms.values())
                )
            yield below
        if self.seeds == 1:
            yield "one seed: intervals are over held-out clips alone; with --seeds 3 and more also over trainings"
        yield f"chosen: {self.chosen}"

    def as_json(self) -> dict[str, Any]:
        return {
            "arms": {name: asdict(arm) for name, arm in self.arms.items()}, "chosen": self.chosen, "seeds": self.seeds,
            "held_out": self.held_out, "units": self.units, "steps": self.steps, "batch_size": self.batch_size,
        }  # fmt: skip


def compare(
    design: Design, scored: Mapping[str, Sequence[Scored]], clips: Mapping[str, int], queries: Queries
) -> Ablation:
    """Compare the runs of all arms over the directions that the recipe trains; each has as many seeds.

    Raises `OutputError` where runs answered different queries.
    """
    base = design.base
    directions = [f"{a}_to_{b}" for pair in base.pair_settings() for a, b in (pair, pair[::-1])]
    every = {name: [[run.directions[d] for d in directions] for run in runs] for name, runs in scored.items()}
    counts = {tuple(tuple(hits.queries) for hits in run) for runs in every.values() for run in runs}
    if len(counts) > 1:
        raise OutputError("the runs answered different queries: held-out clips became unreadable; choose another --out")
    asked = np.asarray(counts.pop(), np.float64)
    hits = {name: np.asarray([[h.hits for h in run] for run in runs], np.float64) for name, runs in every.items()}
    first = next(iter(hits))
    arms = {}
    for name, of_arm in hits.items():
        by_direction = recall(of_arm, asked)
        is_first = name == first
        arms[name] = ArmResult(
            clips=clips[name], passes=(base.steps or 0) * base.batch_size / len(base.loss_weights()) / clips[name],
            recall=dict(zip(directions, by_direction.mean(axis=0).tolist(), strict=True)),
            mean_recall=float(by_direction.mean()), by_seed=by_direction.mean(axis=1).tolist(),
            difference=None if is_first else difference(of_arm, hits[first], asked),
            differences={} if is_first else {
                direction: difference(of_arm[:, [d]], hits[first][:, [d]], asked[[d]])
                for d, direction in enumerate(directions)
            },
            cpu_s=_median([run.cpu_s for run in scored[name]]), gpu_s=_median([run.gpu_s for run in scored[name]]),
        )  # fmt: skip
    return Ablation(
        arms=arms, seeds=len(scored[first]), held_out=len(queries.units), units=len(set(queries.units.values())),
        steps=base.steps or 0, batch_size=base.batch_size,
    )  # fmt: skip


def _median(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return statistics.median(known) if known else None
