"""The arms of an ablation: a YAML file of what each changes in the training recipe, or in the data.

arms:
  baseline: {}
  filtered: {where: "match_score > 0.3"}
  rewritten: {set: {text.views: caption}}
  other-depth: {data: data/other-depth}
evaluate: {where: "not caption_is_wrong", views: caption}

The first arm is the one that the others are compared with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from vidal.errors import RecipeError
from vidal.settings import read_yaml, validate
from vidal.train import recipe as recipes
from vidal.train.data.text_views import TextViews
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.settings import Settings

_SAME = ("steps", "batch_size", "seed", "pairs_per_step", "eval", "init_from")
"""Settings that no arm may change: with them, arms would differ in how much they are trained, too."""


class Arm(Settings):
    """What one arm changes."""

    where: str | None = None
    """Condition on manifest columns, besides the one for all arms: the clips to train on."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training recipe: ``{text.views: caption}``."""
    data: list[str] | None = None
    """Datasets to train on; by default those of --data."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class EvaluatedOn(Settings):
    """The held-out clips, and the texts to retrieve by; the same for every arm."""

    data: str | None = None
    """Dataset of the clips. Of one that an arm trains on, the share ``data.heldout`` of the recipe is held out; by
    default the first one of --data."""
    where: str | None = None
    """Condition on the clips, such as captions that a person has checked."""
    views: TextViews | None = None
    """Texts to retrieve by; by default those of the recipe."""
    max_clips: int = Field(1000, ge=2)
    """Evaluate on at most so many clips."""


class Arms(Settings):
    """The contents of the file."""

    arms: dict[str, Arm] = Field(min_length=2)
    """The arms by name."""
    evaluate: EvaluatedOn = EvaluatedOn()
    """What all arms are evaluated on."""

    @field_validator("arms")
    @classmethod
    def _names_of_folders(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for name in arms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(f"arm `{name}`: a name has letters, digits, - and _ only, as it becomes a folder's")
        return arms


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What an arm trains with."""

    recipe: TrainRecipe
    where: str | None
    data: tuple[str, ...]
    overrides: tuple[str, ...]
    """What the arm and the command line set in the recipe, as ``key=value``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """An ablation, read and checked."""

    base: TrainRecipe
    """The recipe before any arm changes it."""
    trainings: dict[str, Training]
    """By the name of the arm, the first one first."""
    evaluate: EvaluatedOn


def design(
    recipe: Path, arms: Path, data: Sequence[str], *, where: str | None = None, overrides: Sequence[str] = (),
    steps: int | None = None,
) -> Design:  # fmt: skip
    """Read a training recipe and the arms; ``steps`` replaces the recipe's length.

    Raises `RecipeError` for an arm whose length, batch or seed would differ, or that lacks a pair of the recipe, and
    for a recipe without ``steps``.
    """
    told = validate(Arms, read_yaml(arms, "`arms`"), str(arms))
    common = [*overrides, *([f"steps={steps}", "epochs=null"] if steps is not None else [])]
    base = recipes.load(recipe, common)
    if base.steps is None:
        raise RecipeError(f"{recipe}: every arm has the same number of steps; give it by --steps in place of `epochs`")
    trainings = {}
    for name, arm in told.arms.items():
        # JSON is YAML.
        own = [*common, *(f"{key}={json.dumps(value)}" for key, value in arm.set.items())]
        try:
            changed = recipes.load(recipe, own)
        except RecipeError as error:
            raise RecipeError(f"{arms}: arm {name}: {error}") from None
        _check_comparable(f"{arms}: arm {name}", base, changed)
        conditions = [f"({condition})" for condition in (where, arm.where) if condition is not None]
        trainings[name] = Training(
            recipe=changed, where=" and ".join(conditions) or None, data=tuple(arm.data or data), overrides=tuple(own)
        )
    return Design(base=base, trainings=trainings, evaluate=told.evaluate)


def _check_comparable(place: str, base: TrainRecipe, changed: TrainRecipe) -> None:
    if differing := next((name for name in _SAME if getattr(base, name) != getattr(changed, name)), None):
        raise RecipeError(f"{place}: sets `{differing}`, which is the same for all arms; set it by --set, for all")
    lacking = [pair for pair in base.pair_settings() if pair not in changed.pair_settings()]
    if lacking:
        raise RecipeError(f"{place}: does not train {'-'.join(lacking[0])}, by which arms are compared")
