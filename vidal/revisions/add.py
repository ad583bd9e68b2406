"""`vidal add`: runs further stages over a finished dataset; their columns and layers become a revision of it.

The stages run over the kept clips of the current revision, shard by shard, as in any build. Existing tars are shared,
and only the members that a stage reads are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vidal import recipe as recipes
from vidal.dataset.dataset import Dataset
from vidal.engine.driver import Run, complete
from vidal.errors import RecipeError
from vidal.overrides import resolve_paths, with_overrides
from vidal.recipe import Recipe, fingerprint
from vidal.revisions.revise import begin, finish, locked, revision_at
from vidal.settings import read_yaml
from vidal.stage import digest

COMMAND = "vidal add"


def load(path: Path, overrides: Sequence[str], base: Dataset) -> Recipe:
    """Load the recipe of the stages to add, with the dataset as its source. Raises `RecipeError`."""
    raw = read_yaml(path, "`stages`")
    if odd := sorted(raw.keys() & {"source", "shards"}):
        raise RecipeError(f"{path}: remove `{odd[0]}`; source and shards are the dataset's own")
    resolve_paths(raw, path.parent)
    raw = with_overrides({**raw, "source": {"dataset": base.address}}, overrides)
    resolve_paths(raw, Path())
    raw.setdefault("name", base.info.name)
    recipe = recipes.check(raw, str(path))
    for stage in recipe.stages:
        if again := [layer for layer in stage.layers if layer in base.info.layers]:
            raise RecipeError(
                f"{path}: {stage.step_name()} writes the layer {again[0]}, which {base.address} has; build a new "
                f"dataset from it to replace the layer"
            )
    return recipe


def is_there(path: Path, overrides: Sequence[str], current: Dataset) -> bool:
    """Return whether the current revision is the result of adding this recipe's stages."""
    info = current.info
    if not info.made_by.startswith(COMMAND) or info.revision_of is None:
        return False
    before = revision_at(current.storage, info.revision_of).info.recipe.get("stages", [])
    steps = [step.identity() for step in recipes.steps_of(path, overrides)]
    return digest(info.recipe["stages"]) == digest([*before, *steps])


def add(run: Run, path: Path, base: Dataset) -> None:
    """Run the recipe's stages over the dataset and make the result its current revision; ``run.storage`` is ignored.

    Raises `VidalError`; shards committed before the error stay, and the same command resumes.
    """
    info, recipe = base.info, run.recipe
    resolved = {
        **info.recipe,
        # A dataset may have been written without a recipe of stages: an index, a rendered set.
        "stages": [*info.recipe.get("stages", []), *(step.identity() for step in recipe.steps)],
        # The same stages over another revision are another result.
        "revision_of": info.fingerprint,
    }
    # `vidal grow` runs the whole dataset's recipe again, in which an added stage replaces its earlier line.
    added, definition = recipe.definition, info.definition
    names = {name for line in added["stages"] for name in (line if isinstance(line, dict) else [line])}
    lines = definition.get("stages", [])
    kept = [line for line in lines if not names & set(line if isinstance(line, dict) else [line])]
    definition = {**definition, "stages": [*kept, *added["stages"]]}
    if named := list(dict.fromkeys([*definition.get("modalities", ()), *added.get("modalities", ())])):
        definition["modalities"] = named
    layers = recipe.layers()
    if recipe.removals:
        definition["removals"] = added["removals"]
    with locked(base, run.progress.line) as base:
        revision = begin(
            base,
            made_by=f"{COMMAND} {path.name}",
            fingerprint=fingerprint(resolved),
            changes={
                "recipe": resolved,
                "definition": definition,
                "layers": layers,
                "columns": recipe.columns(),
                "modalities": {layer: where for layer, where in recipe.modalities.items() if layer in layers},
            },
            # With a global decision among the steps, the plan of the last phase is made by the decision.
            has_plan=len(recipe.phases()) == 1,
        )
        complete(dataclasses.replace(run, storage=revision.own_storage, base=base))
        finish(revision)
