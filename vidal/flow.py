"""Checks, before anything runs, of what a recipe's steps read, write and declare.

A step may read what the source provides or an earlier step writes, and may write what is declared: columns of
`vidal.clip.Clip`, layers of a stage, and the columns of its own class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain

import pyarrow as pa

from vidal.arrow_types import arrow_type
from vidal.clip import column_names
from vidal.errors import RecipeError
from vidal.record import GROUPS, Column, type_name
from vidal.sources.source import Source
from vidal.stage import IN_WORKER, Decision, Stage, Step
from vidal.stages import CATALOGUE, step_class

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_flow(source: Source, steps: Sequence[Step], place: str) -> None:
    """Raise `RecipeError` for a step that reads a name that no earlier step writes, or writes an undeclared one."""
    named = {step.step_name(): f"{place}: stages[{index}].{step.step_name()}" for index, step in enumerate(steps)}
    if source.needs_step and source.needs_step not in named:
        raise RecipeError(f"{place}: this source needs the stage `{source.needs_step}`; add it behind `fetch`")
    known = _check_declarations(source, steps, named)
    available = source.columns()
    on_gpu = False
    for number, step in enumerate(steps):
        for setting, stage in step.useless_without.items():
            if getattr(step, setting) and stage not in [later.step_name() for later in steps[number + 1 :]]:
                at = f"{named[step.step_name()]}.{setting}"
                raise RecipeError(f"{at} asks for what only `{stage}` stores; put `{stage}` behind it, or leave it out")
        if isinstance(step, Stage) and on_gpu != (step.needs.gpus > 0):
            # Stages for a GPU run in other workers, which working state does not reach.
            on_gpu, available = not on_gpu, available - IN_WORKER
        required = step.requires()
        if any(name not in known for name in required):
            # Asked only here, because it reads the source.
            available |= source.own_columns()
        missing = next((name for name in required if name not in available), None)
        if missing:
            of_recipe = (each.step_name() for each in steps if missing in _written(each))
            of_catalogue = (name for name in CATALOGUE if missing in step_class(name).writes)
            writer = next(chain(of_recipe, of_catalogue), None)
            hint = f"put `{writer}` before it" if writer else "no stage writes it"
            if missing in IN_WORKER:
                hint += ", with no global decision and no stage for a GPU between the two"
            raise RecipeError(f"{named[step.step_name()]} reads `{missing}`, which nothing before it writes; {hint}")
        if isinstance(step, Stage) and step.rewrites:
            _check_hides(step, source, steps[:number], named)
        if isinstance(step, Decision):
            available -= IN_WORKER
        available |= _written(step)


def _check_hides(step: Stage, source: Source, earlier: Sequence[Step], named: Mapping[str, str]) -> None:
    """Raise `RecipeError` if what a stage hides in its layers is stored elsewhere by then."""
    at, layer = named[step.step_name()], step.rewrites[0]
    # It takes the source's own file out by itself, and audio shows nothing.
    plain = {*step.rewrites, "audio", "source"}
    for other in source.layers():
        if other not in plain:
            raise RecipeError(f"{at} hides what the source's layer `{other}` shows; start from what has no such layer")
    is_stored = layer in source.layers()
    for other_step in earlier:
        name = other_step.step_name()
        if isinstance(other_step, Stage):
            if made := [other for other in other_step.layers if other not in plain]:
                raise RecipeError(f"{at} hides what `{made[0]}` shows by then; put `{name}` behind it")
            is_stored |= layer in other_step.layers
        elif is_stored:
            raise RecipeError(f"{at} hides what `{name}` stores `{layer}` for; put `{name}` behind it")


def _written(step: Step) -> set[str]:
    return {*step.writes, *step.columns, *(step.layers if isinstance(step, Stage) else ())}


def _check_declarations(source: Source, steps: Sequence[Step], named: Mapping[str, str]) -> set[str]:
    """Return every name that a step may write: columns of `Clip`, layers, working state and declared columns."""
    declared = {name: (column, "the source's dataset") for name, column in source.declared().items()}
    layers = {*source.layers(), *(layer for step in steps if isinstance(step, Stage) for layer in step.layers)}
    for step in steps:
        at = named[step.step_name()]
        for name, column in step.columns.items():
            _check_column(name, column, layers, at)
            other, by = declared.setdefault(name, (column, f"`{step.step_name()}`"))
            if other.kind != column.kind:
                own, its = (f"{type_name(each.type)} ({each.group})" for each in (column, other))
                raise RecipeError(f"{at} declares `{name}` as {own}, {by} as {its}; rename one of them")
    known = {*column_names(), *layers, *IN_WORKER, *declared}
    for step in steps:
        unknown = next((name for name in step.writes if name not in known), None)
        if unknown:
            raise RecipeError(
                f"{named[step.step_name()]} writes `{unknown}`, which no step declares; declare a new column with "
                f'columns = {{"{unknown}": Column(TYPE, "MEANING")}} in the step\'s class'
            )
    return known


def _check_column(name: str, column: Column, layers: set[str], at: str) -> None:
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{at} declares a column {name!r}; names consist of lower-case letters, digits and _")
    if name in column_names():
        raise RecipeError(f"{at} declares `{name}`, which is already a column of the record; name it in `writes`")
    if name in layers or name in IN_WORKER:
        raise RecipeError(f"{at} declares a column `{name}`, which is a layer or working state; rename it")
    if not isinstance(column, Column):
        raise RecipeError(f"{at} declares `{name}` as {column!r}; write Column(TYPE, MEANING)")
    try:
        type_name(column.type)
    except TypeError as error:
        raise RecipeError(f"{at} declares `{name}` with a type that cannot be stored: {error}") from None
    if column.group not in GROUPS:
        raise RecipeError(f"{at} declares `{name}` in group `{column.group}`; groups are {', '.join(GROUPS)}")


def check_own_columns(own: pa.Schema, declared: Mapping[str, Column], place: str) -> None:
    """Raise `RecipeError` for a column of the source that conflicts with a declared one."""
    for field in own:
        name = field.name.lower()
        column = declared.get(name)
        if column is not None and (field.name != name or not field.type.equals(arrow_type(column.type))):
            raise RecipeError(
                f"{place}: the source has a column `{field.name}` of type {field.type}, and a stage declares `{name}` "
                f"as {type_name(column.type)}; rename that of the source"
            )
